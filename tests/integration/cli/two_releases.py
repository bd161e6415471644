"""Two releases of a model, and a process that serves some of them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from typer.testing import Result

from harness.http_servers import Response, serving
from harness.stores import SignedStore
from tests.integration.trainer.conftest import Workshop

Run = Callable[..., Result]


def signed_store_of(workshop: Workshop) -> SignedStore:
    key = workshop.settings.load_signing_key()
    return SignedStore(workshop.home, workshop.settings.model_store_url, key, workshop.trusted)


def live(workshop: Workshop) -> tuple[int, str]:
    record = workshop.store.live_release("wine", workshop.trusted)
    assert record is not None
    return record.number, record.version


@contextmanager
def a_process_that_serves(*releases: int) -> Iterator[str]:
    """Serve metrics that show one release after the other, and then stay at the last."""
    left = list(releases)

    def answer(_: object) -> Response:
        number = left.pop(0) if len(left) > 1 else left[0]
        wine = f'tollgate_model_live_release{{model="wine",version="v"}} {number}.0\n'
        return Response(
            200, f'{wine}tollgate_model_live_release{{model="beer",version="v"}} 9.0\n'.encode()
        )

    with serving(answer) as url:
        yield url
