"""Convert tensors of the Open Inference Protocol v2 between JSON or raw bytes and arrays.

A model with only numeric columns has one input [-1, columns]. Any other has one input [-1, 1] per
column, with the column's name. Declared sizes are checked before anything is allocated for them.
"""

import struct
from collections.abc import Sequence
from itertools import chain, islice
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from registry.features import MATRIX, Arrays
from registry.records import Column, Signature
from services.common.errors import MAX_FIELD_ERRORS, BodyInvalid
from services.inference.models.inputs import Inputs, number_array, text_array, types_in

"""Name of the single input of a model with only numeric columns."""

_ACCEPTED = {
    "number": ("FP32", "FP64", "INT64"),
    "boolean": ("BOOL",),
    "text": ("BYTES",),
}
_ACCEPTED_IN_ONE = ("FP32", "FP64")
_DECLARED = {"number": "FP32", "boolean": "BOOL", "text": "BYTES"}

# The Python types allowed in a JSON tensor; null is a missing value.
_ELEMENTS: dict[str, set[type]] = {
    "FP32": {int, float, type(None)},
    "FP64": {int, float, type(None)},
    "INT64": {int, type(None)},
    "BOOL": {bool, type(None)},
    "BYTES": {str, type(None)},
}
_NUMPY = {"FP32": "<f4", "FP64": "<f8", "INT64": "<i8", "BOOL": "u1"}
_INT64_MAX = 2**63 - 1


class RawTensor(NamedTuple):
    """An input as received: its values in JSON, or the size of its part of the binary tail."""

    name: str
    datatype: str
    shape: list[int]
    data: list[Any] | None
    size: int | None


class _TensorError(Exception):
    """An input does not match the signature; `column` counts from 0 within the tensor."""

    def __init__(self, message: str, *, column: int | None = None) -> None:
        super().__init__(message)
        self.column = column


def describe_inputs(signature: Signature) -> list[dict[str, Any]]:
    """Return the inputs of a model for its metadata."""
    columns = signature.columns
    if _is_one(signature):
        return [{"name": MATRIX, "datatype": "FP32", "shape": [-1, len(columns)]}]
    return [{"name": c.name, "datatype": _DECLARED[c.kind], "shape": [-1, 1]} for c in columns]


def describe_outputs(signature: Signature) -> list[dict[str, Any]]:
    """Return the outputs of a model for its metadata."""
    datatype = datatype_of_predictions(signature)
    predictions = {"name": "predict", "datatype": datatype, "shape": [-1]}
    if signature.classes is None:
        return [predictions]
    shape = [-1, len(signature.classes)]
    return [predictions, {"name": "predict_proba", "datatype": "FP64", "shape": shape}]


def datatype_of_predictions(signature: Signature) -> str:
    """Return the datatype that fits all classes, or FP64 for a regression."""
    kinds = {type(label) for label in signature.classes or []}
    if not kinds:
        return "FP64"
    if kinds == {bool}:
        return "BOOL"
    return "INT64" if kinds == {int} else "BYTES"


def decode(
    given: list[RawTensor], tail: bytes, inputs: Inputs, *, max_rows: int
) -> tuple[Arrays, int]:
    """Return the model's arrays for the inputs of a request, and their number of rows.

    Args:
        tail: the bytes after the JSON: the binary inputs, in their order.

    Raises:
        BodyInvalid: inputs are missing, unknown or do not match; lists up to 50 of them.
    """
    by_name = _by_name(given, inputs)
    parts = _cut(tail, given)
    rows = _count_rows(given, max_rows)
    if inputs.numbers_only:
        columns = inputs.columns
        matrix = _read_input(by_name[MATRIX], parts, rows, inputs, columns, _ACCEPTED_IN_ONE)
        return {MATRIX: matrix}, rows
    arrays: list[npt.NDArray[Any]] = []
    errors: list[dict[str, Any]] = []
    for column in inputs.columns:
        try:
            tensor = by_name[column.name]
            accepted = _ACCEPTED[column.kind]
            arrays.append(_read_input(tensor, parts, rows, inputs, [column], accepted))
        except BodyInvalid as error:
            errors += error.extra["errors"]
            if len(errors) >= MAX_FIELD_ERRORS:
                break
    if errors:
        raise BodyInvalid(errors)
    return inputs.join(arrays), rows


def to_bytes(values: list[Any], datatype: str) -> bytes:
    """Encode a tensor as little-endian numbers, or as strings each preceded by its length."""
    if datatype != "BYTES":
        return np.array(values, dtype=_NUMPY[datatype]).tobytes()
    texts = [str(value).encode() for value in values]
    return b"".join(chain.from_iterable((struct.pack("<I", len(text)), text) for text in texts))


def _is_one(signature: Signature) -> bool:
    return all(column.kind == "number" for column in signature.columns)


def _by_name(given: list[RawTensor], inputs: Inputs) -> dict[str, RawTensor]:
    wanted = [MATRIX] if inputs.numbers_only else [column.name for column in inputs.columns]
    by_name = {tensor.name: tensor for tensor in given}
    known = set(wanted)
    missing = ((name, "Missing input.") for name in wanted if name not in by_name)
    unexpected = ((name[:100], "Unknown input.") for name in by_name if name not in known)
    errors = [
        {"loc": ["inputs", name], "msg": message}
        for name, message in islice(chain(missing, unexpected), MAX_FIELD_ERRORS)
    ]
    if len(by_name) != len(given):
        errors.append({"loc": ["inputs"], "msg": "Duplicate input."})
    if errors:
        raise BodyInvalid(errors)
    return by_name


