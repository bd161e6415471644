"""Parse a large JSON text in pieces, so that other threads can run in between.

A parser in C holds the interpreter lock until it returns, in whichever thread it runs. For 8 MB
that is up to a second in which no other request is answered. So a large text is first scanned with
NumPy, which releases the lock, and is rejected if it has more values than any request may have.
Its values are then parsed in pieces of `PIECE_BYTES`, cut at the commas the scan found. Freeing
values takes about as long as parsing them, so they are also freed in these pieces.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import orjson

from services.common.errors import BodyInvalid

WINDOW_BYTES = 1 << 18
"""Bytes scanned at a time; a text is rejected after the window in which it exceeds a limit."""
PIECE_BYTES = 1 << 15
"""Bytes parsed at a time; at worst this takes a few milliseconds."""
MAX_VALUE_BYTES = 1 << 20
"""The largest text, number or blank space in a large text; none of them is parsed in pieces."""
MAX_DEPTH = 32
"""Requests of both protocols nest at most five deep, except for their free-form `parameters`."""

_SPACE = b" \t\n\r"
_QUOTE, _BACKSLASH, _COMMA, _COLON = b'"\\,:'
_CLOSER = {ord("["): ord("]"), ord("{"): ord("}")}

_IS_SPECIAL = np.zeros(256, dtype=np.bool_)
_IS_SPECIAL[list(b'[]{},:"\\')] = True
_STEP = np.zeros(256, dtype=np.int8)
_STEP[list(b"[{")] = 1
_STEP[list(b"]}")] = -1
_NOTHING = np.empty(0, np.int32), np.empty(0, np.uint8), np.empty(0, np.uint8)


class JsonLimits(NamedTuple):
    """The maximum numbers of commas, of objects and lists, and of members of one object."""

    commas: int
    containers: int
    members: int


class _Span(NamedTuple):
    """Bytes [start, end) of the text, and the structural characters [first, last) within them."""

    start: int
    end: int
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class JsonStructure:
    """The brackets, commas and colons outside strings, with their positions and depths.

    The brackets of an object or list, and the commas and colons between its values, all have the
    same depth. Depths start at 1.
    """

    content: bytes
    positions: npt.NDArray[np.int32]
    characters: npt.NDArray[np.uint8]
    depths: npt.NDArray[np.uint8]
    limits: JsonLimits | None = None
    _in_pieces: list[tuple[list[Any], list[int]]] = field(default_factory=list)
    """Lists that `load` read in pieces, each with the lengths of its pieces."""

    def count_members(self) -> int:
        """Return the total number of object members; each has one colon."""
        return int(np.count_nonzero(self.characters == _COLON))

    def load(self) -> Any:
        """Return the same value as `orjson.loads`, parsed in pieces.

        Raises:
            BodyInvalid: the text is not valid JSON, or an object has too many members.
        """
        try:
            return self._load(_Span(0, len(self.content), 0, len(self.positions)))
        except orjson.JSONDecodeError as error:
            raise not_json() from error

    def free(self) -> None:
        """Empty the lists that `load` read in pieces, inner ones first."""
        for values, lengths in reversed(self._in_pieces):
            for length in reversed(lengths):
                del values[-length:]

    def members(self) -> dict[str, bytes]:
        """Return the raw value of each member of the outermost object."""
        whole = _Span(0, len(self.content), 0, len(self.positions))
        return {
            name: self.content[span.start : span.end].strip(_SPACE)
            for name, span in map(self._split_member, self._cut(whole))
        }

    def _load(self, span: _Span) -> Any:
        if span.end - span.start <= PIECE_BYTES or span.first == span.last:
            return orjson.loads(self.content[span.start : span.end])
        items = self._cut(span)
        return (
            self._load_object(items)
            if self.characters[span.first] == ord("{")
            else self._load_list(items)
        )

    def _load_list(self, items: "_Items") -> list[Any]:
        loaded: list[Any] = []
        lengths: list[int] = []
        self._in_pieces.append((loaded, lengths))
        for piece, count in items.pieces():
            lengths.append(count)
            if count == 1:
                loaded.append(self._load(piece))
            else:
                values = orjson.loads(b"[%b]" % self.content[piece.start : piece.end])
                _require(len(values) == count)
                loaded += values
        return loaded

    def _load_object(self, items: "_Items") -> dict[str, Any]:
        if self.limits and len(items) > self.limits.members:
            raise _refusal("An object in the body has too many members.")
        loaded: dict[str, Any] = {}
        for piece, count in items.pieces():
            if count == 1:
                name, value = self._split_member(piece)
                loaded[name] = self._load(value)
            else:
                loaded.update(orjson.loads(b"{%b}" % self.content[piece.start : piece.end]))
        return loaded

    def _split_member(self, span: _Span) -> tuple[str, _Span]:
        """Return the name of a member and the span of its value."""
        _require(span.first < span.last and self.characters[span.first] == _COLON)
        colon = int(self.positions[span.first])
        name = orjson.loads(self.content[span.start : colon])
        _require(type(name) is str)
        return name, _Span(colon + 1, span.end, span.first + 1, span.last)

    def _cut(self, span: _Span) -> "_Items":
        """Return the items of the object or list that a span covers."""
        _require(span.last - span.first >= 2)
        first, last = span.first, span.last - 1
        opened, closed = int(self.positions[first]), int(self.positions[last])
        _require(_CLOSER.get(int(self.characters[first])) == self.characters[last])
        _require(not self.content[span.start : opened].strip(_SPACE))
        _require(not self.content[closed + 1 : span.end].strip(_SPACE))
        depths, characters = self.depths[first + 1 : last], self.characters[first + 1 : last]
        own = depths == self.depths[first]
        _require(bool((depths >= self.depths[first]).all()))
        _require(
            not (own & (_STEP[characters] != 0)).any()
        )  # it does not close before its last bracket
        commas = np.flatnonzero(own & (characters == _COMMA)) + first + 1
        is_empty = not commas.size and not self.content[opened + 1 : closed].strip(_SPACE)
        return _Items(self.positions, np.concatenate(([first], commas, [last])), is_empty)


@dataclass(frozen=True, slots=True)
class _Items:
    """The items between two brackets; the `edges` are the brackets and the commas."""

    positions: npt.NDArray[np.int32]
    edges: npt.NDArray[np.int64]
    is_empty: bool

    def __len__(self) -> int:
        return 0 if self.is_empty else len(self.edges) - 1

    def __iter__(self) -> Iterator[_Span]:
        for number in range(len(self)):
            yield self._span(number, number + 1)

    def pieces(self) -> Iterator[tuple[_Span, int]]:
        """Yield runs of items that fit in a piece, at least one each, and the length of the run."""
        ends = self.positions[self.edges]
        number, last = 0, len(self)
        while number < last:
            fitting = int(np.searchsorted(ends, ends[number] + PIECE_BYTES, side="right")) - 1
            following = min(max(fitting, number + 1), last)
            yield self._span(number, following), following - number
            number = following

    def _span(self, number: int, following: int) -> _Span:
        """Return the span between two edges, excluding both."""
        one, other = int(self.edges[number]), int(self.edges[following])
        return _Span(int(self.positions[one]) + 1, int(self.positions[other]), one + 1, other)


def scan(content: bytes, limits: JsonLimits | None = None) -> JsonStructure:
    """Find the structure of a text; its values may still be invalid.

    Raises:
        BodyInvalid: a string or bracket is not closed, or the text exceeds a limit.
    """
    text = np.frombuffer(content, dtype=np.uint8)
    found: list[tuple[npt.NDArray[Any], ...]] = [_NOTHING]
    is_escaped, in_string = False, 0
    depth = commas = containers = 0
    for start in range(0, len(text), WINDOW_BYTES):
        window = text[start : start + WINDOW_BYTES]
        at = np.flatnonzero(np.take(_IS_SPECIAL, window))
        at, is_escaped = _drop_escapes(window, at, is_escaped)
        if not at.size:
            continue
        characters = window[at]
        is_quote = characters == _QUOTE
        inside = (np.cumsum(is_quote, dtype=np.uint8) + in_string) & 1
        in_string = int(inside[-1])
        outside = (inside == 0) & ~is_quote
        at, characters = at[outside], characters[outside]
        steps = _STEP[characters]
        after = np.cumsum(steps, dtype=np.int32) + depth
        depths = after + (steps == -1)
        if at.size:
            depth = int(after[-1])
            _require(int(after.min()) >= 0)
            if int(depths.max()) > MAX_DEPTH:
                raise _refusal("The body is nested too deeply.")
        commas += int(np.count_nonzero(characters == _COMMA))
        containers += int(np.count_nonzero(steps == 1))
        if limits and (commas > limits.commas or containers > limits.containers):
            raise _refusal("The body has more values than this model accepts in one request.")
        found.append(((at + start).astype(np.int32), characters, depths.astype(np.uint8)))
    _require(not in_string and depth == 0)
    positions, marks, levels = (np.concatenate(parts) for parts in zip(*found, strict=True))
    if limits and np.diff(positions, prepend=-1, append=len(text)).max() > MAX_VALUE_BYTES:
        raise _refusal("A value in the body is too long.")
    return JsonStructure(content, positions, marks, levels, limits)


def not_json() -> BodyInvalid:
    """Return the error for a text that is not JSON."""
    return _refusal("The body is not valid JSON.")


def _drop_escapes(
    window: npt.NDArray[np.uint8], at: npt.NDArray[np.int64], is_escaped: bool
) -> tuple[npt.NDArray[np.int64], bool]:
    """Drop backslashes and what they escape; also return whether the next window begins escaped."""
    if is_escaped and at.size and at[0] == 0:
        at = at[1:]
    backslashes = at[window[at] == _BACKSLASH]
    if not backslashes.size:
        return at, False
    # In a run of backslashes every second one is escaped; after an odd run, so is the next byte.
    runs = np.flatnonzero(np.diff(backslashes, prepend=-2) != 1)
    lengths = np.diff(runs, append=backslashes.size)
    following = (backslashes[runs] + lengths)[lengths % 2 == 1]
    dropped = np.zeros(len(window) + 1, dtype=np.bool_)
    dropped[backslashes] = True
    dropped[following] = True
    return at[~dropped[at]], bool(dropped[len(window)])


def _require(condition: bool) -> None:
    if not condition:
        raise not_json()


def _refusal(message: str) -> BodyInvalid:
    return BodyInvalid([{"loc": ["body"], "msg": message}])
