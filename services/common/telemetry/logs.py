"""Log to stderr: JSON for machines, or aligned and coloured text for a terminal."""

import json
import logging
import os
import sys
from collections.abc import MutableMapping
from contextlib import suppress
from typing import Any

import structlog
from structlog.dev import Column, ConsoleRenderer, KeyValueColumnFormatter

from services.common.settings import LogFormat

MAX_LOGGED_CHARS = 1_000

_BRIGHT, _DIM, _BLUE, _RESET = "\x1b[1m", "\x1b[2m", "\x1b[34m", "\x1b[0m"
_LEVELS = {
    "critical": "\x1b[31m",
    "exception": "\x1b[31m",
    "error": "\x1b[31m",
    "warning": "\x1b[33m",
    "info": "\x1b[32m",
    "debug": "\x1b[32m",
}

_SHORT = (type(None), int, float)
"""Types of values that need no limit."""

Event = MutableMapping[str, Any]


def configure_logging(service: str, *, level: str = "INFO", style: LogFormat = "json") -> None:
    """Send every log record of the process to stderr, one line each.

    Both styles escape control characters, so that client input cannot forge a line or control the
    terminal. Long values are truncated.
    """

    def name_service(_: Any, __: str, event: Event) -> Event:
        event["service"] = service
        return event

    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        name_service,
    ]
    rendering = [structlog.processors.format_exc_info, _clip_values, *_renderers(style)]
    # The services' own events are written at once: a detour through the standard library's
    # logging, which the libraries use, takes twice as long.
    structlog.configure(
        processors=[*shared, *rendering],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_: _StderrLogger(),
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for library in ("httpx", "httpcore", "uvicorn.access", "alembic", "aiosqlite"):
        logging.getLogger(library).setLevel(logging.WARNING)
    # The phases of a start and of a stop; at a terminal, `tollgate up` reports them.
    logging.getLogger("uvicorn.error").setLevel("WARNING" if style == "text" else level)


class _StderrLogger:
    """Writes lines to stderr; one that cannot be written, as on a full disk, is lost.

    Logging must never make a request fail.
    """

    def msg(self, line: str) -> None:
        with suppress(OSError, ValueError):
            sys.stderr.write(f"{line}\n")
            sys.stderr.flush()

    debug = info = warning = warn = error = critical = exception = fatal = msg


def _renderers(style: LogFormat) -> list[Any]:
    if style == "json":
        return [structlog.processors.JSONRenderer()]
    coloured = sys.stderr.isatty() and "NO_COLOR" not in os.environ
    return [_shorten, _text_renderer(coloured=coloured)]


def _shorten(_: Any, __: str, event: Event) -> Event:
    """Shorten the timestamp to hours, minutes and seconds (UTC), and escape exception texts."""
    event["timestamp"] = event["timestamp"][11:19]
    if "exception" in event:
        event["exception"] = "\n".join(map(_printable, event["exception"].splitlines()))
    return event


def _text_renderer(*, coloured: bool) -> ConsoleRenderer:
    """Return a renderer of lines like `12:00:00 billing   info     event  name=value …`."""

    def code(style: str) -> str:
        return style if coloured else ""

    def column(style: str, width: int = 0) -> KeyValueColumnFormatter:
        return KeyValueColumnFormatter(None, code(style), code(_RESET), _printable, width=width)

    def level(key: str, value: object) -> str:
        return f"{code(_LEVELS.get(str(value), ''))}{value:<8}{code(_RESET)}"

    rest = KeyValueColumnFormatter(code(_DIM), "", code(_RESET), _printable)
    return ConsoleRenderer(
        sort_keys=False,
        columns=[
            Column("timestamp", column(_DIM)),
            Column("service", column(_BLUE, width=9)),
            Column("level", level),
            Column("event", column(_BRIGHT, width=24)),
            Column("", rest),
        ],
    )


def _printable(value: object) -> str:
    """Return a value as text, quoted and escaped if it contains unprintable characters."""
    text = str(value)
    return text if text.isprintable() else json.dumps(text)


def _clip_values(_: Any, __: str, event: Event) -> Event:
    return {key: value if key == "exception" else _clip(value) for key, value in event.items()}


def _clip(value: Any) -> Any:
    if isinstance(value, _SHORT):
        return value
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= MAX_LOGGED_CHARS else f"{text[:MAX_LOGGED_CHARS]}…"
