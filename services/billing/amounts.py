"""How the database stores amounts: each in two integer columns, since sums may exceed 64 bits.

An amount is `high × 2⁶³ + low`. The low column has the amount's own name, and all of the amount
while that fits; the high one is `<name>_high`. Either may be negative. See docs/adr/0014.
"""

from collections.abc import Callable, Sequence
from functools import cache
from operator import attrgetter
from typing import Any, NamedTuple

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Select,
    Subquery,
    Table,
    and_,
    case,
    func,
    literal_column,
    or_,
    select,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

_BASE = 2**63
_LARGEST = _BASE - 1


def split(amount: int) -> tuple[int, int]:
    """Return the high and the low part of an amount, as stored."""
    if -_BASE < amount < _BASE:
        return 0, amount
    high, low = divmod(abs(amount), _BASE)
    return (high, low) if amount > 0 else (-high, -low)


def join(high: int, low: int) -> int:
    """Return the amount made of two parts."""
    return high * _BASE + low if high else low


def columns(name: str, amount: int) -> dict[str, int]:
    """Return the values of an amount's two columns, by column."""
    high, low = split(amount)
    return {f"{name}_high": high, name: low}


def _sql(number: int) -> ColumnElement[int]:
    """Return a number as SQL text: `insert_rows` sends no parameters."""
    return literal_column(str(number) if number >= 0 else f"({number})", BigInteger)


