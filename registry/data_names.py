"""Classify the objects in a model's data folder by their names: which belong to a drop?"""

import re
from typing import Literal

SUCCESS = "_SUCCESS"
DATASET = "dataset.json"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+=-]{0,199}\.(?i:csv|parquet)")
"""Names that are safe in a run's title, a shell and a log line."""
SUPPORTED = "ASCII letters, digits and . _ + = -, at most 200, starting with a letter or digit"

Kind = Literal["success", "settings", "data", "unsupported", "other"]
FORMATS = (".csv", ".parquet")


def kind_of(path: str) -> Kind:
    """Classify an object by its path in a model's folder; no other code decides what is in a drop.

    `unsupported` has the suffix of data, but an unsafe name.
    """
    if path == SUCCESS:
        return "success"
    if path == DATASET:
        return "settings"
    if "/" in path or not path.lower().endswith(FORMATS):
        return "other"
    return "data" if NAME.fullmatch(path) else "unsupported"
