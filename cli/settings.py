"""What the command line reads from the environment itself; the services read the rest."""

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from services.common.settings import ServiceSettings


class LocalSettings(ServiceSettings):
    """The one-machine installation: its state folder and its ports."""

    # Without a prefix the field `home` would be read from $HOME.
    model_config = SettingsConfigDict(env_prefix="TOLLGATE_")

    auth_port: int = Field(default=8001, ge=1, le=65535, validation_alias="AUTH_PORT")
    """Port of the auth service."""
    inference_port: int = Field(default=8002, ge=1, le=65535, validation_alias="INFERENCE_PORT")
    """Port of the inference service."""
    billing_port: int = Field(default=8003, ge=1, le=65535, validation_alias="BILLING_PORT")
    """Port of the billing service."""
    default_plan: str = Field(default="", validation_alias="BILLING_DEFAULT_PLAN")
    """The plan of accounts without one, if not the local plan."""
    pipeline_records: str = Field(default="", validation_alias="PIPELINE_RECORDS")
    """Where the functions remember what they dispatched, for `tollgate pipelines`."""
    pipeline_repository: str = Field(default="", validation_alias="PIPELINE_REPOSITORY")
    """The repository whose workflows they start, for links to its runs."""
    client_id: str = ""
    """Machine client, with scope `predict`, that `tollgate models check` predicts as."""
    client_secret: SecretStr = SecretStr("")
    """Its secret."""
    check_account_seed: SecretStr = SecretStr("")
    """Without a client: a secret from which the account that checks models is made."""
