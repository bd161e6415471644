"""Tensors of the Open Inference Protocol v2: from JSON or raw bytes to arrays, and back.

A model with only numeric columns has one input [-1, columns]; any other has one input [-1, 1] per
column, named like it. What is declared is compared before anything is allocated for it.
"""

import struct
from collections.abc import Sequence
from itertools import chain, islice
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from services.common.errors import MAX_FIELD_ERRORS, BodyInvalid
from services.common.model_store import Column, Signature
from services.inference.models.inputs import Arrays, Inputs, number_array, text_array, types_in

FEATURES = "features"
"""Name of the one input of a model with only numeric columns."""

_ACCEPTED = {
    "number": ("FP32", "FP64", "INT64"),
    "boolean": ("BOOL",),
    "text": ("BYTES",),
}
_ACCEPTED_IN_ONE = ("FP32", "FP64")
_DECLARED = {"number": "FP32", "boolean": "BOOL", "text": "BYTES"}

# What the elements of a JSON tensor may be; null is a missing value.
_ELEMENTS: dict[str, set[type]] = {
    "FP32": {int, float, type(None)},
    "FP64": {int, float, type(None)},
    "INT64": {int, type(None)},
    "BOOL": {bool, type(None)},
    "BYTES": {str, type(None)},
}
_NUMPY = {"FP32": "<f4", "FP64": "<f8", "INT64": "<i8", "BOOL": "u1"}
_INT64_MAX = 2**63 - 1


class Given(NamedTuple):
    """An input as it was sent: its values in JSON, or how many bytes of the tail are its."""

    name: str
    datatype: str
    shape: list[int]
    data: list[Any] | None
    size: int | None


class _Misfit(Exception):
    """Why an input does not fit, as a sentence; `column` counts from 0 within the tensor."""

    def __init__(self, message: str, *, column: int | None = None) -> None:
        super().__init__(message)
        self.column = column


def describe_inputs(signature: Signature) -> list[dict[str, Any]]:
    """The inputs of a model, as its metadata says them."""
    columns = signature.columns
    if _is_one(signature):
        return [{"name": FEATURES, "datatype": "FP32", "shape": [-1, len(columns)]}]
    return [{"name": c.name, "datatype": _DECLARED[c.kind], "shape": [-1, 1]} for c in columns]


def describe_outputs(signature: Signature) -> list[dict[str, Any]]:
    """The outputs of a model, as its metadata says them."""
    datatype = datatype_of_predictions(signature)
    predictions = {"name": "predict", "datatype": datatype, "shape": [-1]}
    if signature.classes is None:
        return [predictions]
    shape = [-1, len(signature.classes)]
    return [predictions, {"name": "predict_proba", "datatype": "FP64", "shape": shape}]


def datatype_of_predictions(signature: Signature) -> str:
    """What fits all classes; FP64 for regression."""
    kinds = {type(label) for label in signature.classes or []}
    if not kinds:
        return "FP64"
    if kinds == {bool}:
        return "BOOL"
    return "INT64" if kinds == {int} else "BYTES"


def decode(given: list[Given], tail: bytes, inputs: Inputs, *, max_rows: int) -> tuple[Arrays, int]:
    """The arrays for a request's inputs, and how many rows they have.

    Args:
        tail: the bytes after the JSON, in the order of the inputs that have theirs there.

    Raises:
        BodyInvalid: an input is missing, unexpected or does not fit; all are named, at most 50.
    """
    by_name = _by_name(given, inputs)
    parts = _cut(tail, given)
    rows = _count_rows(given, max_rows)
    if inputs.numbers_only:
        columns = inputs.columns
        matrix = _read_input(by_name[FEATURES], parts, rows, inputs, columns, _ACCEPTED_IN_ONE)
        return {"features": matrix}, rows
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
    """A tensor's raw bytes: little-endian numbers, or strings each after its length."""
    if datatype != "BYTES":
        return np.array(values, dtype=_NUMPY[datatype]).tobytes()
    texts = [str(value).encode() for value in values]
    return b"".join(chain.from_iterable((struct.pack("<I", len(text)), text) for text in texts))


def _is_one(signature: Signature) -> bool:
    return all(column.kind == "number" for column in signature.columns)


def _by_name(given: list[Given], inputs: Inputs) -> dict[str, Given]:
    wanted = [FEATURES] if inputs.numbers_only else [column.name for column in inputs.columns]
    by_name = {tensor.name: tensor for tensor in given}
    known = set(wanted)
    missing = ((name, "The input is missing.") for name in wanted if name not in by_name)
    unexpected = ((name[:100], "No such input.") for name in by_name if name not in known)
    errors = [
        {"loc": ["inputs", name], "msg": message}
        for name, message in islice(chain(missing, unexpected), MAX_FIELD_ERRORS)
    ]
    if len(by_name) != len(given):
        errors.append({"loc": ["inputs"], "msg": "An input is given twice."})
    if errors:
        raise BodyInvalid(errors)
    return by_name


