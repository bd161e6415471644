"""TLS to the database: required by the URL, then enforced."""

import datetime
import ipaddress
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import SecretStr, TypeAdapter, ValidationError
from sqlalchemy import text

from harness.mariadb import Server, running_server
from services.common.db.database import Database, DatabaseUrl
from services.common.errors import Unavailable


def make_certificate(folder: Path) -> Path:
    """Create a self-signed certificate of 127.0.0.1, `cert.pem`, and its key, `key.pem`."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.IPAddress(ipaddress.IPv4Address("127.0.0.1"))
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return folder / "cert.pem"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificate(tmp_path_factory.mktemp("server"))


@pytest.fixture(scope="module")
def server(certificate: Path) -> Iterator[Server]:
    """A server with a certificate."""
    key = certificate.with_name("key.pem")
    with running_server(f"--ssl-cert={certificate}", f"--ssl-key={key}") as started:
        yield started


async def cipher(url: str) -> str:
    """Return the cipher of a connection; empty if it is not encrypted.

    Raises:
        Unavailable: the connection cannot be made.
    """
    database = Database(url)
    try:
        async with database.snapshot() as session:
            row = (await session.execute(text("SHOW STATUS LIKE 'Ssl_cipher'"))).one()
            return str(row[1])
    finally:
        await database.close()


class TestTls:
    @pytest.mark.costly
    async def test_a_server_with_a_trusted_certificate_is_used_with_tls(
        self, server: Server, certificate: Path
    ) -> None:
        url = server.new_database()

        assert await cipher(f"{url}?ssl_ca={certificate}")
        assert not await cipher(url)

    async def test_a_server_with_an_untrusted_certificate_is_refused(
        self, server: Server, tmp_path: Path
    ) -> None:
        with pytest.raises(Unavailable):
            await cipher(f"{server.new_database()}?ssl_ca={make_certificate(tmp_path)}")

    @pytest.mark.costly
    async def test_a_server_without_tls_is_refused(self, certificate: Path) -> None:
        # MariaDB has the first option, MySQL the second; without it MySQL creates certificates.
        without_tls = ("--loose-skip-ssl", "--loose-auto-generate-certs=OFF")

        with running_server(*without_tls) as plain:
            assert not await cipher(plain.new_database())
            with pytest.raises(Unavailable):
                await cipher(f"{plain.new_database()}?ssl_ca={certificate}")

    def test_a_file_without_certificates_is_an_invalid_value(self, tmp_path: Path) -> None:
        (tmp_path / "ca.pem").write_text("nothing")
        url = TypeAdapter(DatabaseUrl)

        for name in ("ca.pem", "missing.pem"):
            value = SecretStr(f"mysql+aiomysql://u:hunter2@db/auth?ssl_ca={tmp_path / name}")
            with pytest.raises(ValidationError, match="cannot read the certificates in ssl_ca"):
                url.validate_python(value)
