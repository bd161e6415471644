"""Read a finished model from a file or folder, whatever its format."""

from pathlib import Path

from trainer.importing.boosters import read_lightgbm, read_xgboost
from trainer.importing.estimators import read_pickle, read_skops
from trainer.importing.finished import MAX_MODEL_BYTES, FinishedModel, ModelFileError
from trainer.importing.mlflow_folder import add_signature, find_model_file
from trainer.importing.onnx_file import read_onnx

PICKLES = (".joblib", ".pkl", ".pickle", ".cloudpickle")
SUPPORTED = "*.joblib, *.pkl, *.skops, *.onnx, *.txt (LightGBM), *.json or *.ubj (XGBoost)"


def read_model(path: Path, *, trust_pickle: bool) -> FinishedModel:
    """Read a finished model.

    Args:
        path: a model file, or an MLflow model folder.
        trust_pickle: whether code in a pickle may be executed.

    Raises:
        ModelFileError: it cannot be read, or is not a model that can be served.
    """
    if not path.is_dir():
        return _read_file(path, path.name, path.suffix.lower(), trust_pickle=trust_pickle)
    file, flavour, description = find_model_file(path)
    name = f"{path.name}/{file.name}"
    suffix = file.suffix.lower()
    if flavour == "lightgbm" and suffix in (".lgb", ""):
        suffix = ".txt"
    elif flavour == "xgboost" and suffix in (".xgb", ".model", ""):
        suffix = ".json" if _starts_with(file, b"{") else ".ubj"
    finished = _read_file(file, name, suffix, trust_pickle=trust_pickle)
    return add_signature(finished, path.name, description)


def _read_file(path: Path, name: str, suffix: str, *, trust_pickle: bool) -> FinishedModel:
    content = _read_content(path, name)
    if suffix in PICKLES:
        return read_pickle(content, name, trust_pickle=trust_pickle)
    if suffix == ".skops":
        return read_skops(content, name)
    if suffix == ".onnx":
        return read_onnx(content, name)
    if suffix == ".txt":
        return read_lightgbm(content, name)
    if suffix in (".json", ".ubj"):
        return read_xgboost(content, name, extension=suffix[1:])
    raise ModelFileError(
        f"{name}: unknown file type; supported are {SUPPORTED}, and MLflow model folders."
    )


def _read_content(path: Path, name: str) -> bytes:
    try:
        size = path.stat().st_size
        if size > MAX_MODEL_BYTES:
            raise ModelFileError(f"{name}: is {size:,} bytes; the maximum is {MAX_MODEL_BYTES:,}.")
        content = path.read_bytes() if path.is_file() else b""
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise ModelFileError(f"{name}: cannot be read: {why}.") from error
    if not content:
        raise ModelFileError(f"{name}: is empty.")
    return content


def _starts_with(path: Path, prefix: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(len(prefix)) == prefix
