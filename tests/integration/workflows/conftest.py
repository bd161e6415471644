"""Fixtures shared with the functions' tests."""

from tests.integration.functions.conftest import bundles, cloud

__all__ = ["bundles", "cloud"]
