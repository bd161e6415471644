"""Fixtures shared with the functions' tests."""

from tests.functions.conftest import bundles, cloud

__all__ = ["bundles", "cloud"]
