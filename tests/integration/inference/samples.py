"""Small models of each kind, trained by the real trainer."""

import json
import random
from dataclasses import dataclass
from pathlib import Path

from registry.keys import create_signing_key
from trainer.pipeline import train
from trainer.settings import TrainerSettings

NUMBERS_ROW = [1.0, 2.0, 3.0]
MIXED_ROW = {"size": 5.0, "colour": "red", "sold": True}
CARD = {
    "public": True,
    "title": "Big or small",
    "summary": "Separates big things from small ones.",
    "limitations": ["Knows three colours."],
}
"""The card of `mixed`; the other models are private."""


@dataclass(frozen=True)
class Store:
    """The location of the models, of the keys that verify them, and of the key that signs them."""

    url: str
    trusted: Path
    signing_key: Path


def store_in(folder: Path) -> Store:
    """Return the store that `train_samples` left in a folder, which may have been moved."""
    keys = folder / "keys"
    return Store(f"file://{folder}/models", keys / "trusted", keys / "signing.pem")


def train_samples(folder: Path) -> None:
    """Train, sign and release the three models; `mixed` is public."""
    store = store_in(folder)
    trainer = TrainerSettings(
        model_store=store.url,
        data_store=f"file://{folder}/data",
        signing_key=store.signing_key,
    )
    create_signing_key(store.signing_key, store.trusted)
    chance = random.Random(1)
    _write(folder / "data/numbers/part.csv", "a,b,c,label", _numbers(chance))
    _write(folder / "data/mixed/part.csv", "size,colour,sold,label", _mixed(chance))
    _write(folder / "data/price/part.csv", "a,b,price", _price(chance))
    settings = {"target": "label", "card": CARD}
    (folder / "data/mixed/dataset.json").write_text(json.dumps(settings))
    for model, target in (("numbers", "label"), ("mixed", "label"), ("price", "price")):
        train(trainer, model, target=target, release=True)


def _write(path: Path, header: str, rows: list[str]) -> None:
    path.parent.mkdir(parents=True)
    path.write_text("\n".join([header, *rows]) + "\n")


def _numbers(chance: random.Random) -> list[str]:
    rows = [[chance.gauss(0, 1) for _ in range(3)] for _ in range(120)]
    return [f"{a},{b},{c},{int(a + b > 0)}" for a, b, c in rows]


def _mixed(chance: random.Random) -> list[str]:
    rows = []
    for _ in range(120):
        size, colour = chance.uniform(0, 10), chance.choice(["red", "green", "blue"])
        sold = chance.choice(["true", "false"])
        label = "big" if size + (3 if colour == "red" else 0) > 6 else "small"
        rows.append(f"{size},{colour},{sold},{label}")
    return rows


def _price(chance: random.Random) -> list[str]:
    rows = [(chance.uniform(0, 10), chance.uniform(0, 10)) for _ in range(120)]
    return [f"{a},{b},{3 * a - b + chance.gauss(0, 0.1)}" for a, b in rows]
