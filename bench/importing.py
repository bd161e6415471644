"""Benchmark of `tollgate models import`: the time for a large model."""

import subprocess
import sys
import time
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
from sklearn.ensemble import RandomForestRegressor

from bench.figures import Figure

ROWS = 40_000
COLUMNS = 20
TREES = 14
MIN_SIZE = 50e6
TARGET_S = 20.0


def importing(home: Path) -> Figure:
    """Measure the import of a forest of at least 50 MB, from the command to the signed version.

    Args:
        home: an empty state folder.

    Raises:
        RuntimeError: the model is too small, or its import failed.
    """
    names = [f"c{i}" for i in range(COLUMNS)]
    cells = np.random.default_rng(1).normal(size=(ROWS, COLUMNS)).astype(np.float32).round(3)
    table = pd.DataFrame(cells, columns=names)
    values = table["c0"] * table["c1"] + table["c2"]
    data = home / "data/bench"
    data.mkdir(parents=True)
    table.assign(y=values).to_csv(data / "part.csv", index=False)
    path = home / "model.joblib"
    joblib.dump(RandomForestRegressor(TREES, random_state=1, n_jobs=-1).fit(table, values), path)
    if (size := path.stat().st_size) < MIN_SIZE:
        raise RuntimeError(f"the model has only {size / 1e6:.0f} MB")

    began = time.perf_counter()
    command = [sys.executable, "-m", "cli.main", "models", "import", "bench", str(path)]
    done = subprocess.run(
        [*command, "--target", "y", "--trust-pickle"],
        env={"TOLLGATE_HOME": str(home)},
        capture_output=True,
        text=True,
    )
    took_s = time.perf_counter() - began
    if done.returncode:
        raise RuntimeError(done.stderr)
    return Figure(
        name="import of a model",
        value=took_s,
        unit="s",
        at_most=TARGET_S,
        detail=f"{size / 1e6:.0f} MB of joblib, {TREES} trees, {ROWS:,} rows of data",
    )
