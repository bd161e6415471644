"""`/exports/usage`: a month's events as a file."""

from enum import StrEnum
from importlib.util import find_spec

from fastapi.responses import StreamingResponse

from services.billing.archives.reading import AppArchives
from services.billing.callers import Account
from services.billing.fields import PeriodId
from services.billing.invoices.router import AppBooks
from services.billing.usage.export_formats import CsvWriter, ExportFormat, FocusWriter
from services.billing.usage.exports import stream_usage
from services.common.db.database import AppDatabase
from services.common.errors import (
    BodyInvalid,
    InsufficientScope,
    ServiceError,
    Unauthenticated,
    Unavailable,
    error_responses,
)
from services.common.http.routing import new_router

router = new_router(prefix="/exports", tag="usage")

_PARQUET = "application/vnd.apache.parquet"


class FileFormat(StrEnum):
    """What a file of usage is written as."""

    CSV = "csv"
    PARQUET = "parquet"
    FOCUS = "focus"


class ParquetNotInstalled(ServiceError):
    """The service is installed without what writes Parquet."""

    status = 501
    code = "parquet_not_installed"
    detail = "This service is installed without Parquet; use `format=csv`."


@router.get(
    "/usage",
    response_class=StreamingResponse,
    responses=error_responses(
        Unauthenticated, InsufficientScope, BodyInvalid, ParquetNotInstalled, Unavailable
    )
    | {200: {"content": {"text/csv": {}, _PARQUET: {}}, "description": "The file."}},
)
async def export_usage(
    account: Account,
    database: AppDatabase,
    archives: AppArchives,
    books: AppBooks,
    period: PeriodId,
    format: FileFormat = FileFormat.CSV,
) -> StreamingResponse:
    """Download every event of an account that is billed in a month, oldest first.

    `csv` and `parquet` have one row for each event; `focus` is CSV by FOCUS 1.2. In CSV, text that
    a spreadsheet would take for a formula begins with an apostrophe.
    """
    writer = _new_writer(format)
    await archives.check(database, account=account, period=period)
    lines = stream_usage(
        database,
        archives,
        account=account,
        period=period,
        file_format=writer,
        seller=books.seller.name,
    )
    is_parquet = format is FileFormat.PARQUET
    name = {"csv": "usage", "parquet": "usage", "focus": "focus"}[format]
    ending = "parquet" if is_parquet else "csv"
    return StreamingResponse(
        lines,
        media_type=_PARQUET if is_parquet else "text/csv",
        headers={"Content-Disposition": f'attachment; filename="{name}-{period}.{ending}"'},
    )


def _new_writer(file_format: FileFormat) -> ExportFormat:
    """Return what writes a format.

    Raises:
        ParquetNotInstalled: pyarrow is missing.
    """
    if file_format is FileFormat.CSV:
        return CsvWriter
    if file_format is FileFormat.FOCUS:
        return FocusWriter
    if find_spec("pyarrow") is None:
        raise ParquetNotInstalled()
    from services.billing.usage.parquet import ParquetWriter  # large, and rarely used

    return ParquetWriter
