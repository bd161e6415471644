"""`tollgate billing lineage`: from an invoice's lines to versions, manifests and training data."""

import asyncio
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from cli.billing.books import open_books
from cli.options import AsJson
from cli.output import counted, exit_with_error, print_error, print_json, print_table, printable
from cli.stores import failures_as_one_line, open_store
from registry.keys import TrustedKeys
from registry.records import Manifest, VersionNotFound, VersionRefused
from registry.store import ModelStore
from services.billing.archives.reading import Archives
from services.billing.archives.store import ArchiveStore
from services.billing.invoices.lineage import ByVersion, VersionUsage, trace
from services.billing.invoices.schemas import InvoiceRead, LineRead
from services.billing.invoices.shares import LineKey
from services.billing.settings import BillingSettings
from services.common.contracts import format_amount


def lineage(
    invoice: Annotated[str, typer.Argument(help="The invoice's id or number.")],
    line: Annotated[
        int | None, typer.Argument(min=0, help="One line, counted from 0; default: all.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show which versions answered what an invoice bills, and what each was trained on.

    For each version: its requests and their exact amount, the manifest's digest, whether a trusted
    key signed it, the commit of the training code, and each data object with its generation and
    digest. The exit code is 1 if the store lacks a version or its manifest is not valid.
    """
    read, by_version = asyncio.run(_trace(invoice))
    if line is not None and line >= len(read.lines):
        count = counted(len(read.lines), "line")
        exit_with_error(f"Invoice {read.number} has {count}, counted from 0; there is no {line}.")
    with failures_as_one_line():
        store, trusted = open_store(read_only=True)
        lines = [
            _line(store, trusted, number, each, by_version)
            for number, each in enumerate(read.lines)
            if line in (None, number)
        ]
    if as_json:
        head = {"invoice": read.id, "number": read.number, "account": read.account}
        print_json(head | {"period": read.period, "currency": read.currency, "lines": lines})
    else:
        typer.echo(f"{read.number}: account {read.account}, {read.period}")
        for each in lines:
            _print_line(each, currency=read.currency)
    problems = [v["problem"] for each in lines for v in each["versions"] if v["problem"]]
    for problem in dict.fromkeys(problems):
        print_error(problem)
    if problems:
        raise typer.Exit(1)


async def _trace(invoice: str) -> tuple[InvoiceRead, ByVersion]:
    """Read what was billed; exit with an error if that is refused or something is unavailable."""
    settings = BillingSettings.load()
    archives = Archives(ArchiveStore(settings.archive))
    async with open_books(settings, failure="the invoice could not be read") as database:
        return await trace(database, archives, invoice=invoice)


def _line(
    store: ModelStore, trusted: TrustedKeys, number: int, line: LineRead, by_version: ByVersion
) -> dict[str, Any]:
    """Describe a line; a monthly fee has no versions."""
    usage = {} if line.model is None else by_version.get(LineKey(line.model, line.price_id), {})
    return {
        "line": number,
        "kind": line.kind,
        "model": line.model,
        "requests": line.requests,
        "amount": line.amount,
        "versions": [
            _version(store, trusted, line.model or "", version, usage[version])
            for version in sorted(usage)
        ],
    }


def _version(
    store: ModelStore, trusted: TrustedKeys, model: str, version: str, usage: VersionUsage
) -> dict[str, Any]:
    """Describe a version: what it answered, and what the store knows of it.

    Raises:
        StoreError: the store cannot be used.
    """
    digest = manifest = problem = None
    signature = "missing"
    try:
        digest = store.manifest_sha256(model, version)
        manifest = store.open_version(model, version, trusted)
        signature = "valid"
    except VersionNotFound as error:
        problem = f"{error} It is no longer in the model store."
    except VersionRefused as error:
        problem = str(error)
        signature = "invalid" if error.reason == "signature" else "unknown"
    return {
        "version": version,
        "requests": usage.requests,
        "amount": format_amount(usage.amount),
        "manifest_sha256": digest,
        "signature": signature,
        "commit": _commit(manifest),
        "data": [each.model_dump() for each in manifest.data] if manifest else [],
        "problem": problem,
    }


def _commit(manifest: Manifest | None) -> str | None:
    """Return the commit of the training code, if the manifest records it."""
    return manifest.environment.get("commit") if manifest else None


def _print_line(line: dict[str, Any], *, currency: str) -> None:
    what = line["model"] or "monthly fee"
    requests = counted(line["requests"], "request")
    typer.echo(printable(f"line {line['line']}: {what}, {requests}, {line['amount']} {currency}"))
    for version in line["versions"]:
        requests = counted(version["requests"], "request")
        typer.echo(f"  version {version['version']}: {requests}, {version['amount']} {currency}")
        digest = version["manifest_sha256"] or "none"
        typer.echo(f"    manifest {digest}, signature {version['signature']}")
        typer.echo(printable(f"    commit {version['commit'] or 'not recorded'}"))
        print_table([["    data", *cells] for cells in _data(version["data"])])


def _data(objects: list[dict[str, Any]]) -> Iterator[tuple[str, str, str]]:
    for each in objects:
        generation = each["generation"]
        yield (
            each["name"],
            "no generation" if generation is None else f"generation {generation}",
            f"sha256 {each['sha256']}",
        )
