"""Requests to one version of a model, which only the Open Inference Protocol v2 can name."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

from tollgate_client.rows import Instance, invalid

_MATRIX = "features"
_REAL = "FP64"


def infer_document(
    instances: Sequence[Instance],
    inputs: Sequence[dict[str, Any]],
    *,
    probabilities: bool,
    first_row: int,
) -> dict[str, Any]:
    """Return the body of an inference request.

    Args:
        inputs: the version's inputs, from its metadata.
        first_row: the number of the first row in the whole call.

    Raises:
        InvalidInputError: a row has too few or too many values, or other columns than the first.
    """
    is_matrix = len(inputs) == 1 and inputs[0]["name"] == _MATRIX
    outputs = ["predict", *(["predict_proba"] if probabilities else [])]
    if is_matrix and not isinstance(instances[0], dict):
        width = int(inputs[0]["shape"][1])
        rows = _lists(instances, list(range(width)), first_row)
        shape = [len(rows), width]
        tensors = [_tensor(_MATRIX, _REAL, shape, list(chain.from_iterable(rows)))]
    else:
        first = instances[0]
        by_name = is_matrix and isinstance(first, dict)
        names = list(first) if by_name else [str(each["name"]) for each in inputs]
        types = {str(each["name"]): str(each["datatype"]) for each in inputs}
        rows = _lists(instances, names, first_row)
        tensors = [
            _tensor(name, _datatype(types.get(name)), [len(rows)], list(column))
            for name, column in zip(names, zip(*rows))
        ]
    return {"inputs": tensors, "outputs": [{"name": name} for name in outputs]}


def read_outputs(document: dict[str, Any]) -> dict[str, Any]:
    """Return the answer of a version in the form of `:predict`.

    Raises:
        KeyError, TypeError, ValueError: it is not an answer of the protocol.
    """
    outputs = {each["name"]: each for each in document["outputs"]}
    labels = outputs["predict"]
    is_boolean = labels["datatype"] == "BOOL"
    found = {"predictions": [bool(x) for x in labels["data"]] if is_boolean else labels["data"]}
    if "predict_proba" in outputs:
        flat, width = outputs["predict_proba"]["data"], outputs["predict_proba"]["shape"][1]
        found["probabilities"] = [flat[at : at + width] for at in range(0, len(flat), width)]
    return found


def _datatype(declared: str | None) -> str:
    return _REAL if declared is None or declared.startswith("FP") else declared


def _tensor(name: str, datatype: str, shape: list[int], data: list[Any]) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape, "data": data}


def _lists(instances: Sequence[Instance], names: list[Any], first_row: int) -> list[list[Any]]:
    """Return the rows as lists in the order of `names`, each of them with just these columns."""
    rows, errors = [], []
    for number, row in enumerate(instances, start=first_row):
        if isinstance(row, dict):
            missing = [name for name in names if name not in row]
            unknown = [name for name in row if name not in names]
            errors += [_error(number, name, "Missing column.") for name in missing]
            errors += [_error(number, name, "Unknown column.") for name in unknown]
            rows.append([row.get(name) for name in names])
        else:
            if len(row) != len(names):
                errors.append(
                    {"loc": ["instances", number], "msg": f"Must have {len(names)} values."}
                )
            rows.append(row)
        if len(errors) >= 50:
            break
    if errors:
        raise invalid("The rows do not match the version's columns.", errors[:50])
    return rows


def _error(number: int, name: str, message: str) -> dict[str, Any]:
    return {"loc": ["instances", number, name], "msg": message}
