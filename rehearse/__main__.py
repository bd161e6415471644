"""Run the rehearsal with `python -m rehearse`.

Data is dropped into a bucket, trained on and served; then a broken release is rolled back. It takes
about two minutes.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

from harness.cloud import build_functions, new_cloud
from harness.gcs import running_emulator
from harness.programs import NotInstalled
from rehearse.run import Failed, rehearse


def main() -> int:
    """Run the rehearsal; return exit code 1 if it fails."""
    argparse.ArgumentParser(
        prog="python -m rehearse",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ).parse_args()
    started = time.monotonic()

    def report(line: str) -> None:
        sys.stdout.write(f"{time.monotonic() - started:6.1f} s  {line}\n")
        sys.stdout.flush()

    try:
        with tempfile.TemporaryDirectory(prefix="tollgate-rehearsal-") as path:
            folder = Path(path)
            bundles = build_functions(folder / "functions")
            with running_emulator() as emulator, new_cloud(emulator, folder, bundles) as cloud:
                os.environ["STORAGE_EMULATOR_HOST"] = emulator.url
                rehearse(cloud, emulator, folder, report=report)
    except (Failed, NotInstalled, AssertionError) as error:
        report(f"error: {error}")
        return 1
    report("rehearsal passed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