def _cut(tail: bytes, given: list[RawTensor]) -> dict[str, memoryview]:
    """Split the tail between the binary inputs."""
    parts: dict[str, memoryview] = {}
    view, at = memoryview(tail), 0
    for tensor in given:
        if tensor.size is not None:
            parts[tensor.name] = view[at : at + tensor.size]
            at += tensor.size
    if at != len(tail):
        message = f"The inputs declare {at} bytes after the JSON; the body has {len(tail)}."
        raise BodyInvalid([{"loc": ["body"], "msg": message}])
    return parts


def _count_rows(given: list[RawTensor], max_rows: int) -> int:
    counts = {tensor.shape[0] if tensor.shape else 0 for tensor in given}
    if len(counts) != 1:
        raise BodyInvalid(
            [{"loc": ["inputs"], "msg": "All inputs must have the same number of rows."}]
        )
    [rows] = counts
    if not 1 <= rows <= max_rows:
        message = f"Must have 1 to {max_rows} rows."
        raise BodyInvalid([{"loc": ["inputs"], "msg": message}])
    return rows


def _read_input(
    tensor: RawTensor,
    parts: dict[str, memoryview],
    rows: int,
    inputs: Inputs,
    columns: list[Column],
    accepted: tuple[str, ...],
) -> npt.NDArray[Any]:
    """Return one input as an array [rows, columns].

    Raises:
        BodyInvalid: it does not match; the error names the input and the column within it.
    """
    width = len(columns)
    try:
        if tensor.datatype not in accepted:
            raise _TensorError(f"The datatype must be {' or '.join(accepted)}.")
        if tensor.shape != [rows, width]:
            raise _TensorError(f"The shape must be [-1, {width}].")
        if tensor.data is None:
            values = _read_bytes(parts[tensor.name], tensor.datatype, rows * width)
        else:
            values = _flatten(tensor.data, rows, width)
            _check_elements(values, tensor.datatype, width)
        if tensor.datatype == "BYTES":
            return text_array(values, inputs.value_rules)
        numbers = _to_float32(values, rows, width)
        return numbers if columns[0].kind == "boolean" else inputs.blank_missing(numbers)
    except _TensorError as error:
        where: list[Any] = ["inputs", tensor.name]
        if error.column is not None and columns[error.column].name != tensor.name:
            where.append(columns[error.column].name)
        raise BodyInvalid([{"loc": where, "msg": str(error)}]) from error


def _flatten(data: list[Any], rows: int, width: int) -> list[Any]:
    """Return the elements in row-major order; the protocol allows a flat list or a list of rows."""
    if len(data) == rows and all(type(row) is list and len(row) == width for row in data):
        return list(chain.from_iterable(data))
    if len(data) != rows * width or list in types_in(data):
        raise _TensorError(f"The data must have {rows} × {width} values, as declared by the shape.")
    return data


def _check_elements(values: list[Any], datatype: str, width: int) -> None:
    allowed = _ELEMENTS[datatype]
    if not types_in(values) <= allowed:
        at = next(i for i, value in enumerate(values) if type(value) not in allowed)
        raise _TensorError(f"Each element must be {datatype} or null.", column=at % width)
    if datatype == "INT64":
        for value in values:
            if value is not None and not -_INT64_MAX - 1 <= value <= _INT64_MAX:
                raise _TensorError("Each number must be within the range of INT64.")


def _read_bytes(part: memoryview, datatype: str, count: int) -> Sequence[Any]:
    """Return the elements of a binary tensor."""
    if datatype == "BYTES":
        return _read_texts(part, count)
    dtype = np.dtype(_NUMPY[datatype])
    if len(part) != count * dtype.itemsize:
        raise _TensorError(f"The size in bytes must be {count * dtype.itemsize}, not {len(part)}.")
    values: npt.NDArray[Any] = np.frombuffer(part, dtype=dtype)
    if datatype == "BOOL" and (values > 1).any():
        raise _TensorError("Each boolean must be the byte 0 or 1.")
    return values  # type: ignore[return-value]  # an array does for what follows


def _read_texts(part: memoryview, count: int) -> list[str]:
    texts: list[str] = []
    at = 0
    while at + 4 <= len(part) and len(texts) < count:
        [length] = struct.unpack_from("<I", part, at)
        at += 4
        try:
            texts.append(str(part[at : at + length], "utf-8"))
        except UnicodeDecodeError as error:
            raise _TensorError("Each string must be UTF-8.") from error
        at += length
    if at != len(part) or len(texts) != count:
        raise _TensorError(
            f"The number of strings, each preceded by its length in 4 bytes, must be {count}."
        )
    return texts


def _to_float32(values: Sequence[Any], rows: int, width: int) -> npt.NDArray[np.float32]:
    """Convert numbers to float32; null becomes NaN, and NaN itself is rejected."""
    is_json = isinstance(values, list)
    with np.errstate(over="ignore"):
        matrix = number_array(values).reshape(rows, width)
    invalid = np.isinf(matrix) if is_json else ~np.isfinite(matrix)
    if invalid.any():
        column = int(invalid.any(axis=0).argmax())
        raise _TensorError(
            "Each number must be finite and within the range of float32.", column=column
        )
    return matrix
