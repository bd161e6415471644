"""The sample model: the UCI wine data that scikit-learn carries."""

import csv
import io
import json
from pathlib import Path

from services.common.model_keys import create_file

MODEL = "wine"
_TARGET = "class"


def seed(data: Path) -> None:
    """Put the sample data into a local data bucket, unless it is there.

    178 rows; 13 numeric columns and `class` (0, 1 or 2).
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
    create_file(folder / "dataset.json", json.dumps({"target": _TARGET}).encode(), mode=0o644)
    create_file(folder / f"{MODEL}.csv", text.getvalue().encode(), mode=0o644)
