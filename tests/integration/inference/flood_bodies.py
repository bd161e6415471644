"""Requests that inference refuses, as large as they may be."""

from collections.abc import Callable

MIB = 1 << 20
BODY_BYTES = 8 * MIB
TOTAL_BYTES = 32 * BODY_BYTES
SHARE_BYTES = TOTAL_BYTES // 2
V1, V2, MIXED = "/v1/models/numbers:predict", "/v2/models/numbers/infer", "/v1/models/mixed:predict"

TENSOR = b'{"inputs":[{"name":"features","datatype":"FP64","shape":[1,3],"data":['


def _repeated(
    size: int, unit: bytes, start: bytes = b'{"instances":[', end: bytes = b"]}"
) -> bytes:
    count = (size - len(start) - len(end)) // len(unit)
    return start + (unit * count).removesuffix(b",") + end


def _members(form: bytes, count: int) -> bytes:
    return b",".join(form % number for number in range(count))


def _row(form: bytes, columns: int) -> bytes:
    return b'{"instances":[{%b}]}' % _members(form, columns)


REFUSED: dict[str, tuple[str, Callable[[int], bytes]]] = {
    "empty lists": (V1, lambda size: _repeated(size, b"[],")),
    "nested lists": (V1, lambda size: _repeated(size, b"[[]],")),
    "empty objects": (V1, lambda size: _repeated(size, b"{},")),
    "empty objects and a colon in text": (
        V1,
        lambda size: _repeated(size, b"{},", b'{"instances":[":",'),
    ),
    "objects of one member": (V1, lambda size: _repeated(size, b'{"":1},')),
    "numbers": (V1, lambda size: _repeated(size, b"1,")),
    "texts": (V1, lambda size: _repeated(size, b'"a",')),
    "escapes": (V1, lambda size: _repeated(size, b'"\\"",')),
    "unexpected columns": (V1, lambda size: _row(b'"%06d":1', size // 14)),
    "unexpected members": (V1, lambda size: b"{%b}" % _members(b'"%06d":1', size // 14)),
    "a few long columns": (V1, lambda size: _row(b'"%0300d":1', size // 335)),
    "one text": (V1, lambda size: _repeated(size, b":", b'{"instances":["', b'"]}')),
    "one number": (V1, lambda size: _repeated(size, b"9", b'{"instances":[', b"]}")),
    "one blank space": (V1, lambda size: _repeated(size, b" ", b'{"instances":[', b"1]}")),
    "backslashes": (V1, lambda size: _repeated(size, b"\\\\", b'{"instances":["', b'"]}')),
    "rows that are too many": (V1, lambda size: _repeated(size, b"[1,2,3],")),
    "empty inputs": (V2, lambda size: _repeated(size, b"{},", b'{"inputs":[')),
    "elements": (V2, lambda size: _repeated(size, b"1,", TENSOR, b"]}]}")),
    "nested parameters": (
        V2,
        lambda size: _repeated(size, b'{"a":1},', b'{"inputs":[],"parameters":{"x":[', b"]}}"),
    ),
}
"""The path and the body of some size, of each kind of request that is refused."""


def refused_request(kind: str, *, size: int = BODY_BYTES) -> tuple[str, bytes]:
    """Return the path and the body of a request that is refused, of about `size` bytes."""
    path, body = REFUSED[kind]
    return path, body(size)
