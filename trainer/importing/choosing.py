"""Make a finished model one that can be served: as ONNX, or else as a pickle."""

import hashlib
from collections.abc import Callable
from importlib import metadata

from sklearn.pipeline import Pipeline

from registry.origins import ImportOrigin
from registry.records import Signature
from registry.runtimes.runtime import Runtime
from registry.runtimes.scikit_learn import PipelineRuntime
from trainer.errors import ExportError
from trainer.importing.finished import FinishedModel, ModelFileError
from trainer.modelling.candidates import Candidate, named_table
from trainer.modelling.pickling import dump_by_value, load_recording
from trainer.modelling.search import CandidateResult, ChosenModel
from trainer.modelling.serving import load_onnx
from trainer.types import Features

Prove = Callable[[Runtime, Pipeline], None]


def choose_imported(
    finished: FinishedModel, signature: Signature, features: Features, *, name: str, prove: Prove
) -> ChosenModel:
    """Convert a model to ONNX, or else pickle it, and prove that it predicts the same.

    Args:
        features: some encoded rows.
        name: the name of its file or folder.
        prove: raises ExportError unless a runtime predicts the same as the model.

    Raises:
        ModelFileError: it can be served neither way.
    """
    table = named_table(signature).fit(features)
    pipeline = Pipeline([("table", table), ("model", finished.build(signature))])
    origin = ImportOrigin(
        format=finished.format,
        name=name,
        sha256=hashlib.sha256(finished.content).hexdigest(),
        mlflow=finished.mlflow,
    )
    result = CandidateResult()
    onnx: bytes | None = None
    try:
        onnx = finished.convert(pipeline, signature)
        runtime: Runtime = load_onnx(onnx, signature, expands=False)
        prove(runtime, pipeline)
    except ExportError as error:
        if not finished.pickles:
            raise ModelFileError(f"{name}: cannot be served: {error}") from error
        onnx, result.dropped = None, str(error)
    pickled: bytes | None = None
    if onnx is None or finished.format in ("joblib", "skops"):
        pickled = dump_by_value(pipeline, *finished.modules)
    if onnx is None and pickled is not None:
        loaded, requires = load_recording(pickled)
        requires |= _library_of(finished)
        origin = origin.model_copy(update={"requires": requires})
        runtime = PipelineRuntime(loaded, signature, expands=False)
        prove(runtime, pipeline)
    return ChosenModel(
        Candidate("imported", {}),
        pipeline,
        onnx,
        runtime,
        pickled=pickled,
        origin=origin,
        # What executes code when it is opened is no artefact; `model.joblib` replaces it.
        artefacts={}
        if finished.format == "joblib"
        else {f"imported.{finished.extension}": finished.content},
        results={"imported": result},
    )


def _library_of(finished: FinishedModel) -> dict[str, str]:
    """Return the package, with its version, that a booster's pickle imports when it is used."""
    if finished.format not in ("lightgbm", "xgboost"):
        return {}
    name = metadata.packages_distributions()[finished.format][0]
    return {name: metadata.version(name)}
