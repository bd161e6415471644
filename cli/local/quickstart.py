"""The welcome text of `tollgate up`, once the services are ready."""

import json
from pathlib import Path

WINE = [14.23, 1.71, 2.43, 15.6, 127, 2.8, 3.06, 0.28, 2.29, 5.64, 1.04, 3.92, 1065]
"""A row of the sample data, in signature order; its class is 0."""

_TABLE = """\

  console    {console}

  service    URL                            docs
  auth       {auth:<30} {auth}/docs
  inference  {inference:<30} {inference}/docs
  billing    {billing:<30} {billing}/docs

  Credentials: {credentials}

  Try it: register, get a token, predict, and see the cost.
"""

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


def table(*, console: str, auth: str, inference: str, billing: str, credentials: Path) -> str:
    """Return a table of the services' URLs."""
    return _TABLE.format(
        console=console, auth=auth, inference=inference, billing=billing, credentials=credentials
    )


def quickstart(*, auth: str, inference: str, billing: str) -> str:
    """Return a shell script that registers, predicts, and shows the charge."""
    body = json.dumps({"instances": [WINE]})
    return _QUICKSTART.format(auth=auth, inference=inference, billing=billing, body=body)
