"""Google Cloud Storage through gcsfs, without its surprises.

What this adds to gcsfs:

- Every call ends within CALL_DEADLINE_S (more where it carries data); gcsfs itself retries for half
  a minute, and waits for ever on a server that has stopped to answer.
- A file is read in pieces, all of the generation that the first one came from: never a mix of an
  object and the one that replaced it.
- A bucket that is not there is an error, and not an empty folder.
- Errors are one sentence, without paths or URLs.

The plain `gcsfs.core.GCSFileSystem` is the base on purpose: the class that `gcsfs` registers for
`gs://` first asks the Storage Control API about the bucket, and hangs where there is none.
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
"""A request and its retries, without the time that its data may take."""
SILENCE_DEADLINE_S = 4.0
"""How long a server may say nothing before the request is sent again."""
SLOWEST_BYTES_PER_S = 1 << 20
PIECE_BYTES = 4 << 20

_FORBIDDEN = 403
_RANGE_NOT_SATISFIABLE = 416

# It logs, with a traceback and URLs, each error that it raises as well.
logging.getLogger("gcsfs").setLevel(logging.CRITICAL)


class BucketError(OSError):
    """The bucket did not do what was asked; `status` is its answer's, if there was one."""

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


def open_gcs(*, read_only: bool) -> "BoundedGCS":
    """With the default credentials of the machine; with none, where an emulator stands in.

    The emulator is the one of STORAGE_EMULATOR_HOST, which gcsfs reads.

    Raises:
        google.auth.exceptions.DefaultCredentialsError: there are none.
    """
    anonymous = BoundedGCS(token="anon", read_only=read_only)  # noqa: S106
    if not anonymous.on_google:
        return anonymous
    # By name, as gcsfs would else try one kind after the other, and end with none in silence.
    return BoundedGCS(token="google_default", read_only=read_only)  # noqa: S106


class BoundedGCS(GCSFileSystem):  # type: ignore[misc]  # gcsfs has no types
    """A file system of `gs://` paths. Make it after a fork, never before: its loop is a thread.

    Raises:
        BucketError: from every method, for whatever is not a missing or an existing file.
    """

    cachable = False  # or every caller would share one, and a forked process its parent's

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
            # aiohttp sends bytes in one go, in which nothing else in its loop gets a turn.
            options["data"] = UnclosableBytesIO(data)
        deadline_s = CALL_DEADLINE_S + size / SLOWEST_BYTES_PER_S
        try:
            async with asyncio.timeout(deadline_s):
                # Otherwise gcsfs would do it in its loop, and block it for up to two minutes.
                await asyncio.to_thread(self.credentials.maybe_refresh)
                return await super()._call(method, path, *args, **options)
        except FileNotFoundError as error:
            raise FileNotFoundError("there is no such object") from error
        except FileExistsError as error:
            raise FileExistsError("the object exists already") from error
        except TimeoutError as error:
            raise BucketError(f"no answer within {deadline_s:.0f} s") from error
        except (ClientError, RequestException) as error:
            raise BucketError("the bucket cannot be reached") from error
        except (GoogleAuthError, NonRetryableError) as error:
            raise BucketError("the credentials do not hold") from error
        except HttpError as error:
            raise BucketError(f"the bucket answered {error.code}", status=error.code) from error
        except (OSError, ValueError) as error:  # gcsfs makes these of 403 and of some 400
            # The first word matters: by it gcsfs knows when to look an object up in a listing.
            if str(error).startswith("Forbidden"):
                raise BucketError("Forbidden", status=_FORBIDDEN) from error
            raise BucketError("the bucket refused the request") from error

    async def _cat_file(
        self, path: str, start: int | None = None, end: int | None = None, **options: Any
    ) -> bytes:
        """The file, or its bytes from `start` until before `end`, neither of them negative."""
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
                    raise BucketError("the object was replaced while it was read") from error
                raise
            pieces.append(piece)
            span = headers.get("Content-Range")  # bytes 0-99/1234
            if span is None:  # all there is, whatever was asked for
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
            # To a caller who may create but not delete, an object in the way can look like this.
            if mode == "create" and error.status == _FORBIDDEN and await self._exists(path):
                raise FileExistsError("the object exists already") from error
            raise

    async def _do_list_objects(self, path: str, **options: Any) -> Any:
        try:
            return await super()._do_list_objects(path, **options)
        except FileNotFoundError as error:
            raise BucketError("there is no such bucket") from error
