from pathlib import Path

import pytest

from registry.settings import StoreSettings


def test_inferences_variables_apply_where_the_trainers_are_unset(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("INFERENCE_MODEL_STORE", "gs://models")
    monkeypatch.setenv("INFERENCE_FEEDBACK_STORE", "gs://feedback")
    monkeypatch.setenv("INFERENCE_TRUSTED_KEYS", "/keys")
    monkeypatch.setenv("INFERENCE_ALLOW_JOBLIB", "true")
    monkeypatch.setenv("TRAINER_FEEDBACK_STORE", "gs://own")
    monkeypatch.setenv("TRAINER_ALLOW_JOBLIB", "false")

    settings = StoreSettings()

    assert settings.model_store_url == "gs://models"
    assert settings.feedback_store_url == "gs://own"
    assert settings.trusted_keys == Path("/keys")
    assert not settings.allow_joblib


def test_by_default_everything_is_in_the_state_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TOLLGATE_HOME", str(tmp_path))

    settings = StoreSettings()

    assert settings.model_store_url == f"file://{tmp_path}/models"
    assert settings.data_store_url == f"file://{tmp_path}/data"
    assert settings.feedback_store_url == f"file://{tmp_path}/feedback"
    assert settings.signing_key_file == tmp_path / "keys" / "signing.pem"
