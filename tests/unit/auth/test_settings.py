"""Settings: defaults, and one clear line for an invalid value."""

from pathlib import Path

import pytest

from services.auth.settings import AuthSettings


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AUTH_PORT", "INFERENCE_PORT", "BILLING_PORT", "AUTH_ISSUER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TOLLGATE_HOME", str(tmp_path))


def test_the_defaults_fit_one_machine(tmp_path: Path) -> None:
    settings = AuthSettings.load()

    assert settings.issuer == "http://127.0.0.1:8001"
    assert settings.database_url.get_secret_value() == f"sqlite+aiosqlite:///{tmp_path}/auth.db"
    assert settings.signing_keys == tmp_path / "keys" / "auth"
    assert set(settings.cors_origins) == {
        f"http://{host}:{port}"
        for host in ("127.0.0.1", "localhost")
        for port in (8001, 8002, 8003)
    }


def test_the_issuer_and_origins_follow_the_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTH_PORT", "9001")
    monkeypatch.setenv("BILLING_PORT", "9003")

    settings = AuthSettings.load()

    assert settings.issuer == "http://127.0.0.1:9001"
    assert "http://localhost:9003" in settings.cors_origins


def test_origins_are_separated_by_commas_or_spaces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTH_CORS_ORIGINS", "https://a.example, https://b.example")

    assert AuthSettings.load().cors_origins == ("https://a.example", "https://b.example")


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("AUTH_PORT", "many"),
        ("AUTH_PORT", "70000"),
        ("INFERENCE_PORT", "-1"),
        ("AUTH_ISSUER", "auth.example.com"),
        ("AUTH_ISSUER", "https://auth.example.com?x"),
        ("AUTH_DATABASE_URL", "postgresql://user:hunter2@host/db"),
        ("AUTH_DATABASE_URL", "mysql://user:hunter2@host/db"),
        ("AUTH_DATABASE_URL", "hunter2"),
        ("AUTH_REGISTRATION", "closed"),
        ("AUTH_MAIL_URL", "mail.example.com:hunter2"),
        ("AUTH_MAIL_URL", "http://user:hunter2@mail.example.com"),
        ("AUTH_MAIL_URL", "smtp://"),
        ("AUTH_MAIL_FROM", "Tollgate"),
        ("AUTH_MAIL_FROM", "a@b.io\nBcc: eve@x.io"),
        ("AUTH_PAGES_URL", "auth.example.com"),
        ("AUTH_CORS_ORIGINS", "*"),
        ("AUTH_CORS_ORIGINS", "https://a.example/path"),
        ("AUTH_ACCESS_TOKEN_SECONDS", "90000"),
        ("AUTH_LOGIN_ATTEMPTS", "0"),
        ("AUTH_PROVIDERS", "hunter2"),
        ("AUTH_PROVIDERS", '[{"name": "a", "issuer": "https://x", "client_secret": "hunter2"}]'),
        (
            "AUTH_PROVIDERS",
            '[{"name": "a", "issuer": "http://x", "client_id": "c", "client_secret": "hunter2"}]',
        ),
        (
            "AUTH_PROVIDERS",
            '[{"name": "/", "issuer": "https://x", "client_id": "c", "client_secret": "hunter2"}]',
        ),
        (
            "AUTH_PROVIDERS",
            '[{"name": "a", "issuer": "https://x", "client_id": "c", "client_secret": "hunter2"},'
            '{"name": "a", "issuer": "https://y", "client_id": "c", "client_secret": "hunter2"}]',
        ),
        ("AUTH_FIRST_PARTY_CLIENTS", "hunter2"),
        ("AUTH_FIRST_PARTY_CLIENTS", "{}"),
        ("AUTH_FIRST_PARTY_CLIENTS", '[{"client_id": "x"}]'),
        ("AUTH_FIRST_PARTY_CLIENTS", '[{"client_id": "console", "redirect_uris": ["http://x"]}]'),
        ("AUTH_LOG_LEVEL", "LOUD"),
    ],
)
def test_an_invalid_value_is_one_line_with_the_variable_and_without_secrets(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    variable: str,
    value: str,
) -> None:
    monkeypatch.setenv(variable, value)

    with pytest.raises(SystemExit) as stopped:
        AuthSettings.load()

    stderr = capsys.readouterr().err
    assert stopped.value.code == 2
    assert stderr.startswith(f"error: {variable}: ")
    assert stderr.count("\n") == 1
    assert "hunter2" not in stderr
