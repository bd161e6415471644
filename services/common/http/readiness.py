"""Check whether a service on this machine is ready, using its `/readyz`.

    python -m services.common.http.readiness <port>

Exits with 0 if the service is ready, otherwise with 1 and the failing checks on one line. This is
the health check of the container images. It imports only the standard library because it runs
every few seconds.
"""

import http.client
import json
import sys


def failing(port: int) -> str | None:
    """Return why the service on `port` is not ready, or None if it is."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=4)
    try:
        connection.request("GET", "/readyz")
        response = connection.getresponse()
        body = response.read()
        return None if response.status == 200 else "; ".join(json.loads(body)["failing"].values())
    except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
        return str(error)
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(failing(int(sys.argv[1])))
