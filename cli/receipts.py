"""`tollgate receipts`: verify signed receipts without a connection."""

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.options import AsJson
from cli.output import exit_with_error, print_json, print_table
from services.billing.receipts.keys import open_receipt_keys
from services.billing.receipts.verifying import InvalidReceipt, verify_receipt
from services.billing.settings import BillingSettings

Keys = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="The JWK set, saved from billing's /.well-known/jwks.json; default: the keys in "
        "BILLING_RECEIPT_KEYS.",
    ),
]
Input = Annotated[
    Path | None,
    typer.Option("--input", metavar="FILE", help="The request's body, to compare its digest."),
]


def verify(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A receipt, or one on each line.")],
    keys: Keys = None,
    body: Input = None,
    as_json: AsJson = False,
) -> None:
    """Verify the signatures of receipts and print what they state; exit with 1 if one is invalid.

    Nothing is sent anywhere.
    """
    jwks = _read_keys(keys)
    lines = _read(file).decode("ascii", "replace").split()
    if not lines:
        exit_with_error(f"{file} has no receipt")
    verified = []
    for number, line in enumerate(lines, start=1):
        try:
            verified.append(verify_receipt(line, jwks=jwks))
        except InvalidReceipt as error:
            exit_with_error(f"{file}:{number}: {error}")
    if body is not None:
        digest = hashlib.sha256(_read(body)).hexdigest()
        if any(claims.get("input_sha256") != digest for claims in verified):
            exit_with_error(f"{body} is not the input of the receipt")
    if as_json:
        print_json(verified)
        return
    for claims in verified:
        print_table(
            [(name, "-" if value is None else str(value)) for name, value in claims.items()]
        )


def _read_keys(file: Path | None) -> Any:
    """Return a JWK set from a file, or of the local keys."""
    if file is None:
        folder = BillingSettings.load().receipt_keys
        if not list(folder.glob("*.pem")):
            exit_with_error("there are no local keys; name a JWK set with --keys")
        try:
            return open_receipt_keys(folder).document
        except (OSError, ValueError) as error:
            exit_with_error(f"BILLING_RECEIPT_KEYS: {error}")
    try:
        return json.loads(_read(file))
    except ValueError:
        exit_with_error(f"{file} is not JSON")


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        exit_with_error(f"{file}: {error.strerror}")
