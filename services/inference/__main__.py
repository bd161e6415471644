"""Serve predictions: `python -m services.inference`."""

import gc
import os
import sys
from importlib.util import find_spec

gc.disable()  # while modules are imported, which leaves no garbage; `serve` enables it
# Read by gcsfs at import. Its probe of the Storage Control API hangs on emulators.
os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")

from registry.records import StoreError
from services.common.http.server import listen, serve
from services.common.settings import exit_with_error, prepare_folder
from services.common.telemetry import open_tracing
from services.common.telemetry.logs import configure_logging
from services.inference.app import create_app
from services.inference.memory import return_large_blocks
from services.inference.server import InferenceProtocol
from services.inference.settings import InferenceSettings

_SWITCH_INTERVAL_S = 0.001
"""How long the event loop waits for a thread that runs Python code, each time it needs the lock."""


def main() -> None:
    """Serve until SIGTERM, then finish the requests in progress and ship the journal."""
    return_large_blocks()
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    settings = InferenceSettings.load()
    configure_logging("inference", level=settings.log_level, style=settings.log_format)
    if settings.grpc_port is not None:
        _check_grpc(settings.host, settings.grpc_port)
    prepare_folder(settings.journal_dir, variable="INFERENCE_JOURNAL_DIR")
    prepare_folder(settings.cache_dir, variable="INFERENCE_CACHE_DIR")
    listener = listen(settings.host, settings.port, variable="INFERENCE_PORT")
    tracing = open_tracing("inference", endpoint=settings.otlp_endpoint)
    try:
        app = create_app(settings, tracing=tracing)
    except StoreError as error:
        exit_with_error(f"INFERENCE_TRUSTED_KEYS or INFERENCE_MODEL_STORE: {error}")
    serve(
        app,
        listener,
        trusted_proxies=settings.trusted_proxies,
        trusted_hosts=settings.trusted_hosts,
        loop="uvloop",
        protocol=InferenceProtocol,
    )


def _check_grpc(host: str, port: int) -> None:
    """Check that gRPC is installed and its port is free, before anything else starts.

    Raises:
        SystemExit: not so; one line says why.
    """
    if find_spec("grpc") is None:
        exit_with_error("INFERENCE_GRPC_PORT: install tollgate[grpc] to serve gRPC")
    listen(host, port, variable="INFERENCE_GRPC_PORT").close()


if __name__ == "__main__":
    main()
