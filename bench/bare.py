"""A bare ASGI app that serves the same models and does nothing else: the upper limit.

python -m bench.bare <port> <name>=<model.onnx> …

It answers the requests of this benchmark in both protocols, with labels only, and checks nothing.
"""

import sys
from typing import Any

import numpy as np
import onnxruntime
import orjson
import uvicorn

HEADERS = [(b"content-type", b"application/json")]
JSON_LENGTH = b"inference-header-content-length"


def new_app(models: dict[str, str]) -> Any:
    """Return the ASGI app; `models` are paths of ONNX files with one input, by name."""
    routes = {}
    for name, path in models.items():
        routes[f"/v1/models/{name}:predict"] = _rows(_session(path))
        routes[f"/v2/models/{name}/infer"] = _tensors(_session(path))

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        response = routes[scope["path"]](body, scope["headers"])
        headers = [*HEADERS, (b"content-length", b"%d" % len(response))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": response})

    return app


def _session(path: str) -> Any:
    """Return a function from an array of rows to an array of labels."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name, label = session.get_inputs()[0].name, session.get_outputs()[0].name
    return lambda rows: session.run([label], {name: rows})[0]


def _rows(predict: Any) -> Any:
    """Answer the KServe v1 protocol."""

    def answer(body: bytes, headers: Any) -> bytes:
        rows = np.asarray(orjson.loads(body)["instances"], np.float32)
        return orjson.dumps({"predictions": predict(rows).tolist()})

    return answer


def _tensors(predict: Any) -> Any:
    """Answer the Open Inference Protocol v2 with one binary tensor of FP32."""

    def answer(body: bytes, headers: Any) -> bytes:
        size = int(next(value for name, value in headers if name == JSON_LENGTH))
        shape = orjson.loads(body[:size])["inputs"][0]["shape"]
        labels = predict(np.frombuffer(body, np.float32, offset=size).reshape(shape)).tolist()
        output = {"name": "predict", "datatype": "INT64", "shape": [len(labels)], "data": labels}
        return orjson.dumps({"model_name": "bare", "outputs": [output]})

    return answer


def main() -> None:
    """Serve until SIGTERM."""
    port, *models = sys.argv[1:]
    uvicorn.run(
        new_app(dict(model.split("=", 1) for model in models)),
        port=int(port),
        loop="uvloop",
        http="httptools",
        lifespan="off",
        access_log=False,
        log_level="error",
    )


if __name__ == "__main__":
    main()
