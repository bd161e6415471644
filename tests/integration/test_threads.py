"""No request waits for a thread that only reads a setting, in any service."""

import inspect
from collections.abc import Iterator
from pathlib import Path

from fastapi.dependencies.models import Dependant
from fastapi.routing import iter_route_contexts

from harness.every_service import create_every_app


def list_calls(dependant: Dependant) -> Iterator[object]:
    """Return what a route calls: its dependencies and its endpoint."""
    for each in dependant.dependencies:
        yield from list_calls(each)
    yield dependant.call


def runs_in_a_thread(call: object) -> bool:
    run = call if inspect.isroutine(call) else getattr(call, "__call__", call)  # noqa: B004
    return not (inspect.iscoroutinefunction(run) or inspect.isasyncgenfunction(run))


def test_no_route_runs_in_a_thread(tmp_path: Path) -> None:
    """FastAPI runs a plain function in a thread, which costs more than most of them do."""
    dependants = [
        dependant
        for app in create_every_app(tmp_path).values()
        for route in iter_route_contexts(app.routes)
        if (dependant := getattr(route, "dependant", None)) is not None
    ]

    threaded = {call for each in dependants for call in list_calls(each) if runs_in_a_thread(call)}

    assert len(dependants) > 150
    assert threaded == set()
