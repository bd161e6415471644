"""Small learnable data sets with every kind of column and target."""

import random
from collections.abc import Callable
from typing import Any

HEADER = ("size", "sold", "colour", "void", "y")


def rows(answer: Callable[[float, bool, str], Any], *, count: int = 200, seed: int = 1) -> Any:
    """Returns rows of a number, a boolean, a text and an empty column, with 10 % of cells missing.

    The target is `answer(size, sold, colour)`, from the values before cells were removed.
    """
    chance = random.Random(seed)
    made = []
    for _ in range(count):
        size, sold = round(chance.uniform(0, 10), 3), chance.random() < 0.5
        colour = chance.choice(["red", "green", "blue"])
        cells = [size, str(sold).lower(), colour]
        shown = ["" if chance.random() < 0.1 else cell for cell in cells]
        made.append((*shown, "", answer(size, sold, colour)))
    return made


def text(size: float, sold: bool, colour: str) -> str:
    return "big" if size + 3 * (colour == "red") > 6 else "small"


def boolean(size: float, sold: bool, colour: str) -> str:
    return str(size + 3 * sold > 6)


def integer(size: float, sold: bool, colour: str) -> int:
    return int(size // 4) + 1


def value(size: float, sold: bool, colour: str) -> float:
    return 1000 * size + 500 * sold - 0.25
