"""Write log lines in Cloud Logging's format: one JSON object per line, with a severity.

https://cloud.google.com/logging/docs/structured-logging
"""

import json
import sys
import traceback
from pathlib import Path
from typing import Literal

Severity = Literal["INFO", "WARNING", "ERROR"]


def log(severity: Severity, message: str, **fields: str | int) -> None:
    """Write one line with searchable `fields`, which must not contain secrets."""
    line = {"severity": severity, "message": message, **fields}
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def places(error: BaseException) -> str:
    """Return the file and line of each frame of an error, innermost first."""
    frames = reversed(traceback.extract_tb(error.__traceback__))
    return " < ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames)
