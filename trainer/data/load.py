"""Load a model's data folder as a learning problem."""

import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from registry.records import Signature
from trainer.data.download import Dataset, fetch_dataset
from trainer.data.problem import Problem, define_problem
from trainer.data.table import read_table
from trainer.data.target import choose_target
from trainer.types import Task


@dataclass(frozen=True)
class LoadedData:
    """A learning problem, and what its files contain.

    Args:
        size: bytes of the files or of the table in memory, whichever is more: Parquet may be
            compressed.
        ignored: columns that were not read, with the reasons.
        notes: sentences about how the data was read.
        warnings: sentences about columns that may have been misread.
        has_dates: whether the times are dates rather than numbers.
    """

    dataset: Dataset
    problem: Problem
    size: int
    ignored: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    has_dates: bool = False


def load_data(
    url: str,
    model: str,
    *,
    target: str | None,
    before: Signature | None,
    max_bytes: int,
    task: Task | None = None,
) -> LoadedData:
    """Download the data, read it into a table, and define the learning problem.

    Args:
        url: fsspec URL of the data store.
        target: the column to predict; None for that of `dataset.json` or the previous version.
        before: the previous version's signature, if there is one.
        max_bytes: larger data is refused before any of it is read.
        task: the task if neither `dataset.json` nor the previous version states it; None to choose.

    Raises:
        DataError: the data or `dataset.json` is invalid.
        StoreError: fsspec does not support the URL.
    """
    with tempfile.TemporaryDirectory(prefix="tollgate-train-") as folder:
        dataset = fetch_dataset(url, model, into=Path(folder), max_bytes=max_bytes)
        config = dataset.config
        named, stated = choose_target(target, config, before)
        precise = [name for name in (named, config.time, config.group) if name is not None]
        previous = None if before is None else {c.name: c.kind for c in before.columns}
        table = read_table(
            dataset.parts, config=config, precise=precise, target=named, previous=previous
        )
        problem = define_problem(
            table,
            target=named,
            task=stated or task,
            config=config,
            known_kinds=previous or {},
        )
    return LoadedData(
        dataset=dataset,
        problem=problem,
        size=max(dataset.size, table.size),
        ignored=table.ignored,
        notes=table.notes,
        warnings=table.warnings,
        has_dates=config.time is not None and table.kinds[config.time] in ("text", "datetime"),
    )