_HALF, _MINUS_HALF = _sql(_BASE // 2), _sql(-_BASE // 2)


def added(
    table: Table, name: str, new: Callable[[Any], ColumnElement[int]]
) -> list[tuple[str, ColumnElement[int]]]:
    """Return the assignments that add the amount of a row to the one stored.

    No intermediate result exceeds 64 bits. The high column comes first: MySQL assigns in order, and
    the high column depends on the old low one.

    Args:
        new: returns a column's value in the row that was to be inserted.
    """
    high, low = table.columns[f"{name}_high"], table.columns[name]
    more = new(low)
    over = low > _sql(_LARGEST) - case((more > _sql(0), more), else_=_sql(0))
    under = low < _sql(-_LARGEST) - case((more < _sql(0), more), else_=_sql(0))
    carry = case((over, _sql(1)), (under, _sql(-1)), else_=_sql(0))
    rest = case(
        (over, (low - _HALF) + (more - _HALF)),
        (under, (low - _MINUS_HALF) + (more - _MINUS_HALF)),  # `+` would lose its parentheses
        else_=low + more,
    )
    return [(f"{name}_high", high + new(high) + carry), (name, rest)]


def differ(one: tuple[Any, Any], other: tuple[Any, Any]) -> ColumnElement[bool]:
    """Return whether two amounts differ, each given as its high and low column."""
    return or_(one[0] != other[0], one[1] != other[1])


# -- exact sums of many rows ---------------------------------------------------------------------

_WEIGHTS = (0, 32, 63, 95)
"""The weights of an exact integer's parts, as powers of two; each column is summed in halves."""


class Exact(NamedTuple):
    """An integer of any size in SQL, as the parts of `_WEIGHTS`."""

    parts: tuple[Any, ...]

    def named(self, name: str) -> list[ColumnElement[Any]]:
        """Return the parts as columns of a select, which `labelled` finds again."""
        return [part.label(f"{name}_{number}") for number, part in enumerate(self.parts)]

    def minus(self) -> "Exact":
        """Return the integer negated."""
        return Exact(tuple(-part for part in self.parts))

    def total(self) -> "Exact":
        """Return the sum over the rows of a group."""
        return Exact(tuple(part if part is _ZERO else _Total(part) for part in self.parts))

    def value(self) -> int:
        """Return the integer made of a row's parts; MySQL's are decimals."""
        pairs = zip(self.parts, _WEIGHTS, strict=True)
        return sum(int(part) << weight for part, weight in pairs)


_ZERO = _sql(0)
NOTHING = Exact((_ZERO,) * len(_WEIGHTS))


def exact(low: Any, *, high: Any = None) -> Exact:
    """Return the columns of an amount, or one integer column, as parts that can be summed."""
    highest = NOTHING.parts[2:] if high is None else halves(high)
    return Exact((*halves(low), *highest))


def labelled(source: Any, name: str) -> Exact:
    """Return the parts that `named` gave to a subquery's columns or to a row."""
    return Exact(_parts_getter(name)(source))


@cache
def _parts_getter(name: str) -> Callable[[Any], tuple[Any, ...]]:
    """Return what reads the parts of a name, which thousands of rows have."""
    return attrgetter(*(f"{name}_{number}" for number in range(len(_WEIGHTS))))


def differing(sums: Subquery, *names: str) -> Select[Any]:
    """Select the rows of a subquery in which one of the named exact integers is not zero.

    Each part's carry is added to the next one. Then an integer is zero if all its parts are.
    """
    for number, weight in enumerate(_WEIGHTS[:-1]):
        columns: dict[str, Any] = {column.key: column for column in sums.c}
        for name in names:
            base = 2 ** (_WEIGHTS[number + 1] - weight)
            carry, columns[f"{name}_{number}"] = _divided(columns[f"{name}_{number}"], base)
            columns[f"{name}_{number + 1}"] += carry
        sums = select(*(column.label(key) for key, column in columns.items())).subquery()
    return select(sums).where(
        or_(*(part != 0 for name in names for part in labelled(sums.c, name).parts))
    )


def halves(column: Any) -> tuple[Any, Any]:
    """Return an integer column as two halves, whose sums over 2³¹ rows are exact.

    MySQL's sums are decimals of any size, so there the lower half is all of the column.
    """
    return _LowerHalf(column), _UpperHalf(column)


class _LowerHalf(FunctionElement[int]):
    type = BigInteger()
    inherit_cache = True


class _UpperHalf(FunctionElement[int]):
    type = BigInteger()
    inherit_cache = True


class _Total(FunctionElement[int]):
    """The sum of a part over a group, which takes no time where the part is always zero."""

    type = BigInteger()
    inherit_cache = True


@compiles(_LowerHalf)
@compiles(_UpperHalf)
def _half(half: _LowerHalf | _UpperHalf, compiler: SQLCompiler, **options: Any) -> str:
    (column,) = half.clauses
    upper, lower = _divided(column, 2 ** _WEIGHTS[1])
    part = upper if isinstance(half, _UpperHalf) else lower
    return f"({compiler.process(part, **options)})"


@compiles(_LowerHalf, "mysql")
def _whole(half: _LowerHalf, compiler: SQLCompiler, **options: Any) -> str:
    (column,) = half.clauses
    # As a decimal, the least 64-bit integer can be negated.
    return f"CAST({compiler.process(column, **options)} AS DECIMAL(19))"


@compiles(_UpperHalf, "mysql")
def _nothing(half: _UpperHalf, compiler: SQLCompiler, **options: Any) -> str:
    return "0"


@compiles(_Total)
def _total(total: _Total, compiler: SQLCompiler, **options: Any) -> str:
    return f"sum({compiler.process(total.clauses, **options)})"


@compiles(_Total, "mysql")
def _total_on_mysql(total: _Total, compiler: SQLCompiler, **options: Any) -> str:
    (part,) = total.clauses
    return "0" if isinstance(part, _UpperHalf) else _total(total, compiler, **options)


def totals(column: Any, *, on_mysql: bool) -> list[ColumnElement[Any]]:
    """Return the sum of an integer column over a group, for `is_total`.

    MySQL's sums are decimals of any size. Those of SQLite have 64 bits, so halves are summed.
    """
    return [func.sum(part) for part in ([column] if on_mysql else halves(column))]


def is_total(sums: Sequence[Any], column: Any) -> ColumnElement[bool]:
    """Return whether an integer column is the sum that `totals` returned."""
    if len(sums) == 1:
        is_equal: ColumnElement[bool] = sums[0] == column
        return is_equal
    lower, upper = halves(column)
    carry, rest = _divided(sums[0], 2 ** _WEIGHTS[1])
    return and_(rest == lower, sums[1] + carry == upper)


def _divided(number: Any, by: int) -> tuple[Any, Any]:
    """Return the quotient, rounded down, and the remainder of a whole number.

    The remainder is never negative: MariaDB distinguishes its decimal -0 from 0.
    """
    base = _sql(by)
    rest = (number % base + base) % base
    return (number - rest) // base, rest
