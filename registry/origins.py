"""Where a version's model comes from, if it is not one of Tollgate's own candidates."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

ImportFormat = Literal["joblib", "skops", "onnx", "lightgbm", "xgboost"]


class _Origin(BaseModel):
    """What both kinds of origin record.

    Args:
        requires: packages with their versions that the pickle needs besides scikit-learn's; to
            serve it, inference must have the same ones.
    """

    model_config = ConfigDict(frozen=True)

    requires: dict[str, str] = {}


class PipelineOrigin(_Origin):
    """The owner's training code.

    Args:
        file: the version's artefact that contains the code.
        function: the function in it that returned the estimator.
        commit: the commit that last changed the file; None if it is not committed as it is.
    """

    kind: Literal["pipeline"] = "pipeline"
    file: str
    function: str
    commit: str | None = None


class ImportOrigin(_Origin):
    """A finished model.

    Args:
        format: the format of the model file.
        name: the name of the file or folder that was imported.
        sha256: digest of the model file.
        mlflow: whether it was in an MLflow model folder.
    """

    kind: Literal["import"] = "import"
    format: ImportFormat
    name: str
    sha256: str
    mlflow: bool = False


Origin = Annotated[PipelineOrigin | ImportOrigin, Field(discriminator="kind")]
