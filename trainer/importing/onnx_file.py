"""Read ONNX models of other tools, and give them the inputs and outputs that are served."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pandas as pd
from onnx import TensorProto, compose, helper
from sklearn.base import BaseEstimator

from registry.features import MATRIX, column_input, is_one_matrix
from registry.records import Label, Signature
from trainer.errors import ExportError
from trainer.importing.finished import FinishedModel, ModelFileError, failures_of
from trainer.importing.onnx_outputs import Outputs, finish_graph
from trainer.modelling.graphs import add_constant, new_inputs, opset_of, prepend, split_columns
from trainer.types import Kind, Task
from trainer.wording import listed

DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft")
"""The operators that ONNX Runtime contains."""
PREFIX = "original_"
NUMBERS: dict[int, Any] = {
    TensorProto.FLOAT: np.float32,
    TensorProto.DOUBLE: np.float64,
    TensorProto.INT64: np.int64,
    TensorProto.INT32: np.int32,
}
KINDS: dict[int, Kind] = {TensorProto.STRING: "text", TensorProto.BOOL: "boolean"}
MAX_NAMED = 3


@dataclass(frozen=True)
class _Input:
    """An input of the original graph; [N] has no `width`, and a width of 0 is not fixed."""

    name: str
    type: int
    width: int | None


def read_onnx(content: bytes, name: str) -> FinishedModel:
    """Read an ONNX model that takes numbers or text, a row per example.

    Raises:
        ModelFileError: it is no ONNX model, needs other files or operators, or has other inputs or
            outputs.
    """
    with failures_of(name, "is not an ONNX model"):
        model = onnx.ModelProto.FromString(content)
        if not model.graph.node or not model.opset_import:
            raise ModelFileError(f"{name}: is not an ONNX model, or it is truncated.")
    with failures_of(name, "the ONNX model cannot be read"):
        _check_complete(model, name)
        inputs = _read_inputs(model, name)
        task, found, classes = _read_outputs(model, name)
    with failures_of(name, "ONNX Runtime cannot load it"):
        _session(content)
    return _describe(content, inputs, task, found, classes)


def _describe(
    content: bytes,
    inputs: list[_Input],
    task: Task | None,
    found: Outputs,
    classes: list[Label] | None,
) -> FinishedModel:
    is_matrix = len(inputs) == 1 and inputs[0].width is not None
    named = None if is_matrix else [each.name for each in inputs]
    return FinishedModel(
        format="onnx",
        content=content,
        extension="onnx",
        task=task,
        columns=named,
        width=(inputs[0].width or None) if is_matrix else len(inputs),
        kinds={each.name: KINDS.get(each.type, "number") for each in inputs} if named else {},
        build=lambda signature: OnnxEstimator(content, signature, inputs, found),
        convert=lambda pipeline, signature: _convert(content, signature, inputs, found),
        classes=classes,
        renames=classes is not None and classes == list(range(len(classes))),
    )


class OnnxEstimator(BaseEstimator):  # type: ignore[misc]  # scikit-learn is untyped
    """The original graph as an estimator, to prove that the served one predicts the same."""

    def __init__(
        self, content: bytes, signature: Signature, inputs: list[_Input], found: Outputs
    ) -> None:
        model = onnx.ModelProto.FromString(content)
        name = found.scores or found.chance or found.value or ""
        del model.graph.output[:]
        model.graph.output.append(onnx.ValueInfoProto(name=name))
        self._session = _session(model.SerializeToString())
        self._inputs = inputs
        if signature.classes is not None:
            is_text = isinstance(signature.classes[0], str)
            self.classes_ = np.array(signature.classes, dtype=object if is_text else None)
            self.predict_proba = self._predict_proba

    def fit(self, table: Any, labels: Any = None) -> Any:
        """Refuse: the model is finished."""
        raise TypeError("a finished model cannot be fitted")

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def predict(self, table: Any) -> Any:
        """Return a regressor's values."""
        return self._compute(table).ravel()

    def _predict_proba(self, table: Any) -> Any:
        outputs = self._compute(table).reshape(len(table), -1)
        return outputs if outputs.shape[1] > 1 else np.column_stack([1 - outputs, outputs])

    def _compute(self, table: Any) -> Any:
        feeds: dict[str, Any] = {}
        for position, each in enumerate(self._inputs):
            values = (
                table.to_numpy()
                if len(self._inputs) == 1 and each.width is not None
                else table.iloc[:, position].to_numpy()
            )
            if each.type == TensorProto.STRING:
                values = np.array(
                    ["" if pd.isna(text) else text for text in values.ravel()], dtype=object
                )
            else:
                values = values.astype(NUMBERS.get(each.type, np.bool_))
            shape = (len(table),) if each.width is None else (len(table), each.width or -1)
            feeds[each.name] = values.reshape(shape)
        return np.asarray(self._session.run(None, feeds)[0])


