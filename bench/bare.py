"""A bare ASGI app that serves the same model and does nothing else: the upper limit.

python -m bench.bare <model.onnx> <port>
"""

import sys
from typing import Any

import numpy as np
import onnxruntime
import orjson
import uvicorn

HEADERS = [(b"content-type", b"application/json")]


def new_app(model: str) -> Any:
    """Return the ASGI app; `model` is the path of an ONNX file with one input."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    name, label = session.get_inputs()[0].name, session.get_outputs()[0].name

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        rows = np.array(orjson.loads(body)["instances"], np.float32)
        predictions = session.run([label], {name: rows})[0].tolist()
        response = orjson.dumps({"predictions": predictions})
        headers = [*HEADERS, (b"content-length", b"%d" % len(response))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": response})

    return app


if __name__ == "__main__":
    uvicorn.run(
        new_app(sys.argv[1]),
        port=int(sys.argv[2]),
        loop="uvloop",
        http="httptools",
        lifespan="off",
        access_log=False,
        log_level="error",
    )
