"""Shares the fixtures of the functions' tests."""

from tests.functions.conftest import bundles, world

__all__ = ["bundles", "world"]
