"""Log lines as Cloud Logging reads them: one JSON object a line, with a severity.

https://cloud.google.com/logging/docs/structured-logging
"""

import json
import sys
import traceback
from pathlib import Path
from typing import Literal

Severity = Literal["INFO", "WARNING", "ERROR"]


def log(severity: Severity, message: str, **fields: str | int) -> None:
    """Write one line; `fields` are searchable. Never give it a secret."""
    line = {"severity": severity, "message": message, **fields}
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def places(error: BaseException) -> str:
    """Where an error was raised: file and line of each frame, the innermost first."""
    frames = reversed(traceback.extract_tb(error.__traceback__))
    return " < ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames)
