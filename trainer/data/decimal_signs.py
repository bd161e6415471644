"""Decide what the decimal sign of each column is in each file.

`1,234` is 1234 or 1.234. A file shows which where another number leaves no doubt, such as `12,5`:
in the same column, else in another column of the file, else in another file of the same dialect.
Files of another dialect have another author, so that their numbers prove nothing.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from trainer.data.number_formats import CellScan, Decimal


@dataclass(frozen=True, slots=True)
class DecimalEvidence:
    """What the cells of a column in one file show.

    Args:
        sign: the decimal sign, if it is certain.
        has_commas: whether there are numbers such as `1,234`.
        has_points: whether there are numbers such as `1.234`.
    """

    sign: Decimal | None
    has_commas: bool = False
    has_points: bool = False


@dataclass(frozen=True, slots=True)
class SettledSign:
    """The decimal sign of a column in one file.

    Args:
        sign: None if it is unclear.
        is_assumed: whether `1.234` is read as 1.234 only because nothing contradicts it.
    """

    sign: Decimal | None
    is_assumed: bool = False


def evidence_of(scan: CellScan) -> DecimalEvidence:
    """Return what the scanned cells show."""
    return DecimalEvidence(scan.certain_decimal, scan.comma_unclear > 0, scan.point_unclear > 0)


# By file, then by column.
Evidence: TypeAlias = "Mapping[str, Mapping[str, DecimalEvidence]]"
Signs: TypeAlias = "dict[str, dict[str, SettledSign]]"


def settle_signs(evidence: Evidence, dialects: Mapping[str, str]) -> Signs:
    """Return the decimal sign of each column in each file, if it can be settled.

    Points alone are decimal points, unless the files of other dialects have decimal commas.

    Args:
        evidence: of columns of numbers alone.
        dialects: the dialect of each file.
    """
    in_file: defaultdict[str, set[Decimal]] = defaultdict(set)
    in_column: defaultdict[tuple[str, str], set[Decimal]] = defaultdict(set)
    in_dialect: defaultdict[str, set[Decimal]] = defaultdict(set)
    for file, columns in evidence.items():
        for column, found in columns.items():
            if found.sign is not None:
                in_file[file].add(found.sign)
                in_column[dialects[file], column].add(found.sign)
                in_dialect[dialects[file]].add(found.sign)
    everywhere = set[Decimal]().union(*in_dialect.values())

    def settle(file: str, column: str, found: DecimalEvidence) -> SettledSign:
        if found.sign is not None:
            return SettledSign(found.sign)
        dialect = dialects[file]
        for signs in (in_file[file], in_column[dialect, column], in_dialect[dialect]):
            if len(signs) == 1:
                return SettledSign(next(iter(signs)))
        is_alone = not in_dialect[dialect]
        if found.has_commas or (found.has_points and is_alone and "," in everywhere):
            return SettledSign(None)
        return SettledSign(".", is_assumed=found.has_points)

    return {
        file: {column: settle(file, column, found) for column, found in columns.items()}
        for file, columns in evidence.items()
    }
