"""The sample model, from the UCI wine data that ships with scikit-learn.

`python -m cli.local.sample` trains, signs and releases it, unless it has a release.
"""

import csv
import gc
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import structlog

from registry.records import StoreError
from registry.storage.local import create_file
from registry.store import ModelStore
from services.common.telemetry.logs import configure_logging
from trainer.errors import TrainerError
from trainer.settings import TrainerSettings

MODEL = "wine"
_TARGET = "class"
_CARD = {
    "public": True,
    "title": "Wine cultivars",
    "summary": (
        "Finds which of three cultivars a wine was made from, by thirteen measurements of its "
        "chemistry. For checking the origin of wines from one region."
    ),
    "limitations": [
        "Trained on 178 wines from one region of Italy. It has seen no other region or cultivar, "
        "and always answers with one of the three.",
        "Measurements must be in the units of the training data. In others, the answer is "
        "meaningless, however high its probability.",
        "It says nothing about the quality, the safety or the price of a wine.",
    ],
}


def seed(data: Path) -> None:
    """Write the sample data to a local data store, unless it exists.

    178 rows with 13 numeric columns and `class` (0, 1 or 2).
    """
    folder = data / MODEL
    if (folder / f"{MODEL}.csv").exists():
        return

    from sklearn.datasets import load_wine  # seconds of imports, needed once per installation

    wine = load_wine()
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow([*wine.feature_names, _TARGET])
    for row, label in zip(wine.data.tolist(), wine.target.tolist(), strict=True):
        table.writerow([*(f"{value:g}" for value in row), label])
    settings = json.dumps({"target": _TARGET, "card": _CARD}, indent=2)
    create_file(folder / "dataset.json", settings.encode(), mode=0o644)
    create_file(folder / f"{MODEL}.csv", text.getvalue().encode(), mode=0o644)


def ensure_released(settings: TrainerSettings, *, report: Callable[[str], None]) -> None:
    """Create the signing keys and, if the data store is the local default, release the sample.

    A configured model store with other models gets no sample.

    Raises:
        StoreError: the model store or a key is unusable.
        TrainerError: training failed.
    """
    settings.load_trusted_keys()
    if settings.data_store:
        return
    seed(settings.home / "data")
    store = ModelStore(settings.model_store_url)
    is_in_use = settings.model_store and set(store.list_models()) - {MODEL}
    if is_in_use or store.list_releases(MODEL):
        return

    from trainer.pipeline import train  # seconds of imports, needed once per installation

    report(f"training the sample model, {MODEL} (first start only)")
    train(
        settings,
        MODEL,
        release=True,
        reason="the sample model",
        report_progress=lambda doing, share: report(f"  {share:4.0%}  {doing}"),
    )


def main() -> None:
    """Release the sample model; on failure, print one line on stderr and exit with 1."""
    gc.disable()  # half of the time goes into imports, which leave no garbage
    settings = TrainerSettings.load()
    configure_logging("tollgate", style=settings.log_format)
    try:
        ensure_released(settings, report=structlog.get_logger().info)
    except (OSError, StoreError, TrainerError) as error:
        sys.exit(f"error: {' '.join(str(error).split())}")


if __name__ == "__main__":
    main()
