"""A minimal Cloud Storage client over its JSON API.

https://cloud.google.com/storage/docs/json_api/v1. Plain HTTP instead of the client library keeps
cold starts short and timeouts explicit.
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
"""Pages of 1000 objects; a larger folder is refused rather than listed without end."""
TOKEN_MARGIN_S = 60.0
FIXES = {
    401: "Give the function a service account that may use bucket '{bucket}'.",
    403: "Grant the function's service account its roles on bucket '{bucket}'.",
    404: "Create bucket '{bucket}', or correct PIPELINE_STORE and PIPELINE_RECORDS.",
}
"""The fix for each response status that a retry does not change."""


class StorageError(Unfinished):
    """Cloud Storage is unavailable, or it refused the call."""


@dataclass(frozen=True)
class StoredObject:
    """The current state of an object; `size` in bytes."""

    name: str
    generation: str
    size: int
    created: datetime

    @classmethod
    def of(cls, resource: dict[str, Any]) -> Self:
        """Parse the API's object resource, where 64-bit integers are strings."""
        return cls(
            name=resource["name"],
            generation=str(resource["generation"]),
            size=int(resource["size"]),
            created=datetime.fromisoformat(resource["timeCreated"]),
        )


class AccessToken(Protocol):
    """A source of access tokens."""

    def get(self) -> str:
        """Return a token that is valid for another minute.

        Raises:
            StorageError: there is no token.
        """
        ...


class MetadataToken:
    """The access token of the function's service account, cached until shortly before expiry.

    https://cloud.google.com/compute/docs/metadata/querying-metadata
    """

    def __init__(self, host: str) -> None:
        self._url = f"http://{host}/computeMetadata/v1/instance/service-accounts/default/token"
        self._lock = threading.Lock()
        self._token = ""
        self._expires_at = 0.0

    def get(self) -> str:
        """Return a token that is valid for another minute.

        Raises:
            StorageError: the metadata server does not issue a token.
        """
        with self._lock:
            if time.monotonic() > self._expires_at - TOKEN_MARGIN_S:
                try:
                    response = httpx.get(
                        self._url,
                        headers={"Metadata-Flavor": "Google"},
                        timeout=TIMEOUT_S,
                        trust_env=False,
                    ).raise_for_status()
                    grant = response.json()
                    self._token = grant["access_token"]
                    self._expires_at = time.monotonic() + grant["expires_in"]
                except (httpx.HTTPError, ValueError, KeyError) as error:
                    raise StorageError(f"No access token: {type(error).__name__}.") from error
            return self._token


class Storage:
    """A thread-safe client of Cloud Storage or of an emulator.

    Args:
        token: the access token of a caller outside Google Cloud; default: the metadata server's.
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
        """Return the object with this name, or None."""
        response = self._call("GET", f"/storage/v1/b/{_escape(bucket)}/o/{_escape(name)}")
        return None if response.status_code == 404 else StoredObject.of(_document(response, bucket))

    def list_folder(self, bucket: str, folder: str) -> list[StoredObject]:
        """Return the objects directly under `folder`, which ends with a slash.

        Raises:
            StorageError: there are too many objects, or the call failed.
        """
        query = {"prefix": folder, "delimiter": "/"}
        query["fields"] = "nextPageToken,items(name,generation,size,timeCreated)"
        pages = self._list(bucket, query)
        return [StoredObject.of(item) for page in pages for item in page.get("items", [])]

    def list_folders(self, bucket: str, prefix: str) -> list[str]:
        """Return the folders directly under `prefix`, each with a trailing slash.

        Raises:
            StorageError: as for `list_folder`.
        """
        query = {"prefix": prefix, "delimiter": "/", "fields": "nextPageToken,prefixes"}
        return [name for page in self._list(bucket, query) for name in page.get("prefixes", [])]

    def list_names(self, bucket: str, folder: str, *, start: str) -> list[str]:
        """Return the names under `folder` that sort at or after `start`.

        Raises:
            StorageError: as for `list_folder`.
        """
        query = {"prefix": folder, "startOffset": start, "fields": "nextPageToken,items(name)"}
        pages = self._list(bucket, query)
        return [item["name"] for page in pages for item in page.get("items", [])]

    def _list(self, bucket: str, query: dict[str, str]) -> Iterator[dict[str, Any]]:
        """Yield the pages of a listing."""
        query = dict(query)
        for _ in range(MAX_PAGES):
            response = self._call("GET", f"/storage/v1/b/{_escape(bucket)}/o", params=query)
            page = _document(response, bucket)
            yield page
            if not page.get("nextPageToken"):
                return
            query["pageToken"] = page["nextPageToken"]
        raise StorageError(f"There are too many objects under {query['prefix']}.")

    def create(self, bucket: str, name: str, content: bytes) -> bool:
        """Create an object; return False, without overwriting, if it exists."""
        response = self._call(
            "POST",
            f"/upload/storage/v1/b/{_escape(bucket)}/o",
            params={"uploadType": "media", "name": name, "ifGenerationMatch": "0"},
            content=content,
            headers={"Content-Type": "application/json"},
        )
        # Without permission to overwrite, an existing object gives 403 instead of 412.
        if response.status_code == 412 or (response.status_code == 403 and self.find(bucket, name)):
            return False
        _document(response, bucket)
        return True

    def _call(self, method: str, path: str, **options: Any) -> httpx.Response:
        headers = options.pop("headers", {})
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token.get()}"
        try:
            return self._http.request(method, path, headers=headers, **options)
        except httpx.HTTPError as error:
            raise StorageError(f"Cloud Storage: {type(error).__name__}.") from error


def _document(response: httpx.Response, bucket: str) -> dict[str, Any]:
    if not response.is_success:
        fix = FIXES.get(response.status_code, "").format(bucket=bucket)
        raise StorageError(f"Cloud Storage responded {response.status_code}.", fix=fix)
    document: dict[str, Any] = response.json()
    return document


def _escape(name: str) -> str:
    return quote(name, safe="")
