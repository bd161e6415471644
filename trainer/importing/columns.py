"""Match a finished model's columns, task and classes with those of the data."""

import re
from dataclasses import replace

from registry.records import Column, Label, Signature
from trainer.data.load import LoadedData
from trainer.importing.finished import FinishedModel, ModelFileError
from trainer.wording import counted, listed

MAX_NAMED = 5
ALIKE = ({"number", "boolean"}, {"text", "sentence"})
"""Kinds that a model sees alike: booleans are 0 and 1, and a sentence is text."""
TAKE_TIMES = ("joblib", "skops")
STATE_KIND = 'State its kind under "columns" in dataset.json.'


def match_data(loaded: LoadedData, finished: FinishedModel) -> LoadedData:
    """Return the data with its columns in the model's order.

    Raises:
        ModelFileError: the columns, their kinds, the task or the classes differ.
    """
    problem = loaded.problem
    signature = problem.signature
    check_task(finished, signature)
    names = [column.name for column in signature.columns]
    ordered = _match_columns(finished, names, ignored=loaded.ignored)
    by_name = {column.name: column for column in signature.columns}
    columns = [by_name[name] for name in ordered]
    _check_kinds(finished, columns)
    _check_classes(finished, signature)
    matched = replace(
        problem,
        table=problem.table[ordered],
        signature=signature.model_copy(update={"columns": columns}),
    )
    return replace(loaded, problem=matched)


def check_task(finished: FinishedModel, signature: Signature) -> None:
    """Check that the model predicts what the signature says.

    Raises:
        ModelFileError: one is a classification and the other a regression.
    """
    if finished.task is not None and finished.task != signature.task:
        raise ModelFileError(
            f"The model is for {finished.task}, but the target {signature.target!r} is for "
            f"{signature.task}."
        )


def _match_columns(
    finished: FinishedModel, names: list[str], *, ignored: dict[str, str]
) -> list[str]:
    """Return the data's columns in the model's order."""
    if finished.columns is None:
        if finished.width not in (None, len(names)):
            raise ModelFileError(
                f"The model takes {counted(finished.width or 0, 'column')} without names, but the "
                f"data has {len(names)}: {listed(names, most=MAX_NAMED)}."
            )
        return names
    known = {_simplify(name): name for name in names}
    known = known if len(known) == len(names) else {}
    ordered = [
        name if name in names else known.get(_simplify(name), name) for name in finished.columns
    ]
    missing = [repr(name) for name in ordered if name not in names]
    more = [repr(name) for name in names if name not in ordered]
    if missing:
        unread = [name for name in ordered if name in ignored]
        hint = f" The data has {unread[0]!r}, but ignores it. {STATE_KIND}" if unread else ""
        raise ModelFileError(
            f"The data lacks columns of the model: {listed(missing, most=MAX_NAMED)}.{hint}"
        )
    if more:
        raise ModelFileError(
            f"The data has columns that the model does not take: {listed(more, most=MAX_NAMED)}. "
            'List them under "ignore" in dataset.json.'
        )
    if len(set(ordered)) < len(ordered):
        raise ModelFileError("The model names the same column twice.")
    return ordered


def _check_kinds(finished: FinishedModel, columns: list[Column]) -> None:
    by_position = dict(zip(finished.columns or [], columns, strict=False))
    for name, kind in finished.kinds.items():
        column = by_position.get(name)
        if column is None or kind == column.kind or {kind, column.kind} in ALIKE:
            continue
        raise ModelFileError(
            f"Column {column.name!r} is {kind} in the model, but {column.kind} in the data. "
            f"{STATE_KIND}"
        )
    for column in columns:
        if column.kind == "datetime" and finished.format not in TAKE_TIMES:
            raise ModelFileError(
                f"Column {column.name!r} is a time, which {finished.format} models do not take. "
                f"{STATE_KIND}"
            )


def _check_classes(finished: FinishedModel, signature: Signature) -> None:
    ours, theirs = finished.classes, signature.classes
    if ours is None or theirs is None or ours == theirs:
        return
    if finished.renames and len(ours) == len(theirs):
        return
    raise ModelFileError(
        f"The model's classes differ from the data's: {_show(ours)}, but {_show(theirs)}."
    )


def describe_renaming(finished: FinishedModel, signature: Signature) -> list[str]:
    """Return a sentence if the model's classes are numbers for those of the data."""
    ours, theirs = finished.classes, signature.classes
    if ours is None or theirs is None or ours == theirs:
        return []
    return [f"The model's classes {_show(ours)} are read as {_show(theirs)}, in sorted order."]


def _show(classes: list[Label]) -> str:
    return listed([repr(label) for label in classes], most=MAX_NAMED)


def _simplify(name: str) -> str:
    """Return a name as tools write it that replace what is no letter, digit or underscore."""
    return re.sub(r"\W", "_", name)
