"""A workshop: a state folder with data, and the versions trained from it."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from registry.keys import TrustedKeys
from registry.records import Manifest
from registry.releases import ReleaseManager
from registry.store import ModelStore
from trainer.outcome import Outcome
from trainer.pipeline import train
from trainer.settings import TrainerSettings


@dataclass(frozen=True)
class Workshop:
    """Data goes into `data/<model>/`; versions come out of `store`."""

    home: Path
    settings: TrainerSettings

    @property
    def store(self) -> ModelStore:
        return ModelStore(self.settings.model_store_url)

    @property
    def trusted(self) -> TrustedKeys:
        return self.settings.load_trusted_keys()

    @property
    def release_manager(self) -> ReleaseManager:
        return ReleaseManager(store=self.store, trusted=self.trusted, by="ada@lab")

    def put(self, model: str, content: str | bytes, name: str = "part.csv") -> None:
        folder = self.home / "data" / model
        folder.mkdir(parents=True, exist_ok=True)
        raw = content.encode() if isinstance(content, str) else content
        (folder / name).write_bytes(raw)

    def put_rows(self, model: str, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        lines = [",".join(map(str, row)) for row in [header, *rows]]
        self.put(model, "\n".join(lines) + "\n")

    def configure(self, model: str, **fields: Any) -> None:
        """Write `dataset.json`, by default with the only family that trains in a second."""
        document = {"estimators": ["linear"], **fields}
        self.put(model, json.dumps(document), name="dataset.json")

    def copy(self, home: Path) -> "Workshop":
        """Copy the state folder, which can be moved."""
        return new_workshop(Path(shutil.copytree(self.home, home)))

    def train(self, model: str, **options: Any) -> Outcome:
        return train(self.settings, model, **options)

    def manifest(self, outcome: Outcome) -> Manifest:
        return self.store.open_version(outcome.model, outcome.version, self.trusted)


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    return new_workshop(tmp_path)


def new_workshop(home: Path) -> Workshop:
    return Workshop(home, TrainerSettings(home=home))
