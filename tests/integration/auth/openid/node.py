"""Node.js projects, which tests copy and run."""

import asyncio
import shutil
import subprocess
from pathlib import Path

from harness.programs import find_program


async def install(project: Path, folder: Path) -> str:
    """Copy a project to a new folder and install its packages there; return the path of `node`.

    Raises:
        NotInstalled: there is no Node.js here.
    """
    npm, node = find_program("npm"), find_program("node")
    shutil.copytree(project, folder)
    command = [npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
    await asyncio.to_thread(subprocess.run, command, cwd=folder, check=True, capture_output=True)
    return node
