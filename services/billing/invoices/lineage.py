"""Which versions answered what an invoice bills: the requests and amount of each, by line."""

from collections import defaultdict
from collections.abc import Mapping
from typing import NamedTuple

from services.billing.archives.reading import NO_ARCHIVES, Archives, Wanted, list_files
from services.billing.invoices import billed, repository
from services.billing.invoices.schemas import InvoiceRead
from services.billing.invoices.service import InvoiceNotFound, get_invoice
from services.billing.invoices.shares import LineKey
from services.common.db.database import Database


class VersionUsage(NamedTuple):
    """What a version answered on a line; the amount is in 10⁻⁹ of the unit."""

    requests: int = 0
    amount: int = 0


ByVersion = Mapping[LineKey, Mapping[str, VersionUsage]]


async def trace(
    database: Database, archives: Archives = NO_ARCHIVES, *, invoice: str
) -> tuple[InvoiceRead, ByVersion]:
    """Return an invoice, given its id or number, and what each version answered on its lines.

    Raises:
        InvoiceNotFound: there is no such invoice, or several have that number.
        ServiceError: the files of its archived month cannot be read.
    """
    found: defaultdict[LineKey, dict[str, VersionUsage]] = defaultdict(dict)

    def add(key: LineKey, version: str, requests: int, amount: int) -> None:
        before = found[key].get(version, VersionUsage())
        found[key][version] = VersionUsage(before.requests + requests, before.amount + amount)

    async with database.snapshot() as session:
        ids = [invoice]
        if invoice.isascii():
            ids = await repository.find_ids(session, number=invoice) or ids
        if len(ids) > 1:
            raise InvoiceNotFound("Several invoices have this number; give the id of one.")
        read = await get_invoice(session, account=None, invoice_id=ids[0])
        of_account = await billed.find_billed(session, account=read.account, period=read.period)
        parts = await list_files(session, period=read.period, account=read.account)
    if not parts:
        for usage in of_account:
            key = LineKey(usage.model, usage.price_id)
            add(key, usage.version, usage.requests, usage.amount)
        return read, found
    # All events of an archived month are in its files; the database may still have some.
    async for page in archives.stream_each(parts, Wanted(account=read.account)):
        for event in page:
            add(LineKey(event.model, event.price_id), event.version, 1, event.amount)
    return read, found
