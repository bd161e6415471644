"""What can go wrong with an archive."""

from services.common.errors import ServiceError, Unavailable


class NotArchivable(ServiceError):
    """The month cannot be archived, or not yet; nothing was changed."""

    status = 409
    code = "not_archivable"
    detail = "The month cannot be archived."


class ArchiveBusy(NotArchivable):
    """Another process is archiving a month."""

    code = "archive_busy"
    detail = "Another process is archiving a month; wait until it is done."


class ArchiveDamaged(Unavailable):
    """A file of an archived month is missing or differs from what was recorded."""

    code = "archive_unavailable"

    def __init__(self, period: str, part: int, why: str) -> None:
        self.sentence = f"{period}, file {part}: {why}"
        super().__init__(
            f"The archive of {period} cannot be read: file {part} {why}.", retry_after_s=60
        )


class ArchiveUnreachable(Unavailable):
    """The folder or bucket of archives cannot be used."""

    code = "archive_unavailable"


class DuckDbNotInstalled(ServiceError):
    """The service is installed without what reads archives."""

    status = 501
    code = "duckdb_not_installed"
    detail = "This service is installed without DuckDB, which archived months need."
