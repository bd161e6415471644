"""Logs, metrics and traces of every service."""

from typing import TYPE_CHECKING

from services.common.settings import exit_with_error

if TYPE_CHECKING:
    from services.common.telemetry.tracing import Tracing


def open_tracing(service: str, *, endpoint: str | None) -> "Tracing | None":
    """Return the tracing of a service, or None; OpenTelemetry is only imported if needed.

    Args:
        endpoint: base URL of an OTLP/HTTP collector; None for no traces.

    Raises:
        SystemExit: the packages are not installed; one line on stderr says so.
    """
    if endpoint is None:
        return None
    try:
        from services.common.telemetry.tracing import Tracing
    except ImportError as error:
        exit_with_error(
            f"OTEL_EXPORTER_OTLP_ENDPOINT: install tollgate[otel] to send traces: {error}"
        )
    return Tracing(service, endpoint=endpoint)
