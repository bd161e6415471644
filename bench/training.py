"""Benchmark of training: its memory relative to the size of its data."""

import subprocess
import sys
from pathlib import Path

import numpy as np

from bench.figures import Figure

ROWS = 800_000
COLUMNS = 20
TARGET = 4.0
PROGRAM = """
import sys
from pathlib import Path
from trainer.settings import TrainerSettings
from trainer.pipeline import train

def memory(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))

before = memory("VmRSS")
train(TrainerSettings(home=Path(sys.argv[1])), "bench", target="y")
sys.stdout.write(f"{memory('VmHWM') - before}")
"""


def training(home: Path) -> Figure:
    """Measure a training's peak memory without that of its libraries, relative to its data.

    Args:
        home: an empty state folder.
    """
    part = home / "data/bench/part.csv"
    part.parent.mkdir(parents=True)
    cells = np.random.default_rng(1).normal(size=(ROWS, COLUMNS)).astype(np.float32)
    labels = cells[:, 0] + cells[:, 1] ** 2 > 1
    with part.open("w") as file:
        file.write(",".join([*(f"c{i}" for i in range(COLUMNS)), "y"]) + "\n")
        row = "%.3f," * COLUMNS + "%d\n"
        file.writelines(
            row % (*values, label)
            for values, label in zip(cells.tolist(), labels.tolist(), strict=True)
        )
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(home)], check=True, capture_output=True, text=True
    )
    size = part.stat().st_size
    return Figure(
        name="memory of a training ÷ its data",
        value=int(result.stdout) / size,
        unit="×",
        at_most=TARGET,
        detail=f"{size / 1e6:.0f} MB of CSV, {ROWS:,} rows",
    )
