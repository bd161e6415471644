"""A minimal client of a Kubernetes API server for the tests."""

import ssl
import time
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from tests.integration.deploy.chart import Manifest

_TIMEOUT_S = 30


class Api:
    """Creates, reads and deletes objects; looks kinds up in the server's own list.

    Args:
        certificate: the server's CA certificate.
        token: the token to authenticate with.
    """

    def __init__(self, url: str, certificate: Path, *, token: str) -> None:
        self.client = httpx.Client(
            base_url=url,
            verify=ssl.create_default_context(cafile=str(certificate)),
            headers={"Authorization": f"Bearer {token}"},
            trust_env=False,
            timeout=_TIMEOUT_S,
        )
        self._kinds = cache(self._list_kinds)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.client.close()

    def create(self, manifest: Manifest, *, namespace: str = "") -> Manifest:
        """Create an object.

        Raises:
            AssertionError: the server refuses it; the message is the server's.
        """
        folder = self._folder(manifest["apiVersion"], manifest["kind"], namespace)
        return self._call("POST", folder, json=manifest)

    def get(self, api_version: str, kind: str, name: str, *, namespace: str = "") -> Manifest:
        """Return one object."""
        return self._call("GET", f"{self._folder(api_version, kind, namespace)}/{name}")

    def find(
        self, api_version: str, kind: str, *, namespace: str = "", labels: str = ""
    ) -> list[Manifest]:
        """Return all objects of a kind; `labels` is a selector."""
        folder = self._folder(api_version, kind, namespace)
        query = {"labelSelector": labels} if labels else {}
        items: list[Manifest] = self._call("GET", folder, params=query)["items"]
        return items

    def patch(
        self,
        api_version: str,
        kind: str,
        name: str,
        change: Manifest,
        *,
        namespace: str = "",
        part: str = "",
    ) -> Manifest:
        """Merge a change into an object, or into its part `status` (RFC 7386)."""
        path = f"{self._folder(api_version, kind, namespace)}/{name}/{part}".rstrip("/")
        headers = {"Content-Type": "application/merge-patch+json"}
        return self._call("PATCH", path, json=change, headers=headers)

    def delete(
        self, api_version: str, kind: str, name: str, *, namespace: str = "", orphan: bool = False
    ) -> None:
        """Delete an object, and everything it owns unless `orphan` is set."""
        path = f"{self._folder(api_version, kind, namespace)}/{name}"
        policy = "Orphan" if orphan else "Background"
        self._call("DELETE", path, params={"propagationPolicy": policy})

    def complaints(self, manifest: Manifest, *, namespace: str) -> list[str]:
        """Return the server's objections to an object, unknown fields and warnings included.

        This is a dry run.
        """
        folder = self._folder(manifest["apiVersion"], manifest["kind"], namespace)
        answer = self.client.patch(
            f"{folder}/{manifest['metadata']['name']}",
            params={
                "fieldManager": "strict",
                "fieldValidation": "Strict",
                "force": "true",
                "dryRun": "All",
            },
            headers={"Content-Type": "application/apply-patch+yaml"},
            json=manifest,
        )
        warnings = answer.headers.get_list("Warning")
        return warnings if answer.is_success else [*warnings, answer.text]

    def exists(self, api_version: str, kind: str, name: str, *, namespace: str = "") -> bool:
        path = f"{self._folder(api_version, kind, namespace)}/{name}"
        return self.client.get(path).is_success

    def serves(self, api_version: str, kind: str) -> bool:
        """Return whether the server has a kind; custom kinds appear shortly after their CRD."""
        answer = self.client.get(_root(api_version))
        return answer.is_success and kind in {each["kind"] for each in answer.json()["resources"]}

    def _folder(self, api_version: str, kind: str, namespace: str) -> str:
        root = _root(api_version)
        resource = self._kinds(root)[kind]
        within = f"/namespaces/{namespace}" if resource["namespaced"] and namespace else ""
        return f"{root}{within}/{resource['name']}"

    def _list_kinds(self, root: str) -> dict[str, Any]:
        resources = self._call("GET", root)["resources"]
        return {each["kind"]: each for each in resources if "/" not in each["name"]}

    def _call(self, method: str, path: str, **options: Any) -> Manifest:
        """Return the response to a call; after a start, the server may ask to repeat it."""
        for _ in range(_TIMEOUT_S):
            answer = self._send(method, path, **options)
            if answer.status_code != 429:
                break
            time.sleep(float(answer.headers["Retry-After"]))
        assert answer.is_success, answer.text
        content: Manifest = answer.json()
        return content

    def _send(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Send a call; read again if the server closed the idle connection at that moment."""
        try:
            return self.client.request(method, path, **options)
        except httpx.RemoteProtocolError:
            if method != "GET":
                raise
            return self.client.request(method, path, **options)


def _root(api_version: str) -> str:
    """Only the core group has a name without a slash."""
    return f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"
