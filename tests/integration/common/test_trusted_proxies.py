"""Only trusted proxies can state the client's address and scheme."""

import pytest

from harness.raw_http import Connection, head
from harness.reverse_proxies import proxied
from services.auth.settings import AuthSettings
from services.billing.settings import BillingSettings
from services.inference.settings import InferenceSettings
from tests.integration.echo import running_echo

FORWARDED = (
    b"Host: x",
    b"X-Forwarded-For: 203.0.113.7, 198.51.100.1",
    b"X-Forwarded-Proto: https",
)


@pytest.mark.costly
@pytest.mark.parametrize(
    ("trusted", "client", "scheme"),
    [
        ((), "127.0.0.1", "http"),
        (("192.0.2.1",), "127.0.0.1", "http"),
        (("127.0.0.1",), "198.51.100.1", "https"),
        (("127.0.0.0/8", "198.51.100.0/24"), "203.0.113.7", "https"),
    ],
    ids=["none", "another", "one", "two in a row"],
)
def test_only_a_trusted_proxy_is_believed(
    trusted: tuple[str, ...], client: str, scheme: str
) -> None:
    with running_echo("asyncio", *trusted) as port, Connection(port) as connection:
        connection.send(head(*FORWARDED, start=b"GET / HTTP/1.1"))
        answer = connection.read()[2]

    assert (answer["client"], answer["scheme"]) == (client, scheme)


@pytest.mark.costly
def test_a_real_proxy_overrides_what_its_client_says(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("nginx")
    with (
        running_echo("uvloop", "127.0.0.1") as service,
        proxied("nginx", service, folder) as port,
        Connection(port) as connection,
    ):
        connection.send(head(*FORWARDED, start=b"GET / HTTP/1.1"))
        answer = connection.read()[2]

    assert (answer["client"], answer["scheme"]) == ("127.0.0.1", "https")


@pytest.mark.parametrize("settings", [AuthSettings, BillingSettings, InferenceSettings])
class TestSetting:
    def test_it_accepts_addresses_and_networks(
        self,
        settings: type[AuthSettings | BillingSettings | InferenceSettings],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        name = f"{settings.model_config['env_prefix']}TRUSTED_PROXIES"
        monkeypatch.setenv(name, "10.0.0.0/8, ::1 192.0.2.1")
        monkeypatch.setenv("INFERENCE_CLIENT_ID", "inference")
        monkeypatch.setenv("INFERENCE_CLIENT_SECRET", "secret")

        assert settings.load().trusted_proxies == ("10.0.0.0/8", "::1", "192.0.2.1")

    @pytest.mark.parametrize("value", ["*", "proxy.example.com", "10.0.0.1/8", "10.0.0.0/99"])
    def test_anything_else_prevents_the_start(
        self,
        settings: type[AuthSettings | BillingSettings | InferenceSettings],
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        value: str,
    ) -> None:
        name = f"{settings.model_config['env_prefix']}TRUSTED_PROXIES"
        monkeypatch.setenv(name, value)

        with pytest.raises(SystemExit):
            settings.load()

        error = capsys.readouterr().err
        assert error.startswith(f"error: {name}: every item must be an IP address or network")
        assert error.count("\n") == 1
