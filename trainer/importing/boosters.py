"""Read boosters that LightGBM and XGBoost have saved, and convert them to ONNX."""

import json
import re
from typing import Any, Literal

import onnx

from registry.records import Label, Signature
from trainer.errors import ExportError
from trainer.importing import booster_models
from trainer.importing.finished import FinishedModel, ModelFileError, failures_of
from trainer.importing.onnx_outputs import Outputs, finish_graph
from trainer.modelling.graphs import new_inputs, opset_of

Library = Literal["lightgbm", "xgboost"]

UNNAMED = re.compile(r"Column_\d+|f\d+")
"""The names that the libraries give to columns without names."""


def read_lightgbm(content: bytes, name: str) -> FinishedModel:
    """Read a booster that `Booster.save_model` wrote.

    Raises:
        ModelFileError: it is no such file, or it was trained on pandas' categories.
    """
    if not content.startswith(b"tree\n") or b"end of trees" not in content:
        raise ModelFileError(f"{name}: is not a LightGBM model, or it is truncated.")
    with failures_of(name, "LightGBM cannot load it"):
        import lightgbm

        booster: Any = lightgbm.Booster(model_str=content.decode())
        if booster.pandas_categorical and any(booster.pandas_categorical):
            raise ModelFileError(
                f"{name}: was trained on pandas' categories, which requests do not contain; import "
                "a scikit-learn pipeline that encodes them."
            )
        objective = (re.search(rb"^objective=(\S+)", content, re.MULTILINE) or [b"", b""])[1]
        count = int((re.search(rb"^num_class=(\d+)", content, re.MULTILINE) or [b"", b"1"])[1])
        classes = 2 if objective == b"binary" else count if count > 1 else None
        return _describe("lightgbm", content, "txt", booster.feature_name(), classes)


def read_xgboost(content: bytes, name: str, *, extension: str) -> FinishedModel:
    """Read a booster that `Booster.save_model` wrote.

    Raises:
        ModelFileError: it is no such file, or it was trained on categories.
    """
    with failures_of(name, "XGBoost cannot load it"):
        import xgboost

        booster: Any = xgboost.Booster({"nthread": 1})
        booster.load_model(bytearray(content))
        learner = json.loads(booster.save_config())["learner"]
        if "c" in (booster.feature_types or []):
            raise ModelFileError(
                f"{name}: was trained on categories, which requests do not contain; import a "
                "scikit-learn pipeline that encodes them."
            )
        objective = learner["objective"]["name"]
        if objective in ("multi:softmax", "binary:hinge"):
            raise ModelFileError(
                f"{name}: its objective {objective} gives no probabilities, which the gate needs."
            )
        count = int(learner["learner_model_param"].get("num_class") or 0)
        classes = 2 if objective == "binary:logistic" else count if count > 1 else None
        names = booster.feature_names or [f"f{i}" for i in range(booster.num_features())]
        return _describe("xgboost", content, extension, names, classes)


def _describe(
    library: Library, content: bytes, extension: str, names: list[str], classes: int | None
) -> FinishedModel:
    labels: list[Label] | None = None if classes is None else list(range(classes))

    def build(signature: Signature) -> Any:
        if signature.classes is None:
            return booster_models.BoosterRegressor(library, content, len(names))
        numbers = [int(each) if isinstance(each, bool) else each for each in signature.classes]
        return booster_models.BoosterClassifier(library, content, len(names), numbers)

    return FinishedModel(
        format=library,
        content=content,
        extension=extension,
        task="regression" if classes is None else "classification",
        columns=None if all(map(UNNAMED.fullmatch, names)) else list(names),
        width=len(names),
        kinds=dict.fromkeys(names, "number"),
        build=build,
        convert=lambda pipeline, signature: _convert(library, content, signature),
        classes=labels,
        renames=True,
        pickles=True,
        modules=(booster_models.__name__,),
    )


def _convert(library: Library, content: bytes, signature: Signature) -> bytes:
    """Convert a booster, whose features are one matrix.

    Raises:
        ExportError: onnxmltools cannot convert it.
    """
    try:
        import onnxmltools
        from onnxmltools.convert.common.data_types import (
            FloatTensorType,
        )

        types = [("features", FloatTensorType([None, len(signature.columns)]))]
        if library == "lightgbm":
            import lightgbm

            model = onnxmltools.convert_lightgbm(
                lightgbm.Booster(model_str=content.decode()),
                name="tollgate",
                initial_types=types,
                zipmap=False,
            )
        else:
            import xgboost

            booster: Any = xgboost.Booster()
            booster.load_model(bytearray(content))
            booster.feature_names = None  # the converter accepts only names such as f0
            model = onnxmltools.convert_xgboost(booster, name="tollgate", initial_types=types)
    except Exception as error:  # converters raise errors of any type
        raise ExportError(f"onnxmltools cannot convert it: {type(error).__name__}.") from error
    graph = onnx.ModelProto.FromString(model.SerializeToString())
    del graph.graph.input[:]
    graph.graph.input.extend(new_inputs(signature))
    names = [each.name for each in graph.graph.output]
    found = Outputs(value=names[0]) if signature.classes is None else Outputs(scores=names[1])
    finish_graph(graph, found, signature, opset=opset_of(graph))
    return bytes(graph.SerializeToString())
