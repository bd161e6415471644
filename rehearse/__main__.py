"""`python -m rehearse`: train and serve a data drop, then roll back a broken release."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from harness.gcs import NoEmulator, running_emulator
from rehearse.run import Failed, rehearse
from tests.functions.conftest import new_world


def main() -> int:
    """Run the rehearsal; return exit code 1 if it fails."""
    began = time.monotonic()

    def report(line: str) -> None:
        sys.stdout.write(f"{time.monotonic() - began:6.1f} s  {line}\n")
        sys.stdout.flush()

    try:
        with tempfile.TemporaryDirectory(prefix="tollgate-rehearsal-") as made:
            folder = Path(made)
            build = [sys.executable, "scripts/functions_build.py", str(folder / "functions")]
            subprocess.run(build, check=True, stdout=subprocess.DEVNULL)  # noqa: S603
            with (
                running_emulator() as emulator,
                new_world(emulator, folder, folder / "functions") as world,
            ):
                os.environ["STORAGE_EMULATOR_HOST"] = emulator.url
                rehearse(world, emulator, folder, report=report)
    except (Failed, NoEmulator, AssertionError) as error:
        report(f"error: {error}")
        return 1
    report("rehearsal passed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
