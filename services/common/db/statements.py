"""Trace SQL: one span for each statement of a traced request, without its values."""

import re
from typing import TYPE_CHECKING, Any

from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine, ExceptionContext

if TYPE_CHECKING:
    from services.common.telemetry.tracing import Tracing

MAX_TEXT_CHARS = 2_000

_TABLE = re.compile(r"\b(?:FROM|INTO|UPDATE)\s+[`\"]?(\w+)")
_SPAN = "tollgate_span"


def trace_statements(engine: Engine, tracing: "Tracing") -> None:
    """Create a span for each statement that an engine executes within a traced request.

    Compiled statements are recorded with placeholders. For textual statements only the verb and
    the table are recorded, because billing's bulk inserts contain values.
    """

    def begin(
        connection: Connection, _cursor: Any, statement: str, _values: Any, execution: Any, _: bool
    ) -> None:
        if not tracing.is_recording:
            return
        verb = statement.split(None, 1)[0].upper()
        table = _TABLE.search(statement)
        summary = f"{verb} {table[1]}" if table else verb
        attributes = {"db.system.name": engine.dialect.name, "db.query.summary": summary}
        if execution.compiled is not None:
            attributes["db.query.text"] = execution.compiled.string[:MAX_TEXT_CHARS]
        connection.info[_SPAN] = tracing.call(summary, attributes)

    def end(connection: Connection, *_: Any) -> None:
        if span := connection.info.pop(_SPAN, None):
            span.end()

    def fail(failure: ExceptionContext) -> None:
        connection = failure.connection
        if connection is not None and (span := connection.info.pop(_SPAN, None)):
            tracing.fail(span, failure.original_exception)
            span.end()

    event.listen(engine, "before_cursor_execute", begin)
    event.listen(engine, "after_cursor_execute", end)
    event.listen(engine, "handle_error", fail)
