"""Resolve and download every lock with one version of pip, as a new machine would.

python scripts/try_locks.py [PIP_VERSION]     default: the newest pip

The oldest supported pip is 22.3, which ships with Python 3.11.0.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

LOCKS = [*Path("requirements").glob("*.txt"), *Path("functions").glob("*/requirements.txt")]


def main() -> None:
    pip_version = f"=={sys.argv[1]}" if sys.argv[1:] else ""
    with tempfile.TemporaryDirectory(prefix="tollgate-locks-") as folder:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        pip = [f"{folder}/bin/python", "-m", "pip", "--disable-pip-version-check", "--no-input"]
        subprocess.run([*pip, "install", "--quiet", "--upgrade", f"pip{pip_version}"], check=True)
        print(subprocess.run([*pip, "--version"], capture_output=True, text=True).stdout.strip())
        failed = [str(lock) for lock in sorted(LOCKS) if not resolves(pip, lock)]
    if failed:
        sys.exit(f"error: cannot be installed: {', '.join(failed)}")


def resolves(pip: list[str], lock: Path) -> bool:
    command = [*pip, "install", "--quiet", "--dry-run", "--require-hashes", "-r", str(lock)]
    resolved = subprocess.run(command, stdout=subprocess.DEVNULL).returncode == 0
    print(f"{'ok' if resolved else 'FAILED':<8}{lock}", flush=True)
    return resolved


if __name__ == "__main__":
    main()
