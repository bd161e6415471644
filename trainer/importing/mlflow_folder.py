"""Read MLflow model folders, without MLflow."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from trainer.importing.finished import FinishedModel, ModelFileError, failures_of
from trainer.types import Kind
from trainer.wording import listed

DESCRIPTION = "MLmodel"
FLAVOURS = ("sklearn", "onnx", "lightgbm", "xgboost")
MAX_DESCRIPTION_BYTES = 1024**2
KINDS: dict[str, Kind] = {
    "boolean": "boolean",
    "datetime": "datetime",
    "double": "number",
    "float": "number",
    "integer": "number",
    "long": "number",
    "string": "text",
}
MAX_NAMED = 8


def find_model_file(folder: Path) -> tuple[Path, str, dict[str, Any]]:
    """Return the model file of an MLflow folder, its flavour, and the description.

    Raises:
        ModelFileError: the folder is no MLflow model, or has no flavour that can be imported.
    """
    try:
        with (folder / DESCRIPTION).open("rb") as file:
            raw = file.read(MAX_DESCRIPTION_BYTES)
    except OSError as error:
        raise ModelFileError(
            f"{folder.name}: is a folder without {DESCRIPTION}, so it is not an MLflow model."
        ) from error
    with failures_of(folder.name, f"{DESCRIPTION} cannot be read"):
        import yaml

        description = yaml.safe_load(raw)
        flavours = description["flavors"]
        flavour = next((name for name in FLAVOURS if name in flavours), None)
        if flavour is None:
            raise ModelFileError(
                f"{folder.name}: has the flavours "
                f"{listed(sorted(map(str, flavours)), most=MAX_NAMED)}; Tollgate imports "
                f"{', '.join(FLAVOURS)}."
            )
        settings = flavours[flavour]
        name = settings["pickled_model"] if flavour == "sklearn" else settings["data"]
        path = (folder / str(name)).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise ModelFileError(f"{folder.name}: {DESCRIPTION} names a file outside the folder.")
    if not path.is_file():
        raise ModelFileError(f"{folder.name}: the model file {str(name)!r} is missing.")
    return path, flavour, description


def add_signature(finished: FinishedModel, name: str, description: Any) -> FinishedModel:
    """Return the model with the columns and kinds of the MLflow signature, if there is one.

    Raises:
        ModelFileError: the signature is malformed, or contradicts the model.
    """
    with failures_of(name, f"the signature in {DESCRIPTION} is malformed"):
        signature = description.get("signature") or {}
        inputs = json.loads(signature.get("inputs") or "[]")
        columns = [str(each["name"]) for each in inputs if "name" in each]
        kinds = {
            str(each["name"]): KINDS[each["type"]]
            for each in inputs
            if "name" in each and each.get("type") in KINDS
        }
    if not columns:
        return replace(finished, mlflow=True)
    if finished.columns is not None and set(finished.columns) != set(columns):
        raise ModelFileError(f"{name}: the signature names other columns than the model.")
    if finished.width not in (None, len(columns)):
        raise ModelFileError(
            f"{name}: the signature has {len(columns)} columns, but the model takes "
            f"{finished.width}."
        )
    return replace(
        finished,
        mlflow=True,
        columns=finished.columns or columns,
        kinds=finished.kinds | kinds,
    )
