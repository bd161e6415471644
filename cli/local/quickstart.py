"""The welcome text of `tollgate up`, once the services are ready."""

import json
from collections.abc import Mapping
from pathlib import Path

WINE = [14.23, 1.71, 2.43, 15.6, 127, 2.8, 3.06, 0.28, 2.29, 5.64, 1.04, 3.92, 1065]
"""A row of the sample data, in signature order; its class is 0."""

# Each paste registers a new user, so it can be repeated. Usage shows up within two seconds.
_QUICKSTART = """\
EMAIL="me-$(date +%s)@example.com" PASSWORD="$(od -An -N12 -tx1 /dev/urandom | tr -d ' ')"
curl -sS -w '\\n' {auth}/register -H 'Content-Type: application/json' \\
  -d "{{\\"email\\": \\"$EMAIL\\", \\"password\\": \\"$PASSWORD\\"}}"
TOKEN=$(curl -sS {auth}/token -d grant_type=password -d "username=$EMAIL" \\
  -d "password=$PASSWORD" | sed 's/.*"access_token": *"\\([^"]*\\)".*/\\1/')
curl -sS -w '\\n' {inference}/v1/models/wine:predict -H "Authorization: Bearer $TOKEN" \\
  -H 'Content-Type: application/json' -d '{body}'
sleep 2
curl -sS -w '\\n' {billing}/usage -H "Authorization: Bearer $TOKEN"
"""


def table(urls: Mapping[str, str], *, credentials: Path, seconds: float) -> str:
    """Return a table of the services' URLs, and where to find the credentials.

    Args:
        urls: by service; the console comes first.
        seconds: how long the start took.
    """
    names = sorted(urls, key=lambda name: name != "console")
    rows = [
        ("service", "URL", "docs"),
        *((name, urls[name], "" if name == "console" else f"{urls[name]}/docs") for name in names),
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
    return "\n".join(
        [
            "",
            f"  Ready in {seconds:.1f} s. Ctrl-C stops everything.",
            "",
            *(f"  {line}" for line in lines),
            "",
            f"  Credentials: {credentials}",
            "",
            "  Try it: register, get a token, predict, and see the cost.",
            "",
        ]
    )


def quickstart(urls: Mapping[str, str]) -> str:
    """Return a shell script that registers, predicts, and shows the charge."""
    return _QUICKSTART.format_map({**urls, "body": json.dumps({"instances": [WINE]})})
