"""`.env.example` and README.md agree with the settings classes."""

import re
from pathlib import Path

import pytest
from pydantic import AliasChoices
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from cli.local.quickstart import quickstart
from cli.settings import LocalSettings
from functions.common.settings import PipelineSettings
from services.auth.settings import AuthSettings
from services.billing.settings import BillingSettings
from services.common.settings import ServiceSettings
from services.console.settings import ConsoleSettings
from services.inference.settings import InferenceSettings
from trainer.settings import TrainerSettings

ROOT = Path(__file__).parents[3]
SETTINGS: list[type[ServiceSettings]] = [
    AuthSettings,
    BillingSettings,
    ConsoleSettings,
    InferenceSettings,
    TrainerSettings,
    LocalSettings,
    PipelineSettings,
]
DESCRIBED_IN_WORDS = {"AUTH_PASSWORD_THREADS", "INFERENCE_PREDICT_THREADS"}
UNSET = {"None", ".", str(PydanticUndefined)}

README = (ROOT / "README.md").read_text()
SETTINGS_PART = (ROOT / ".env.example").read_text().partition("# -- docker compose")[0]
DOCUMENTED = dict(re.findall(r"^#([A-Z_]+)=(.*)$", SETTINGS_PART, re.MULTILINE))


def variable(settings: type[ServiceSettings], name: str, field: FieldInfo) -> str:
    """Return the environment variable of a field; the first, if it has several."""
    match field.validation_alias:
        case str(alias):
            return alias
        case AliasChoices(choices=[str(alias), *_]):
            return alias
        case _:
            return f"{settings.model_config['env_prefix']}{name}".upper()


@pytest.mark.parametrize("settings", SETTINGS)
def test_each_setting_is_documented_with_its_default(settings: type[ServiceSettings]) -> None:
    for name, field in settings.model_fields.items():
        named = variable(settings, name, field)

        assert named in DOCUMENTED
        if named not in DESCRIBED_IN_WORDS:
            default = str(field.default).lower() if field.annotation is bool else str(field.default)
            assert DOCUMENTED[named] == ("" if default in UNSET else default)


def test_only_settings_are_documented() -> None:
    known = {
        variable(settings, name, field)
        for settings in SETTINGS
        for name, field in settings.model_fields.items()
    }

    assert set(DOCUMENTED) == known


def test_readme_names_only_settings() -> None:
    named = re.findall(r"`((?:AUTH|INFERENCE|BILLING|CONSOLE|TRAINER|TOLLGATE)_[A-Z_]+)", README)

    assert set(named) <= set(DOCUMENTED)


def test_readme_shows_the_quickstart_that_up_prints() -> None:
    urls = {"auth": 8001, "inference": 8002, "billing": 8003}
    shown = quickstart({name: f"http://127.0.0.1:{port}" for name, port in urls.items()})

    assert shown in README


def test_the_state_folder_is_not_the_users_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/somewhere")
    monkeypatch.delenv("TOLLGATE_HOME", raising=False)

    for settings in (AuthSettings, BillingSettings, LocalSettings, TrainerSettings):
        assert settings.load().home == Path(".tollgate")
