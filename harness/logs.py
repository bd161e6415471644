"""Log as a service does, inside a test."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from services.common.telemetry.logs import configure_logging


@contextmanager
def logging_as(service: str) -> Iterator[None]:
    """Send the log of the block to stderr, as a service does."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    configure_logging(service)
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        structlog.reset_defaults()
