"""What the server and its models are, and whether they can answer, for REST and gRPC alike."""

from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel

from registry.records import Manifest
from services.common.errors import Unavailable
from services.common.http.app import Check
from services.inference.api.v2 import tensors
from services.inference.models.loader import Loader
from services.inference.models.table import ModelTable

Datatype = Literal[
    "BOOL",
    "INT8",
    "INT16",
    "INT32",
    "INT64",
    "UINT8",
    "UINT16",
    "UINT32",
    "UINT64",
    "FP16",
    "FP32",
    "FP64",
    "BYTES",
]
EXTENSIONS = ["binary_tensor_data", "model_repository(index)"]


class ServerMetadata(BaseModel):
    name: str
    version: str
    extensions: list[str]


class TensorMetadata(BaseModel):
    """A tensor; −1 in its shape is the number of rows."""

    name: str
    datatype: Datatype
    shape: list[int]


class ModelMetadata(BaseModel):
    """The inputs and outputs of a version. Any of `versions` that passed its gate can be called."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


def describe_server(version: str) -> ServerMetadata:
    """Return the name, the version and the supported protocol extensions of the server."""
    return ServerMetadata(name="tollgate", version=version, extensions=EXTENSIONS)


async def find_failing(checks: Mapping[str, Check]) -> str | None:
    """Return the name of the first readiness check that fails, or None."""
    for name, check in checks.items():
        if await check():
            return name
    return None


async def find_manifest(
    table: ModelTable, loader: Loader, model: str, version: str | None
) -> Manifest:
    """Return the manifest of a version that can answer; load the version if necessary.

    Args:
        version: None for the live version.

    Raises:
        ModelNotFound: there is no such model or version.
        Unavailable: the version cannot be loaded right now.
    """
    if version is None:
        return table.live(model).manifest
    return (await loader.get(model, version)).manifest


async def describe_model(
    table: ModelTable, loader: Loader, model: str, version: str | None = None
) -> ModelMetadata:
    """Return the inputs and outputs of a version, and the versions of its model.

    Raises:
        ModelNotFound, Unavailable: as `find_manifest`.
    """
    manifest = await find_manifest(table, loader, model, version)
    try:
        versions = await loader.versions(manifest.model)
    except Unavailable:  # the store is unreachable, so only this version is known
        versions = [manifest.version]
    signature = manifest.signature
    return ModelMetadata(
        name=manifest.model,
        versions=versions,
        platform="onnxruntime_onnx" if manifest.serving == "onnx" else "sklearn_joblib",
        inputs=[TensorMetadata(**each) for each in tensors.describe_inputs(signature)],
        outputs=[TensorMetadata(**each) for each in tensors.describe_outputs(signature)],
    )
