"""The control plane shared by the tests of this folder."""

from collections.abc import Iterator

import pytest

from tests.e2e.cluster.control_plane import Cluster, running_cluster


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A control plane with nodes, volumes and third-party kinds."""
    with running_cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster
