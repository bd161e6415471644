"""Serve gRPC on a port of its own."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc

from services.inference.api.grpc.service import InferenceService

LAST_CALL_S = 0.5
"""How long a stopping server refuses calls before it closes its connections."""
GRACE_S = 5.0
"""How long a stopping server waits for calls in progress; HTTP's requests have ended by then."""
MAX_METADATA_BYTES = 64 * 1024
"""As for the headers of HTTP."""
CONNECTION_AGE_S = 600
"""Clients reconnect this often, so that new processes behind a load balancer get their share."""
IDLE_S = 300
HANDSHAKE_S = 30

_ONLY_UNCOMPRESSED = 1 << grpc.Compression.NoCompression.value
"""A bit per encoding. Untrusted input is never decompressed."""


@asynccontextmanager
async def serving(
    service: InferenceService, *, host: str, port: int, max_message_bytes: int, max_calls: int
) -> AsyncIterator[None]:
    """Serve until the block ends, then refuse new calls and finish those in progress.

    Args:
        max_calls: calls in progress; further ones get RESOURCE_EXHAUSTED.

    Raises:
        RuntimeError: the port is in use.
    """
    server = grpc.aio.server(
        maximum_concurrent_rpcs=max_calls,
        options=[
            ("grpc.max_receive_message_length", max_message_bytes),
            ("grpc.max_send_message_length", -1),
            ("grpc.max_metadata_size", MAX_METADATA_BYTES),
            ("grpc.absolute_max_metadata_size", MAX_METADATA_BYTES),
            ("grpc.compression_enabled_algorithms_bitset", _ONLY_UNCOMPRESSED),
            ("grpc.per_message_decompression", 0),
            ("grpc.max_connection_age_ms", CONNECTION_AGE_S * 1000),
            ("grpc.max_connection_idle_ms", IDLE_S * 1000),
            ("grpc.server_handshake_timeout_ms", HANDSHAKE_S * 1000),
            ("grpc.http2.bdp_probe", 0),  # so that a call whose message is not read buffers 64 KiB
            ("grpc.so_reuseport", 0),  # a second process must not take half of the calls
        ],
    )
    server.add_generic_rpc_handlers((service.handler(),))
    server.add_insecure_port(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
    await server.start()
    try:
        yield
    finally:
        # gRPC cancels the calls that it has received but not passed on, and clients do not repeat a
        # cancelled call. So refuse calls first: UNAVAILABLE makes clients turn to another process.
        service.stopping = True
        await asyncio.sleep(LAST_CALL_S)
        await server.stop(GRACE_S - LAST_CALL_S)
