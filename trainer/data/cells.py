"""Clean the cells of a column and find the bad ones."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from registry.value_rules import BLANKS, ValueRules
from trainer.data.part import Part
from trainer.types import Mask

MAX_PLACES = 3
MAX_VALUE_LENGTH = 40

IsWanted = Callable[[Part, pa.Array], Mask]
"""Marks the wanted cells of one column of a part's block."""


@dataclass
class FoundCells:
    """The number of matching cells, and the first three with their places."""

    count: int = 0
    places: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        more = self.count - len(self.places)
        return ", ".join(self.places) + (f" and {more:,} more" if more else "")


def clean_texts(texts: pa.Array, rules: ValueRules) -> pa.Array:
    """Clean text as `ValueRules.clean` does; missing values become null."""
    if not pa.types.is_large_string(texts.type):  # an empty Parquet column
        texts = texts.cast(pa.large_string())
    if rules.trim:
        texts = pc.utf8_trim(texts, characters=BLANKS)
    missing = pa.array(["", *rules.missing], pa.large_string())
    return pc.if_else(pc.is_in(texts, value_set=missing), pa.scalar(None, pa.large_string()), texts)


def find_cells(parts: list[Part], wanted: Mapping[str, IsWanted]) -> dict[str, FoundCells]:
    """Read the parts again to find the wanted cells of some columns."""
    found = {name: FoundCells() for name in wanted}
    for part in parts if wanted else []:
        here: dict[str, list[tuple[int, Any]]] = {name: [] for name in wanted}
        start = 0
        names = [name for name in part.columns if name in wanted]
        for block in part.read(names) if names else ():
            for name in names:
                is_wanted = wanted[name]
                rows = np.flatnonzero(is_wanted(part, block[name]))
                room = MAX_PLACES - len(found[name].places) - len(here[name])
                here[name] += [(start + int(i), block[name][int(i)].as_py()) for i in rows[:room]]
                found[name].count += len(rows)
            start += len(next(iter(block.values())))
        for name, cells in here.items():
            if name not in names:
                continue  # an export of feedback lacks identifiers
            places = part.places(name, [row for row, _ in cells])
            found[name].places += [
                f"{part.name} {place}: {show_value(value)}"
                for place, (_, value) in zip(places, cells, strict=True)
            ]
    return found


def show_value(value: Any) -> str:
    """Return a value in quotes, on one line, truncated if it is very long."""
    text = value if isinstance(value, str) else str(value)
    if len(text) > MAX_VALUE_LENGTH:
        text = text[: MAX_VALUE_LENGTH - 1] + "…"
    return json.dumps(text, ensure_ascii=not text.isprintable())
