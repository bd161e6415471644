"""Whether a service on this machine is ready, as its own `/readyz` says it.

    python -m services.common.readiness <port>

Exit code 0 if it is; else 1, and one line says what is not. The images' health check: it imports
nothing but the standard library, as it runs every few seconds.
"""

import http.client
import json
import sys


def failing(port: int) -> str | None:
    """Why the service on `port` is not ready; None when it is."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=4)
    try:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        body = answer.read()
        return None if answer.status == 200 else "; ".join(json.loads(body)["failing"].values())
    except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
        return str(error)
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(failing(int(sys.argv[1])))
