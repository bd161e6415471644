"""The functions' own surroundings serve here too."""

from tests.functions.conftest import bundles, emulator, world

__all__ = ["bundles", "emulator", "world"]
