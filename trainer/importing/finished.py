"""A finished model, as the readers of all formats return it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from registry.origins import ImportFormat
from registry.records import Label, Signature, StoreError
from trainer.errors import TrainerError
from trainer.modelling.own_pipeline import describe_error
from trainer.types import Kind, Task

MAX_MODEL_BYTES = 1024**3
"""The largest model file; ONNX files end at 2 GiB."""


class ModelFileError(TrainerError):
    """The file is not a model that can be served; nothing was published."""


@dataclass(frozen=True)
class FinishedModel:
    """A model that was read from a file.

    Args:
        content: the model file, and `extension` that of its name.
        task: None if the file does not say.
        columns: the names of its columns, in order; None if it takes them by position.
        width: how many columns it takes; None if any number.
        kinds: the kinds of its columns, as far as the file says.
        classes: a classifier's labels; None if the file does not say. Classes 0, 1, … may stand
            for other labels (`renames`).
        build: returns an estimator for a signature: `predict`, `predict_proba` and `classes_`.
        convert: returns the ONNX form for a signature. Raises ExportError.
        pickles: whether the estimator can be served from a pickle.
        modules: modules whose code such a pickle must contain.
        notes: sentences about what was found.
    """

    format: ImportFormat
    content: bytes
    extension: str
    task: Task | None
    columns: list[str] | None
    width: int | None
    build: Callable[[Signature], Any]
    convert: Callable[[Any, Signature], bytes]
    classes: list[Label] | None = None
    renames: bool = False
    kinds: dict[str, Kind] = field(default_factory=dict)
    target: str | None = None
    pickles: bool = False
    modules: tuple[str, ...] = ()
    mlflow: bool = False
    notes: list[str] = field(default_factory=list)


@contextmanager
def failures_of(name: str, doing: str) -> Iterator[None]:
    """Turn what a library, or code in a pickle, raises into one line.

    Raises:
        ModelFileError: something was raised, or the code called `sys.exit`.
    """
    try:
        yield
    except (StoreError, TrainerError):
        raise
    except (Exception, SystemExit) as error:
        raise ModelFileError(f"{name}: {doing}: {describe_error(error)}.") from error
