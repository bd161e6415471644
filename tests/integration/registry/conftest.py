"""Fixtures for the tests of the model registry."""

from pathlib import Path

import pytest

from harness.stores import World, new_world


@pytest.fixture
def world(tmp_path: Path, store_url: str) -> World:
    """An empty store; tests run once per kind."""
    return new_world(tmp_path, store_url)


@pytest.fixture
def folder_world(tmp_path: Path) -> World:
    """An empty store in a folder, for tests of folders only."""
    return new_world(tmp_path, f"file://{tmp_path}/models")


@pytest.fixture
def bucket_world(tmp_path: Path, bucket_url: str) -> World:
    """An empty store in a bucket, for tests of buckets only."""
    return new_world(tmp_path, f"{bucket_url}/models")
