"""A client of a Kubernetes API server, no more than the tests need."""

import ssl
import time
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from tests.deploy.chart import Manifest

_TIMEOUT_S = 30


class Api:
    """Creates, reads and deletes objects; kinds are looked up as the server lists them.

    Args:
        certificate: what vouches for the server.
        token: of whom it talks as.
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
        """Make an object.

        Raises:
            AssertionError: the server refuses it; its own words are the message.
        """
        folder = self._folder(manifest["apiVersion"], manifest["kind"], namespace)
        return self._told("POST", folder, json=manifest)

    def get(self, api_version: str, kind: str, name: str, *, namespace: str = "") -> Manifest:
        """One object, as it is now."""
        return self._told("GET", f"{self._folder(api_version, kind, namespace)}/{name}")

    def find(
        self, api_version: str, kind: str, *, namespace: str = "", labels: str = ""
    ) -> list[Manifest]:
        """All objects of a kind; `labels` is a selector."""
        folder = self._folder(api_version, kind, namespace)
        query = {"labelSelector": labels} if labels else {}
        items: list[Manifest] = self._told("GET", folder, params=query)["items"]
        return items

    def patch(
        self, api_version: str, kind: str, name: str, change: Manifest, *, namespace: str = ""
    ) -> Manifest:
        """Merge a change into an object (RFC 7386)."""
        path = f"{self._folder(api_version, kind, namespace)}/{name}"
        headers = {"Content-Type": "application/merge-patch+json"}
        return self._told("PATCH", path, json=change, headers=headers)

    def delete(
        self, api_version: str, kind: str, name: str, *, namespace: str = "", orphan: bool = False
    ) -> None:
        """End an object, and whatever it owns unless that is to stay."""
        path = f"{self._folder(api_version, kind, namespace)}/{name}"
        policy = "Orphan" if orphan else "Background"
        self._told("DELETE", path, params={"propagationPolicy": policy})

    def complaints(self, manifest: Manifest, *, namespace: str) -> list[str]:
        """What the server says against applying an object, unknown fields and warnings included.

        Nothing is changed by it.
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
        said = answer.headers.get_list("Warning")
        return said if answer.is_success else [*said, answer.text]

    def exists(self, api_version: str, kind: str, name: str, *, namespace: str = "") -> bool:
        path = f"{self._folder(api_version, kind, namespace)}/{name}"
        return self.client.get(path).is_success

    def serves(self, api_version: str, kind: str) -> bool:
        """Whether the server knows a kind; those of others come a moment after their CRD."""
        answer = self.client.get(_root(api_version))
        return answer.is_success and kind in {each["kind"] for each in answer.json()["resources"]}

    def _folder(self, api_version: str, kind: str, namespace: str) -> str:
        root = _root(api_version)
        resource = self._kinds(root)[kind]
        within = f"/namespaces/{namespace}" if resource["namespaced"] and namespace else ""
        return f"{root}{within}/{resource['name']}"

    def _list_kinds(self, root: str) -> dict[str, Any]:
        listed = self._told("GET", root)["resources"]
        return {each["kind"]: each for each in listed if "/" not in each["name"]}

    def _told(self, method: str, path: str, **options: Any) -> Manifest:
        """The answer to a call, made again while the server asks for that, as after its start."""
        for _ in range(_TIMEOUT_S):
            answer = self.client.request(method, path, **options)
            if answer.status_code != 429:
                break
            time.sleep(float(answer.headers["Retry-After"]))
        assert answer.is_success, answer.text
        told: Manifest = answer.json()
        return told


def _root(api_version: str) -> str:
    """The core group, and it alone, has a name without a slash."""
    return f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"
