"""The functions' own surroundings serve here too."""

from tests.functions.conftest import bundles, world

__all__ = ["bundles", "world"]
