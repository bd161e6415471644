"""`tollgate receipts verify` works offline, with a saved JWK set or the local keys."""

import hashlib
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.main import app
from services.billing.receipts.keys import ReceiptKeys, open_receipt_keys

BODY = b'{"instances": [[1]]}'
CLAIMS = {"id": "e1", "amount": "0.0006", "input_sha256": hashlib.sha256(BODY).hexdigest()}


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ReceiptKeys:
    monkeypatch.setenv("TOLLGATE_HOME", str(tmp_path))
    keys = open_receipt_keys(tmp_path / "keys/receipts")
    (tmp_path / "jwks.json").write_text(json.dumps(keys.document))
    (tmp_path / "receipt").write_text(f"{keys.sign(CLAIMS)}\n")
    (tmp_path / "body.json").write_bytes(BODY)
    return keys


def run(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["receipts", "verify", *arguments])
    return result.exit_code, result.stdout, result.stderr


@pytest.mark.usefixtures("keys")
class TestVerify:
    def test_with_a_saved_jwk_set(self, tmp_path: Path) -> None:
        code, stdout, _ = run(
            str(tmp_path / "receipt"),
            *("--keys", str(tmp_path / "jwks.json"), "--input", str(tmp_path / "body.json")),
            "--json",
        )

        assert (code, json.loads(stdout)) == (0, [CLAIMS])

    def test_with_the_local_keys(self, tmp_path: Path) -> None:
        code, stdout, _ = run(str(tmp_path / "receipt"))

        assert code == 0
        assert "0.0006" in stdout

    def test_a_changed_receipt_is_refused(self, tmp_path: Path) -> None:
        with (tmp_path / "receipt").open("a") as file:
            file.write("e30.e30.e30\n")

        code, stdout, stderr = run(str(tmp_path / "receipt"))

        assert (code, stdout) == (1, "")
        assert "receipt:2: not a receipt" in stderr

    def test_another_input_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "body.json").write_bytes(b"{}")

        code, _, stderr = run(str(tmp_path / "receipt"), "--input", str(tmp_path / "body.json"))

        assert code == 1
        assert "is not the input" in stderr

    @pytest.mark.parametrize("name", ["nothing", "empty"])
    def test_without_a_receipt_it_says_so(self, tmp_path: Path, name: str) -> None:
        (tmp_path / "empty").touch()

        code, _, stderr = run(str(tmp_path / name))

        assert code == 1
        assert stderr.startswith("error: ")


def test_without_keys_it_creates_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOLLGATE_HOME", str(tmp_path))
    (tmp_path / "receipt").write_text("e30.e30.e30")

    code, _, stderr = run(str(tmp_path / "receipt"))

    assert code == 1
    assert "--keys" in stderr
    assert not (tmp_path / "keys").exists()
