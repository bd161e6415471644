"""The trainer's settings, from the environment."""

from pydantic import AliasChoices, Field
from pydantic_settings import SettingsConfigDict

from registry.settings import StoreSettings
from services.common.settings import ServiceSettings


class TrainerSettings(StoreSettings, ServiceSettings):
    """Settings of `tollgate train`; the stores and keys are those of every `tollgate` command."""

    model_config = SettingsConfigDict(env_prefix="TRAINER_")

    seed: int = Field(default=0, ge=0, lt=2**32)
    """Seed of all randomness in training."""
    commit: str | None = Field(
        default=None, validation_alias=AliasChoices("TRAINER_COMMIT", "GITHUB_SHA")
    )
    """Code commit to record in the manifest."""
    max_data_bytes: int = Field(default=1024**3, gt=0)
    """Maximum data size; training uses up to four times as much memory."""
