"""Fixtures of the tests of what the services share."""

from pathlib import Path

import pytest

from tests.common.worlds import World, new_world


@pytest.fixture
def world(tmp_path: Path, store_url: str) -> World:
    """An empty store; runs a test once per kind."""
    return new_world(tmp_path, store_url)


@pytest.fixture
def folder_world(tmp_path: Path) -> World:
    """One in a folder, for what only a folder can do."""
    return new_world(tmp_path, f"file://{tmp_path}/models")


@pytest.fixture
def bucket_world(tmp_path: Path, bucket_url: str) -> World:
    """One in a bucket, for what only a bucket can do."""
    return new_world(tmp_path, f"{bucket_url}/models")