def _cut(tail: bytes, given: list[Given]) -> dict[str, memoryview]:
    """Each input's share of the tail, by name."""
    parts: dict[str, memoryview] = {}
    view, at = memoryview(tail), 0
    for tensor in given:
        if tensor.size is not None:
            parts[tensor.name] = view[at : at + tensor.size]
            at += tensor.size
    if at != len(tail):
        message = f"The inputs have {at} bytes after the JSON, the body has {len(tail)}."
        raise BodyInvalid([{"loc": ["body"], "msg": message}])
    return parts


def _count_rows(given: list[Given], max_rows: int) -> int:
    counts = {tensor.shape[0] if tensor.shape else 0 for tensor in given}
    if len(counts) != 1:
        raise BodyInvalid([{"loc": ["inputs"], "msg": "All inputs need the same number of rows."}])
    [rows] = counts
    if not 1 <= rows <= max_rows:
        message = f"1 to {max_rows} rows fit in one request."
        raise BodyInvalid([{"loc": ["inputs"], "msg": message}])
    return rows


def _read_input(
    tensor: Given,
    parts: dict[str, memoryview],
    rows: int,
    inputs: Inputs,
    columns: list[Column],
    accepted: tuple[str, ...],
) -> npt.NDArray[Any]:
    """One input as the array [rows, columns] that it stands for.

    Raises:
        BodyInvalid: it does not fit; the error names the input, and the column within it.
    """
    width = len(columns)
    try:
        if tensor.datatype not in accepted:
            raise _Misfit(f"The datatype {' or '.join(accepted)} is needed.")
        if tensor.shape != [rows, width]:
            raise _Misfit(f"The shape [-1, {width}] is needed.")
        if tensor.data is None:
            values = _read_bytes(parts[tensor.name], tensor.datatype, rows * width)
        else:
            values = _flatten(tensor.data, rows, width)
            _check_elements(values, tensor.datatype, width)
        if tensor.datatype == "BYTES":
            return text_array(values, inputs.value_rules)
        numbers = _to_float32(values, rows, width)
        return numbers if columns[0].kind == "boolean" else inputs.blank_missing(numbers)
    except _Misfit as misfit:
        where: list[Any] = ["inputs", tensor.name]
        if misfit.column is not None and columns[misfit.column].name != tensor.name:
            where.append(columns[misfit.column].name)
        raise BodyInvalid([{"loc": where, "msg": str(misfit)}]) from misfit


def _flatten(data: list[Any], rows: int, width: int) -> list[Any]:
    """The elements in row-major order; both a flat list and a list of rows are of the protocol."""
    if len(data) == rows and all(type(row) is list and len(row) == width for row in data):
        return list(chain.from_iterable(data))
    if len(data) != rows * width or list in types_in(data):
        raise _Misfit(f"The shape says {rows} × {width} values, the data has others.")
    return data


def _check_elements(values: list[Any], datatype: str, width: int) -> None:
    allowed = _ELEMENTS[datatype]
    if not types_in(values) <= allowed:
        at = next(i for i, value in enumerate(values) if type(value) not in allowed)
        raise _Misfit(f"An element is not {datatype} or null.", column=at % width)
    if datatype == "INT64":
        for value in values:
            if value is not None and not -_INT64_MAX - 1 <= value <= _INT64_MAX:
                raise _Misfit("A number is beyond INT64.")


def _read_bytes(part: memoryview, datatype: str, count: int) -> Sequence[Any]:
    """The elements of a binary tensor."""
    if datatype == "BYTES":
        return _read_texts(part, count)
    dtype = np.dtype(_NUMPY[datatype])
    if len(part) != count * dtype.itemsize:
        raise _Misfit(f"{count * dtype.itemsize} bytes are needed, not {len(part)}.")
    values: npt.NDArray[Any] = np.frombuffer(part, dtype=dtype)
    if datatype == "BOOL" and (values > 1).any():
        raise _Misfit("A boolean is the byte 0 or 1.")
    return values  # type: ignore[return-value]  # as good as a sequence, to what comes next


def _read_texts(part: memoryview, count: int) -> list[str]:
    texts: list[str] = []
    at = 0
    while at + 4 <= len(part) and len(texts) < count:
        [length] = struct.unpack_from("<I", part, at)
        at += 4
        try:
            texts.append(str(part[at : at + length], "utf-8"))
        except UnicodeDecodeError as error:
            raise _Misfit("A string is not UTF-8.") from error
        at += length
    if at != len(part) or len(texts) != count:
        raise _Misfit(f"{count} strings are needed, each after its length in 4 bytes.")
    return texts


def _to_float32(values: Sequence[Any], rows: int, width: int) -> npt.NDArray[np.float32]:
    """Numbers as the model takes them; missing is NaN, and comes of null alone."""
    is_json = isinstance(values, list)
    with np.errstate(over="ignore"):
        matrix = number_array(values).reshape(rows, width)
    unfit = np.isinf(matrix) if is_json else ~np.isfinite(matrix)
    if unfit.any():
        column = int(unfit.any(axis=0).argmax())
        raise _Misfit("A number is not finite, or beyond the range of float32.", column=column)
    return matrix
