"""What HTTP clients of tests have in common."""

import ssl

PLAIN = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""The `verify` of a client that speaks only HTTP; the default loads all CAs, which takes 0.05 s."""
