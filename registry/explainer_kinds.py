"""How a version is explained, as its manifest states it."""

from typing import Literal

ExplainerKind = Literal["linear", "trees", "sampled"]
"""Exactly, by the coefficients or the trees; or by sampling."""
