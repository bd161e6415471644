"""Convert tensors of the Open Inference Protocol v2 between JSON or raw bytes and arrays.

A model with only numeric columns has one input [-1, columns]. Any other has one input per column,
[-1, 1] or [-1], with the column's name; a model with only numeric columns accepts these too.
Declared sizes are checked before anything is allocated for them.
"""

import struct
from collections.abc import Iterable, Sequence
from itertools import chain, islice
from types import NoneType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from registry.features import MATRIX, Arrays
from registry.records import Column, Signature
from registry.runtimes.runtime import InferenceResponse
from registry.value_rules import ValueRules
from services.common.errors import MAX_FIELD_ERRORS, BodyInvalid
from services.inference.models.inputs import (
    TEXTS,
    WANTED_TIME,
    Inputs,
    number_array,
    text_array,
    time_array,
    types_in,
)

_FLOATS = ("FP16", "FP32", "FP64")
_INTEGERS = ("INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64")
DATATYPES = ("BOOL", *_INTEGERS, *_FLOATS, "BYTES")

NUMPY = {
    "BOOL": np.dtype("u1"),
    **{name: np.dtype(name.lower()).newbyteorder("<") for name in _INTEGERS},
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
}
"""How the elements of a raw tensor are encoded; `BYTES` is not in here."""

_BYTES = ("text", "sentence", "datetime")
_ACCEPTED = {
    "number": {*_INTEGERS, *_FLOATS},
    "boolean": {"BOOL"},
    **{kind: {"BYTES"} for kind in _BYTES},
}
_WANTED = {
    "number": "FP32, FP64 or another type of number",
    "boolean": "BOOL",
    **dict.fromkeys(_BYTES, "BYTES"),
}
_DECLARED = {"number": "FP32", "boolean": "BOOL", **dict.fromkeys(_BYTES, "BYTES")}

# The Python types allowed in a JSON tensor; null is a missing value.
_ELEMENTS = {
    "BOOL": frozenset({bool, NoneType}),
    **dict.fromkeys(_INTEGERS, frozenset({int, NoneType})),
    **dict.fromkeys(_FLOATS, frozenset({int, float, NoneType})),
    "BYTES": frozenset({str, NoneType}),
}
_NAN_IS_MISSING = {"FP32", "FP64"}


class RawTensor(NamedTuple):
    """An input as received: its values from JSON (`data`), or as raw bytes (`part`)."""

    name: str
    datatype: str
    shape: Sequence[int]
    data: list[Any] | None
    part: memoryview | None


class OutputTensor(NamedTuple):
    """An output, its values in row-major order."""

    name: str
    datatype: str
    shape: list[int]
    values: list[Any]


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


def output(name: str, response: InferenceResponse, signature: Signature) -> OutputTensor:
    """Return one output of a response: `predict`, or `predict_proba` if it was requested."""
    rows = len(response.predictions)
    if name == "predict_proba" and response.probabilities is not None:
        shape = [rows, len(response.probabilities[0])]
        return OutputTensor(name, "FP64", shape, list(chain.from_iterable(response.probabilities)))
    datatype = datatype_of_predictions(signature)
    return OutputTensor(name, datatype, [rows], response.predictions)


def decode(given: list[RawTensor], inputs: Inputs, *, max_rows: int) -> tuple[Arrays, int]:
    """Return the model's arrays for the inputs of a request, and their number of rows.

    Raises:
        BodyInvalid: inputs are missing, unknown or do not match; lists up to 50 of them.
    """
    by_name = {tensor.name: tensor for tensor in given}
    is_matrix = inputs.numbers_only and not (by_name.keys() - {MATRIX}) & inputs.names
    _check_names(by_name, given, [MATRIX] if is_matrix else [each.name for each in inputs.columns])
    rows = _count_rows(given, max_rows)
    if is_matrix:
        return {MATRIX: _read_input(by_name[MATRIX], rows, inputs, inputs.columns)}, rows
    arrays: list[npt.NDArray[Any]] = []
    errors: list[dict[str, Any]] = []
    for column in inputs.columns:
        try:
            arrays.append(_read_input(by_name[column.name], rows, inputs, [column]))
        except BodyInvalid as error:
            errors += error.extra["errors"]
            if len(errors) >= MAX_FIELD_ERRORS:
                break
    if errors:
        raise BodyInvalid(errors)
    return inputs.join(arrays), rows


def whole_input(content: bytes, signature: Signature) -> RawTensor:
    """Return a model's only input, whose raw elements are a whole body; text is one element.

    Raises:
        BodyInvalid: the model has several inputs.
    """
    described = describe_inputs(signature)
    if len(described) > 1:
        message = "A body of raw bytes without JSON is only for models with one input."
        raise BodyInvalid([{"loc": ["body"], "msg": message}])
    [only] = described
    datatype, width = only["datatype"], only["shape"][1]
    if datatype == "BYTES":
        return RawTensor(only["name"], datatype, [1, 1], None, memoryview(_with_length(content)))
    rows = len(content) // (width * NUMPY[datatype].itemsize)
    return RawTensor(only["name"], datatype, [rows, width], None, memoryview(content))


def to_bytes(values: list[Any], datatype: str) -> bytes:
    """Encode a tensor as little-endian numbers, or as strings each preceded by its length."""
    if datatype != "BYTES":
        return np.array(values, dtype=NUMPY[datatype]).tobytes()
    return join_texts(str(value).encode() for value in values)