def _session(content: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def _check_complete(model: onnx.ModelProto, name: str) -> None:
    """Check that the file alone, with ONNX Runtime's own operators, is the model."""
    ours = {each.domain for each in model.functions}
    custom = set()
    for message in _messages(model):
        if isinstance(message, onnx.TensorProto) and (
            message.data_location == TensorProto.EXTERNAL or message.external_data
        ):
            raise ModelFileError(
                f"{name}: keeps its weights in another file; save it as one file "
                "(save_as_external_data=False)."
            )
        if isinstance(message, onnx.NodeProto) and message.domain not in {*DOMAINS, *ours}:
            custom.add(f"{message.domain}.{message.op_type}")
    if custom:
        raise ModelFileError(
            f"{name}: uses custom operators, which inference does not have: "
            f"{listed(sorted(custom), most=MAX_NAMED)}."
        )


def _messages(model: onnx.ModelProto) -> Iterator[Any]:
    """Yield all nodes and tensors, including those of subgraphs and functions."""
    graphs = [model.graph]
    nodes = [node for function in model.functions for node in function.node]
    while graphs or nodes:
        if graphs:
            graph = graphs.pop()
            yield from graph.initializer
            nodes += graph.node
            continue
        node = nodes.pop()
        yield node
        for attribute in node.attribute:
            yield from [attribute.t] if attribute.HasField("t") else []
            yield from attribute.tensors
            graphs += [attribute.g] if attribute.HasField("g") else []
            graphs += attribute.graphs


def _read_inputs(model: onnx.ModelProto, name: str) -> list[_Input]:
    constants = {each.name for each in model.graph.initializer}
    inputs = [each for each in model.graph.input if each.name not in constants]
    if not inputs:
        raise ModelFileError(f"{name}: has no usable input: it takes none.")
    found = []
    for each in inputs:
        kind = each.type.tensor_type.elem_type
        if not each.type.HasField("tensor_type") or not (kind in NUMBERS or kind in KINDS):
            raise ModelFileError(
                f"{name}: has no usable input: {each.name!r} must be a tensor of numbers or text."
            )
        shape = each.type.tensor_type.shape.dim
        if len(shape) not in (1, 2):
            raise ModelFileError(
                f"{name}: has no usable input: {each.name!r} must have the shape [rows, columns], "
                f"not {len(shape)} dimensions."
            )
        if shape[0].dim_value:
            raise ModelFileError(
                f"{name}: has no usable input: {each.name!r} takes exactly "
                f"{shape[0].dim_value} rows; export it with any number of rows."
            )
        found.append(_Input(each.name, kind, None if len(shape) == 1 else shape[1].dim_value))
    wide = [each for each in found if each.width not in (None, 1)]
    if wide and len(found) > 1:
        raise ModelFileError(
            f"{name}: has no usable input: {wide[0].name!r} must have one column, because there "
            "are other inputs."
        )
    if wide and wide[0].type in KINDS:
        raise ModelFileError(
            f"{name}: has no usable input: {wide[0].name!r} must be numbers, or one column."
        )
    if len(found) == 1 and found[0].type in KINDS:
        found = [replace(found[0], width=found[0].width)]
    return found


def _read_outputs(
    model: onnx.ModelProto, name: str
) -> tuple[Task | None, Outputs, list[Label] | None]:
    """Return the task if it is clear, the tensors with the predictions, and the classes."""
    made = {output: node for node in model.graph.node for output in node.output}
    labels, numbers, maps = [], [], []
    for each in model.graph.output:
        node = made.get(each.name)
        if node is not None and node.op_type == "ZipMap":
            maps.append(node)
        elif each.type.tensor_type.elem_type in (TensorProto.INT64, TensorProto.STRING):
            labels.append(each)
        elif each.type.tensor_type.elem_type in (TensorProto.FLOAT, TensorProto.DOUBLE):
            numbers.append(each)
    if maps:
        return "classification", Outputs(scores=maps[0].input[0]), _list_classes(maps)
    if labels and not numbers:
        raise ModelFileError(
            f"{name}: has no probabilities among its outputs; the gate needs them."
        )
    if not numbers:
        raise ModelFileError(f"{name}: has no output of numbers.")
    if labels:
        return "classification", Outputs(scores=numbers[0].name), _list_classes(model.graph.node)
    if len(numbers) > 1:
        named = listed([repr(each.name) for each in numbers], most=MAX_NAMED)
        raise ModelFileError(f"{name}: has several outputs of numbers: {named}.")
    shape = [each.dim_value for each in numbers[0].type.tensor_type.shape.dim]
    width = shape[1] if len(shape) == 2 else 0 if not shape else 1
    if len(shape) > 2:
        raise ModelFileError(f"{name}: its output must have the shape [rows, classes] or [rows].")
    if width > 1:
        return "classification", Outputs(scores=numbers[0].name), list(range(width))
    return None, Outputs(value=numbers[0].name), None


def _list_classes(nodes: Any) -> list[Label] | None:
    """Return the labels that a classifier's node or a ZipMap contains."""
    for node in nodes:
        for attribute in node.attribute:
            if attribute.name.startswith("classlabels_"):
                texts = [each.decode() for each in attribute.strings]
                return list(texts or map(int, attribute.ints)) or None
    return None


def _convert(content: bytes, signature: Signature, inputs: list[_Input], found: Outputs) -> bytes:
    """Return the graph with our inputs and outputs around it.

    Raises:
        ExportError: the columns are of kinds that it does not take.
    """
    model = compose.add_prefix(onnx.ModelProto.FromString(content), PREFIX)
    names = {field: None if name is None else PREFIX + name for field, name in vars(found).items()}
    dropped = [node for node in model.graph.node if node.op_type == "ZipMap"]
    for node in dropped:
        model.graph.node.remove(node)
    constants = {each.name for each in model.graph.initializer}
    kept = [each for each in model.graph.input if each.name in constants]
    del model.graph.input[:]
    model.graph.input.extend([*new_inputs(signature), *kept])
    one_matrix = is_one_matrix(signature.columns)
    if len(inputs) == 1 and inputs[0].width is not None and (one_matrix or inputs[0].width > 1):
        if not one_matrix:
            raise ExportError("It takes only numbers, but a column is text.")
        prepend(model, _cast(MATRIX, inputs[0]))
    else:
        sources = [column_input(i) for i in range(len(inputs))]
        nodes = split_columns(model, MATRIX, sources) if one_matrix else []
        flat = add_constant(model, "tollgate_all", np.array([-1], dtype=np.int64))
        for source, each in zip(sources, inputs, strict=True):
            if each.width is None:
                nodes.append(helper.make_node("Reshape", [source, flat], [f"{source}_flat"]))
                source = f"{source}_flat"
            nodes += _cast(source, each)
        prepend(model, nodes)
    finish_graph(model, Outputs(**names), signature, opset=opset_of(model))
    return bytes(model.SerializeToString())


def _cast(source: str, target: _Input) -> list[onnx.NodeProto]:
    if target.type in (TensorProto.FLOAT, TensorProto.STRING):
        return [helper.make_node("Identity", [source], [PREFIX + target.name])]
    return [helper.make_node("Cast", [source], [PREFIX + target.name], to=target.type)]
