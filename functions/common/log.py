"""Log lines as Cloud Logging reads them: one JSON object a line, with a severity.

https://cloud.google.com/logging/docs/structured-logging
"""

import json
import sys
from typing import Literal

Severity = Literal["INFO", "WARNING", "ERROR"]


def log(severity: Severity, message: str, **fields: str | int) -> None:
    """Write one line; `fields` are searchable. Never give it a secret."""
    line = {"severity": severity, "message": message, **fields}
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()