def join_texts(texts: Iterable[bytes]) -> bytes:
    """Encode strings, each preceded by its length in 4 bytes."""
    return b"".join(map(_with_length, texts))


def _with_length(text: bytes) -> bytes:
    return struct.pack("<I", len(text)) + text


def _is_one(signature: Signature) -> bool:
    return all(column.kind == "number" for column in signature.columns)


def _check_names(by_name: dict[str, RawTensor], given: list[RawTensor], wanted: list[str]) -> None:
    """Check that each wanted input is given once, and no other."""
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
    tensor: RawTensor, rows: int, inputs: Inputs, columns: list[Column]
) -> npt.NDArray[Any]:
    """Return one input as an array [rows, columns].

    Raises:
        BodyInvalid: it does not match; the error names the input and the column within it.
    """
    kind, width = columns[0].kind, len(columns)
    try:
        if tensor.datatype not in _ACCEPTED[kind]:
            raise _TensorError(f"The datatype must be {_WANTED[kind]}.")
        if list(tensor.shape) != [rows, width] and (width > 1 or len(tensor.shape) > 1):
            raise _TensorError(f"The shape must be [-1, {width}].")
        if kind == "datetime":
            return _read_times(tensor, rows, inputs.value_rules)
        if kind in TEXTS:
            return text_array(_read_texts(tensor, rows), inputs.value_rules)
        numbers = _read_numbers(tensor, rows, width)
        return numbers if kind == "boolean" else inputs.blank_missing(numbers)
    except _TensorError as error:
        where: list[Any] = ["inputs", tensor.name]
        if error.column is not None and columns[error.column].name != tensor.name:
            where.append(columns[error.column].name)
        raise BodyInvalid([{"loc": where, "msg": str(error)}]) from error


def _read_numbers(tensor: RawTensor, rows: int, width: int) -> npt.NDArray[np.float32]:
    """Return numbers or booleans as float32 [rows, width], with NaN for missing values."""
    datatype = tensor.datatype
    with np.errstate(over="ignore"):
        if tensor.part is not None:
            numbers = _unpack(tensor.part, datatype, rows * width).astype(np.float32)
            may_be_nan = datatype in _NAN_IS_MISSING
        else:
            numbers = number_array(_elements(tensor, rows, width))
            may_be_nan = True  # JSON has no NaN, only null
    matrix = numbers.reshape(rows, width)
    invalid = np.isinf(matrix) if may_be_nan else ~np.isfinite(matrix)
    if invalid.any():
        column = int(invalid.any(axis=0).argmax())
        raise _TensorError(
            "Each number must be finite and within the range of float32.", column=column
        )
    return matrix


def _read_texts(tensor: RawTensor, rows: int) -> list[Any]:
    """Return the texts of one column; None is missing."""
    if tensor.part is None:
        return _elements(tensor, rows, 1)
    return _split_texts(tensor.part, rows)


def _read_times(tensor: RawTensor, rows: int, rules: ValueRules) -> npt.NDArray[np.float64]:
    """Return the times of one column in seconds since 1970; NaN is missing."""
    try:
        return time_array(_read_texts(tensor, rows), rules)
    except ValueError as error:
        raise _TensorError(f"Each element must be {WANTED_TIME}, or null.") from error


def _elements(tensor: RawTensor, rows: int, width: int) -> list[Any]:
    """Return the elements of a JSON tensor in row-major order, all of the declared datatype."""
    values = _flatten(tensor.data or [], rows, width)
    allowed, found = _ELEMENTS[tensor.datatype], types_in(values)
    if not found <= allowed:
        at = next(i for i, value in enumerate(values) if type(value) not in allowed)
        raise _TensorError(f"Each element must be {tensor.datatype} or null.", column=at % width)
    if tensor.datatype in _INTEGERS:
        given = [value for value in values if value is not None] if len(found) > 1 else values
        _check_range(given if int in found else [], tensor.datatype)
    return values


def _check_range(values: list[int], datatype: str) -> None:
    limits = np.iinfo(NUMPY[datatype])
    if values and not (limits.min <= min(values) and max(values) <= limits.max):
        raise _TensorError(f"Each number must be within the range of {datatype}.")


def _flatten(data: list[Any], rows: int, width: int) -> list[Any]:
    """Return the elements in row-major order; the protocol allows a flat list or a list of rows."""
    if len(data) == rows and all(type(row) is list and len(row) == width for row in data):
        return list(chain.from_iterable(data))
    if len(data) != rows * width or list in types_in(data):
        raise _TensorError(f"The data must have {rows} × {width} values, as declared by the shape.")
    return data


def _unpack(part: memoryview, datatype: str, count: int) -> npt.NDArray[Any]:
    """Return the numbers of a raw tensor, without a copy."""
    dtype = NUMPY[datatype]
    if len(part) != count * dtype.itemsize:
        raise _TensorError(f"The size in bytes must be {count * dtype.itemsize}, not {len(part)}.")
    values: npt.NDArray[Any] = np.frombuffer(part, dtype=dtype)
    if datatype == "BOOL" and (values > 1).any():
        raise _TensorError("Each boolean must be the byte 0 or 1.")
    return values


def _split_texts(part: memoryview, count: int) -> list[str]:
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
