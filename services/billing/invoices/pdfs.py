"""PDFs on request: made one at a time, since each takes a core for a while, and then kept."""

import asyncio
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from hashlib import blake2b

from services.billing.invoices.schemas import InvoiceRead
from services.common.errors import Unavailable

WAITING_MAX = 20
"""PDFs that are being made or wait for it."""
KEPT_BYTES = 32 * 1024 * 1024


class InvoicePdfs:
    """Owns the thread that makes PDFs, and those it made last: an invoice never changes."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="pdf")
        self._making: dict[bytes, asyncio.Future[bytes]] = {}
        self._made: OrderedDict[bytes, bytes] = OrderedDict()
        """The one that was wanted last is at the end."""

    async def get(self, invoice: InvoiceRead) -> bytes:
        """Return an invoice as PDF.

        Raises:
            Unavailable: too many others wait for theirs.
        """
        key = blake2b(invoice.model_dump_json().encode(), digest_size=16).digest()
        if key in self._made:
            self._made.move_to_end(key)
            return self._made[key]
        # Shielded: the PDF is made and kept even if this caller disconnects.
        return await asyncio.shield(self._making.get(key) or self._begin(key, invoice))

    def _begin(self, key: bytes, invoice: InvoiceRead) -> asyncio.Future[bytes]:
        if len(self._making) >= WAITING_MAX:
            raise Unavailable("Too many PDFs are being made; retry in 5 s.", retry_after_s=5)
        future = asyncio.get_running_loop().run_in_executor(self._thread, _make, invoice)
        self._making[key] = future
        future.add_done_callback(partial(self._finish, key))
        return future

    def _finish(self, key: bytes, future: asyncio.Future[bytes]) -> None:
        del self._making[key]
        if not future.cancelled() and future.exception() is None:
            self._made[key] = future.result()
            while sum(map(len, self._made.values())) > KEPT_BYTES:
                self._made.popitem(last=False)

    def close(self) -> None:
        """Stop after the PDF that is being made."""
        self._thread.shutdown(wait=False, cancel_futures=True)


def _make(invoice: InvoiceRead) -> bytes:
    from services.billing.invoices.pdf import as_pdf  # it takes half a second to import

    return as_pdf(invoice)
