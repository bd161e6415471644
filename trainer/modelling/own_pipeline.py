"""The owner's training code: a Python file with a function that returns an estimator.

It is loaded from a file of the person or pipeline that trains, never from a data store. Its code
may fail in any way; `OwnPipeline.running` turns that into one line.
"""

import ast
import re
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sklearn.base import clone, is_classifier, is_regressor
from sklearn.model_selection import ParameterGrid

from registry.records import Signature, StoreError
from trainer.errors import TrainerError

MODULE = "tollgate_pipeline"
"""The name under which the file is imported; pickles contain its classes by value."""
ARTEFACT = "pipeline.py"
"""The name of the file among those of a version."""
MAX_FILE_BYTES = 1024**2
MAX_VARIANTS = 50
MAX_MESSAGE_LENGTH = 300
GIT_DEADLINE_S = 10

Timed = Callable[[], AbstractContextManager[None]]


class PipelineError(TrainerError):
    """The owner's code cannot be loaded, or failed; nothing was published."""


@dataclass(frozen=True)
class PipelineFile:
    """A pipeline file to train with.

    Args:
        only: whether to try no other candidate.
        timed: wraps the times in which the owner's code runs.
    """

    path: Path
    function: str = "make_pipeline"
    only: bool = False
    timed: Timed = nullcontext


@dataclass(frozen=True)
class OwnPipeline:
    """A loaded pipeline file.

    Args:
        source: the file's content.
        commit: the commit that last changed it; None if it is not committed as it is.
        estimator: the unfitted estimator.
        variants: the parameter sets to try, the default ones first.
    """

    file: PipelineFile
    source: bytes
    commit: str | None
    estimator: Any
    variants: list[dict[str, Any]]

    @contextmanager
    def running(self, doing: str) -> Iterator[None]:
        """Time the owner's code, and turn what it raises into one line.

        Raises:
            PipelineError: the code raised something, or called `sys.exit`.
        """
        with _guarded(self.file, doing):
            yield


def check_pipeline_path(path: Path, *, data_store_url: str) -> None:
    """Refuse code from a data store: uploading data must not run code here.

    Raises:
        PipelineError: the path is a URL, or inside the data store's folder.
    """
    if "://" in str(path) or re.match(r"[a-z][a-z0-9+.-]+:/", str(path)):
        raise PipelineError(
            f"The pipeline file {path} is not a local file; code is never read from a store."
        )
    folder = data_store_url.removeprefix("file://")
    if "://" not in folder and path.resolve().is_relative_to(Path(folder).resolve()):
        raise PipelineError(
            f"The pipeline file {path} is in the data store, whose files are never executed."
        )


def load_pipeline(file: PipelineFile, signature: Signature) -> OwnPipeline:
    """Execute a pipeline file and its function.

    Raises:
        PipelineError: it cannot be executed, has no such function, or returns no estimator that
            suits the signature.
    """
    source = _read(file.path)
    module = types.ModuleType(MODULE)
    module.__file__ = str(file.path)
    sys.modules[MODULE] = module  # dataclasses and pickles look it up
    with _guarded(file, "cannot be imported"):
        exec(compile(source, str(file.path), "exec"), module.__dict__)  # noqa: S102  # its purpose
    function = getattr(module, file.function, None)
    if not callable(function):
        functions = [
            each.name for each in ast.parse(source).body if isinstance(each, ast.FunctionDef)
        ]
        found = ", ".join(map(repr, functions)) or "none"
        raise PipelineError(
            f"{file.path.name}: there is no function {file.function!r} (found: {found}). It must "
            "take the signature and return an estimator."
        )
    with _guarded(file, f"{file.function}() failed"):
        estimator = function(signature)
    with _guarded(file, f"{file.function}() returned an estimator that cannot be used"):
        _check_estimator(file, estimator, signature)
        variants = _list_variants(file, estimator, getattr(module, "param_grid", None))
    return OwnPipeline(file, source, find_commit(file.path), clone(estimator), variants)


def find_commit(path: Path) -> str | None:
    """Return the commit that last changed a file; None if it is not committed as it is."""

    def git(*words: str) -> str:
        command = ["git", "-C", str(path.absolute().parent), *words, "--", path.name]
        return subprocess.run(  # noqa: S603  # no shell, and our own words
            command, capture_output=True, text=True, timeout=GIT_DEADLINE_S, check=True
        ).stdout.strip()

    try:
        return None if git("status", "--porcelain") else git("log", "-1", "--format=%H") or None
    except (OSError, subprocess.SubprocessError):
        return None


def describe_error(error: BaseException, path: Path | None = None) -> str:
    """Return an error of someone's code on one line, with its line number in that code's file."""
    if isinstance(error, SystemExit):
        message = "it called sys.exit"
    elif isinstance(error, ModuleNotFoundError) and error.name:
        message = f"the package {error.name.partition('.')[0]!r} is not installed"
    else:
        text = " ".join(str(error).split())[:MAX_MESSAGE_LENGTH]
        message = f"{type(error).__name__}: {text}" if text else type(error).__name__
    lines = []
    trace = error.__traceback__
    while trace is not None:
        if path is not None and trace.tb_frame.f_code.co_filename == str(path):
            lines.append(trace.tb_lineno)
        trace = trace.tb_next
    if isinstance(error, SyntaxError) and error.lineno:
        lines = [error.lineno]
    return f"{message.rstrip('.')}{f' (line {lines[-1]})' if lines else ''}"


@contextmanager
def _guarded(file: PipelineFile, doing: str) -> Iterator[None]:
    with file.timed():
        try:
            yield
        except (StoreError, TrainerError):
            raise
        except (Exception, SystemExit) as error:
            why = describe_error(error, file.path)
            raise PipelineError(f"{file.path.name}: {doing}: {why}.") from error


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            source = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise PipelineError(f"The pipeline file {path} cannot be read: {why}.") from error
    if len(source) > MAX_FILE_BYTES:
        raise PipelineError(f"The pipeline file {path} is larger than 1 MiB.")
    return source


def _check_estimator(file: PipelineFile, estimator: Any, signature: Signature) -> None:
    what = f"{file.path.name}: {file.function}() returned"
    kind = type(estimator).__name__
    if isinstance(estimator, type) or not all(
        hasattr(estimator, each) for each in ("fit", "predict", "get_params", "set_params")
    ):
        shown = f"the class {estimator.__name__}" if isinstance(estimator, type) else f"a {kind}"
        raise PipelineError(f"{what} {shown}, which is not a scikit-learn estimator.")
    if signature.classes is None:
        if is_classifier(estimator):
            raise PipelineError(f"{what} the classifier {kind}, but the task is regression.")
    elif is_regressor(estimator):
        raise PipelineError(f"{what} the regressor {kind}, but the task is classification.")
    elif not hasattr(estimator, "predict_proba"):
        raise PipelineError(
            f"{what} a {kind} without predict_proba, which the gate needs; wrap it in "
            "CalibratedClassifierCV."
        )


def _list_variants(file: PipelineFile, estimator: Any, grid: Any) -> list[dict[str, Any]]:
    """Return the parameter sets of a grid in scikit-learn's form, after the default one."""
    if grid is None:
        return [{}]
    combinations = ParameterGrid(grid)
    if len(combinations) > MAX_VARIANTS:
        raise PipelineError(
            f"{file.path.name}: param_grid has {len(combinations):,} combinations; at most "
            f"{MAX_VARIANTS} are allowed."
        )
    variants: list[dict[str, Any]] = [dict(parameters) for parameters in combinations]
    for parameters in variants:
        clone(estimator).set_params(**parameters)
    return variants
