"""Google Cloud Storage through gcsfs, with bounded calls and consistent reads.

This adds to gcsfs:

- Every call ends within CALL_DEADLINE_S (more if it carries data). gcsfs itself retries for half a
  minute and waits without limit for a server that has stopped responding.
- A file is read in pieces that all belong to the same generation, so a read never mixes an object
  with its replacement.
- A missing bucket is an error, not an empty folder.
- Errors are one sentence, without paths or URLs.

The base class is `gcsfs.core.GCSFileSystem`. The class that `gcsfs` registers for `gs://` first
queries the Storage Control API about the bucket, and hangs if that API does not exist.
"""

import asyncio
import logging
from typing import Any

from aiohttp import ClientError, ClientTimeout
from gcsfs.core import GCSFileSystem, UnclosableBytesIO
from gcsfs.retry import HttpError, NonRetryableError
from google.auth.exceptions import GoogleAuthError
from requests import RequestException

CALL_DEADLINE_S = 10.0
"""Limit for a request and its retries, excluding the time to transfer its data."""
SILENCE_DEADLINE_S = 4.0
"""How long a server may stay silent before the request is retried."""
SLOWEST_BYTES_PER_S = 1 << 20
PIECE_BYTES = 4 << 20

_FORBIDDEN = 403
_RANGE_NOT_SATISFIABLE = 416

# gcsfs logs every error that it also raises, with a traceback and URLs.
logging.getLogger("gcsfs").setLevel(logging.CRITICAL)


class BucketError(OSError):
    """A bucket operation failed; `status` is the HTTP status, if there was a response."""

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


def open_gcs(*, read_only: bool) -> "BoundedGCS":
    """Open Google Cloud Storage with the machine's default credentials.

    An emulator (STORAGE_EMULATOR_HOST, which gcsfs reads) is used without credentials.

    Raises:
        google.auth.exceptions.DefaultCredentialsError: the machine has no credentials.
    """
    anonymous = BoundedGCS(token="anon", read_only=read_only)  # noqa: S106
    if not anonymous.on_google:
        return anonymous
    # Without a name, gcsfs tries each kind of credentials and silently ends up anonymous.
    return BoundedGCS(token="google_default", read_only=read_only)  # noqa: S106


class BoundedGCS(GCSFileSystem):  # type: ignore[misc]  # gcsfs has no types
    """A file system of `gs://` paths. Create it after a fork: its event loop runs in a thread.

    Raises:
        BucketError: from every method, for any error other than a missing or existing file.
    """

    cachable = False  # otherwise callers share an instance, and forks inherit their parent's

    def __init__(self, *, read_only: bool = False, **options: Any) -> None:
        super().__init__(
            access="read_only" if read_only else "read_write",
            use_listings_cache=False,  # it would hide new releases
            requests_timeout=ClientTimeout(
                sock_connect=SILENCE_DEADLINE_S, sock_read=SILENCE_DEADLINE_S
            ),
            **options,
        )

    async def _call(self, method: str, path: str, *args: Any, **options: Any) -> Any:
        data = options.get("data")
        size = len(data or b"") + options.pop("expected_bytes", 0)
        if isinstance(data, bytes | bytearray | memoryview):
            # aiohttp sends bytes in one go, blocking everything else in its event loop.
            options["data"] = UnclosableBytesIO(data)
        deadline_s = CALL_DEADLINE_S + size / SLOWEST_BYTES_PER_S
        try:
            async with asyncio.timeout(deadline_s):
                # Otherwise gcsfs refreshes in its event loop and blocks it for up to two minutes.
                await asyncio.to_thread(self.credentials.maybe_refresh)
                return await super()._call(method, path, *args, **options)
        except FileNotFoundError as error:
            raise FileNotFoundError("the object does not exist") from error
        except FileExistsError as error:
            raise FileExistsError("the object already exists") from error
        except TimeoutError as error:
            raise BucketError(f"no response within {deadline_s:.0f} s") from error
        except (ClientError, RequestException) as error:
            raise BucketError("the bucket is unreachable") from error
        except (GoogleAuthError, NonRetryableError) as error:
            raise BucketError("invalid credentials") from error
        except HttpError as error:
            raise BucketError(f"the bucket responded {error.code}", status=error.code) from error
        except (OSError, ValueError) as error:  # gcsfs raises these for 403 and some 400
            # gcsfs looks an object up in a listing if the message starts with this word.
            if str(error).startswith("Forbidden"):
                raise BucketError("Forbidden", status=_FORBIDDEN) from error
            raise BucketError("the bucket rejected the request") from error

    async def _cat_file(
        self, path: str, start: int | None = None, end: int | None = None, **options: Any
    ) -> bytes:
        """Return the file, or its bytes from `start` up to `end` (neither may be negative)."""
        generation: str | None = options.get("generation")
        pieces: list[bytes] = []
        at, end_of_file = start or 0, end
        while end_of_file is None or at < end_of_file:
            stop = at + PIECE_BYTES if end_of_file is None else min(at + PIECE_BYTES, end_of_file)
            try:
                headers, piece = await self._call(
                    "GET",
                    self.url(path, generation=generation),
                    headers={"Range": f"bytes={at}-{stop - 1}"},
                    expected_bytes=stop - at,
                )
            except BucketError as error:
                if error.status == _RANGE_NOT_SATISFIABLE:
                    break
                raise
            except FileNotFoundError as error:
                if pieces:
                    raise BucketError("the object was replaced while being read") from error
                raise
            pieces.append(piece)
            span = headers.get("Content-Range")  # bytes 0-99/1234
            if span is None:  # the whole object, despite the Range header
                break
            size = int(span.rsplit("/", 1)[1])
            end_of_file = size if end is None else min(size, end)
            generation = headers.get("X-Goog-Generation", generation)
            at += len(piece)
        return b"".join(pieces)

    async def _pipe_file(
        self, path: str, data: bytes, *args: Any, mode: str = "overwrite", **options: Any
    ) -> Any:
        try:
            return await super()._pipe_file(path, data, *args, mode=mode, **options)
        except BucketError as error:
            # A caller who may create but not delete gets 403 for an existing object.
            if mode == "create" and error.status == _FORBIDDEN and await self._exists(path):
                raise FileExistsError("the object already exists") from error
            raise

    async def _do_list_objects(self, path: str, **options: Any) -> Any:
        try:
            return await super()._do_list_objects(path, **options)
        except FileNotFoundError as error:
            raise BucketError("the bucket does not exist") from error
