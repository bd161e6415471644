"""Fixtures for the tests of the model registry."""

from pathlib import Path

import pytest

from harness.stores import SignedStore, new_signed_store


@pytest.fixture
def signed_store(tmp_path: Path, store_url: str) -> SignedStore:
    """An empty store; tests run once per kind."""
    return new_signed_store(tmp_path, store_url)


@pytest.fixture
def folder_store(tmp_path: Path) -> SignedStore:
    """An empty store in a folder, for tests of folders only."""
    return new_signed_store(tmp_path, f"file://{tmp_path}/models")


@pytest.fixture
def bucket_store(tmp_path: Path, bucket_url: str) -> SignedStore:
    """An empty store in a bucket, for tests of buckets only."""
    return new_signed_store(tmp_path, f"{bucket_url}/models")
