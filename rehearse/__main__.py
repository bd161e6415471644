"""`python -m rehearse`: data is dropped and served; the next release is broken, and rolled back."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rehearse.run import Failed, rehearse
from tests.functions.conftest import new_world
from tests.gcs import NoEmulator, running_emulator


def main() -> int:
    """Exit code 1 if the loop does not do what it should."""
    began = time.monotonic()

    def say(line: str) -> None:
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
                rehearse(world, emulator, folder, say=say)
    except (Failed, NoEmulator, AssertionError) as error:
        say(f"error: {error}")
        return 1
    say("the loop does what it should")
    return 0


if __name__ == "__main__":
    sys.exit(main())
