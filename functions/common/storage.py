"""The calls to Cloud Storage that the functions need, over its JSON API.

https://cloud.google.com/storage/docs/json_api/v1. Plain HTTP instead of a client library: a
function that starts in a fraction of a second, and time limits that can be seen.
"""

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol, Self
from urllib.parse import quote

import httpx

from functions.common.faults import Unfinished

GOOGLE = "https://storage.googleapis.com"
TIMEOUT_S = 10.0
MAX_PAGES = 100
"""Of 1000 objects each; a folder of more parts than that is refused rather than listed for ever."""
TOKEN_MARGIN_S = 60.0
FIXES = {
    401: "Give the function a service account that may use bucket '{bucket}'.",
    403: "Grant the function's service account its roles on bucket '{bucket}'.",
    404: "Create bucket '{bucket}', or correct PIPELINE_STORE and PIPELINE_RECORDS.",
}
"""What a person has to do about an answer that no retry changes."""


class StorageError(Unfinished):
    """Cloud Storage cannot be used now."""


@dataclass(frozen=True)
class StoredObject:
    """An object as it lies there now; `size` in bytes."""

    name: str
    generation: str
    size: int
    created: datetime

    @classmethod
    def of(cls, resource: dict[str, Any]) -> Self:
        """From the API's object resource, where 64-bit integers are strings."""
        return cls(
            name=resource["name"],
            generation=str(resource["generation"]),
            size=int(resource["size"]),
            created=datetime.fromisoformat(resource["timeCreated"]),
        )


class AccessToken(Protocol):
    """Where access tokens come from."""

    def get(self) -> str:
        """A token that is good for another minute; raises StorageError if there is none."""
        ...


class MetadataToken:
    """The access token of the function's service account, kept until shortly before it ends.

    https://cloud.google.com/compute/docs/metadata/querying-metadata
    """

    def __init__(self, host: str) -> None:
        self._url = f"http://{host}/computeMetadata/v1/instance/service-accounts/default/token"
        self._lock = threading.Lock()
        self._token = ""
        self._ends = 0.0

    def get(self) -> str:
        """A token that is good for another minute.

        Raises:
            StorageError: the metadata server does not give one.
        """
        with self._lock:
            if time.monotonic() > self._ends - TOKEN_MARGIN_S:
                try:
                    answer = httpx.get(
                        self._url,
                        headers={"Metadata-Flavor": "Google"},
                        timeout=TIMEOUT_S,
                        trust_env=False,
                    ).raise_for_status()
                    given = answer.json()
                    self._token = given["access_token"]
                    self._ends = time.monotonic() + given["expires_in"]
                except (httpx.HTTPError, ValueError, KeyError) as error:
                    raise StorageError(f"No access token: {type(error).__name__}.") from error
            return self._token


class Storage:
    """A client of Cloud Storage, or of an emulator. Threads may share it.

    Args:
        token: instead of the metadata server's, where the caller is no function.
    """

    def __init__(
        self, *, emulator: str, metadata_host: str, token: AccessToken | None = None
    ) -> None:
        self._token = None if emulator else token or MetadataToken(metadata_host)
        self._http = httpx.Client(base_url=emulator or GOOGLE, timeout=TIMEOUT_S, trust_env=False)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def find(self, bucket: str, name: str) -> StoredObject | None:
        """The object of that name, or None."""
        answer = self._call("GET", f"/storage/v1/b/{_escape(bucket)}/o/{_escape(name)}")
        return None if answer.status_code == 404 else StoredObject.of(_document(answer, bucket))

    def list_folder(self, bucket: str, folder: str) -> list[StoredObject]:
        """The objects right under `folder`, which ends with a slash.

        Raises:
            StorageError: there are too many of them, besides what may always happen.
        """
        query = {"prefix": folder, "delimiter": "/"}
        query["fields"] = "nextPageToken,items(name,generation,size,timeCreated)"
        pages = self._list(bucket, query)
        return [StoredObject.of(item) for page in pages for item in page.get("items", [])]

    def list_folders(self, bucket: str, prefix: str) -> list[str]:
        """The folders right under `prefix`, each with a slash at its end.

        Raises:
            StorageError: as for `list_folder`.
        """
        query = {"prefix": prefix, "delimiter": "/", "fields": "nextPageToken,prefixes"}
        return [name for page in self._list(bucket, query) for name in page.get("prefixes", [])]

    def list_names(self, bucket: str, folder: str, *, start: str) -> list[str]:
        """The names under `folder` that sort at or after `start`.

        Raises:
            StorageError: as for `list_folder`.
        """
        query = {"prefix": folder, "startOffset": start, "fields": "nextPageToken,items(name)"}
        pages = self._list(bucket, query)
        return [item["name"] for page in pages for item in page.get("items", [])]

    def _list(self, bucket: str, query: dict[str, str]) -> Iterator[dict[str, Any]]:
        """The pages of a listing."""
        query = dict(query)
        for _ in range(MAX_PAGES):
            answer = self._call("GET", f"/storage/v1/b/{_escape(bucket)}/o", params=query)
            page = _document(answer, bucket)
            yield page
            if not page.get("nextPageToken"):
                return
            query["pageToken"] = page["nextPageToken"]
        raise StorageError(f"There are too many objects under {query['prefix']}.")

    def create(self, bucket: str, name: str, content: bytes) -> bool:
        """Write an object that must not exist yet; False if it does (the first one stands)."""
        answer = self._call(
            "POST",
            f"/upload/storage/v1/b/{_escape(bucket)}/o",
            params={"uploadType": "media", "name": name, "ifGenerationMatch": "0"},
            content=content,
            headers={"Content-Type": "application/json"},
        )
        # Who may not overwrite is answered 403 for an object that is there, and not 412.
        if answer.status_code == 412 or (answer.status_code == 403 and self.find(bucket, name)):
            return False
        _document(answer, bucket)
        return True

    def _call(self, method: str, path: str, **options: Any) -> httpx.Response:
        headers = options.pop("headers", {})
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token.get()}"
        try:
            return self._http.request(method, path, headers=headers, **options)
        except httpx.HTTPError as error:
            raise StorageError(f"Cloud Storage: {type(error).__name__}.") from error


def _document(answer: httpx.Response, bucket: str) -> dict[str, Any]:
    if not answer.is_success:
        fix = FIXES.get(answer.status_code, "").format(bucket=bucket)
        raise StorageError(f"Cloud Storage answered {answer.status_code}.", fix=fix)
    document: dict[str, Any] = answer.json()
    return document


def _escape(name: str) -> str:
    return quote(name, safe="")
