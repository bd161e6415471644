"""How mail leaves: through an SMTP server, or as files in a folder."""

import asyncio
import os
from datetime import UTC, datetime
from email.message import EmailMessage
from email.policy import SMTP
from ipaddress import ip_address
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

import aiosmtplib

TIMEOUT_S = 10.0


class Transport(Protocol):
    """Sends one message."""

    async def send(self, message: EmailMessage) -> None:
        """Send a message.

        Raises:
            RejectedError: it can never be sent.
            OSError: it could not be sent now.
        """


class RejectedError(Exception):
    """The server permanently rejects a message or its recipient."""


class SmtpTransport:
    """Sends through an SMTP server, with one connection per message.

    `smtp://` uses STARTTLS if the server offers it, and requires it before it sends a password to
    another machine; `smtps://` uses TLS from the start. Certificates are verified.

    Args:
        url: `smtp[s]://[user:password@]host[:port]`, percent-encoded.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._tls = parts.scheme == "smtps"
        self._host = parts.hostname or ""
        self._port = parts.port or (465 if self._tls else 587 if parts.username else 25)
        self._user = unquote(parts.username) if parts.username else None
        self._password = unquote(parts.password) if parts.password else None

    async def send(self, message: EmailMessage) -> None:
        must_encrypt = self._user is not None and not _is_local(self._host)
        try:
            await aiosmtplib.send(
                message,
                hostname=self._host,
                port=self._port,
                username=self._user,
                password=self._password,
                use_tls=self._tls,
                start_tls=False if self._tls else True if must_encrypt else None,
                timeout=TIMEOUT_S,
            )
        except aiosmtplib.SMTPRecipientsRefused as error:
            if all(each.code >= 500 for each in error.recipients):
                raise RejectedError(f"recipient refused with {error.recipients[0].code}") from error
            raise OSError("recipient refused for now") from error
        except (aiosmtplib.SMTPDataError, aiosmtplib.SMTPSenderRefused) as error:
            if error.code >= 500:
                raise RejectedError(f"message refused with {error.code}") from error
            raise OSError(f"message refused for now with {error.code}") from error
        except (aiosmtplib.SMTPException, ValueError) as error:
            raise OSError(type(error).__name__) from error


class FolderTransport:
    """Writes each message to a file `<time>-<id>.eml`, for installations without a mail server."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def send(self, message: EmailMessage) -> None:
        await asyncio.to_thread(self._write, message)

    def _write(self, message: EmailMessage) -> None:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        message_id = str(message["Message-ID"]).strip("<>").partition("@")[0]
        name = f"{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}-{message_id}"
        draft = self._folder / f".{name}.new"
        file = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(file, "wb") as out:
            out.write(message.as_bytes(policy=SMTP))
        draft.rename(self._folder / f"{name}.eml")


def open_transport(url: str, *, folder: Path) -> Transport:
    """Return the transport for `AUTH_MAIL_URL`; if it is empty, files in the folder."""
    return SmtpTransport(url) if url else FolderTransport(folder)


def _is_local(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
