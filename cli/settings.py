"""Settings of the command line; the services have their own."""

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from services.common.settings import ServiceSettings


class LocalSettings(ServiceSettings):
    """Settings of the one-machine installation."""

    # Without a prefix, the field `home` would be read from $HOME.
    model_config = SettingsConfigDict(env_prefix="TOLLGATE_")

    console_port: int = Field(default=8000, ge=1, le=65535, validation_alias="CONSOLE_PORT")
    """Port of the console."""
    auth_port: int = Field(default=8001, ge=1, le=65535, validation_alias="AUTH_PORT")
    """Port of the auth service."""
    inference_port: int = Field(default=8002, ge=1, le=65535, validation_alias="INFERENCE_PORT")
    """Port of the inference service."""
    billing_port: int = Field(default=8003, ge=1, le=65535, validation_alias="BILLING_PORT")
    """Port of the billing service."""
    default_plan: str = Field(default="", validation_alias="BILLING_DEFAULT_PLAN")
    """Default plan of accounts, instead of the local plan."""
    pipeline_records: str = Field(default="", validation_alias="PIPELINE_RECORDS")
    """Store of the functions' records, for `tollgate pipelines`."""
    pipeline_repository: str = Field(default="", validation_alias="PIPELINE_REPOSITORY")
    """Repository of the workflows, for links to their runs."""
    url: str = ""
    """URL of any service, for `tollgate usage` and `tollgate mcp`, which find the one they need."""
    api_key: SecretStr = SecretStr("")
    """API key with scope `usage:read` for `tollgate usage`, or `predict` for `tollgate mcp`."""
    client_id: str = ""
    """Machine client with scope `predict` for `tollgate models check`."""
    client_secret: SecretStr = SecretStr("")
    """Secret of the machine client."""
    check_account_seed: SecretStr = SecretStr("")
    """Secret from which the checking user is derived, if there is no machine client."""
