"""Small realistic data sets: eighty rows that can be learned, and ways to corrupt them."""

import random
from collections.abc import Callable, Mapping

HEADER = ("price", "qty", "colour", "bought")
Rows = list[list[str]]


def sales(count: int = 80) -> Rows:
    """Returns rows of price, quantity, colour, and whether it was bought: expensive ones were."""
    chance = random.Random(7)
    rows = []
    for _ in range(count):
        price = round(chance.uniform(30.01, 70), 2)
        colour = chance.choice(["red", "green", "blue"])
        bought = "yes" if price + chance.gauss(0, 4) > 50 else "no"
        rows.append([f"{price:.2f}", str(chance.randint(1, 500)), colour, bought])
    return rows


def write(
    rows: Rows,
    header: tuple[str, ...] = HEADER,
    *,
    delimiter: str = ",",
    line_end: str = "\n",
    change: Mapping[tuple[int, str], str] | None = None,
) -> str:
    """Returns the rows as CSV; `change` sets cells by row (from 0) and column."""
    table = [list(row) for row in rows]
    for (row, column), cell in (change or {}).items():
        table[row][header.index(column)] = cell
    lines = [delimiter.join(_quoted(cell, delimiter) for cell in row) for row in [header, *table]]
    return line_end.join(lines) + line_end


def with_column(rows: Rows, column: int, write_cell: Callable[[str], str]) -> Rows:
    """Returns the rows with one column rewritten."""
    return [[*row[:column], write_cell(row[column]), *row[column + 1 :]] for row in rows]


def _quoted(cell: str, delimiter: str) -> str:
    if any(sign in cell for sign in (delimiter, '"', "\n")):
        return '"' + cell.replace('"', '""') + '"'
    return cell
