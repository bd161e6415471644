"""Call a server with `tritonclient`: `python triton.py http|grpc ADDRESS` prints what it got.

The token and the rows are JSON on the standard input.
"""

import importlib
import json
import sys

import numpy as np


def main() -> None:
    protocol, address = sys.argv[1:]
    given = json.load(sys.stdin)
    model = given.get("model", "wine")
    matrix = np.array(given["rows"], dtype=np.float32)
    module = importlib.import_module(f"tritonclient.{protocol}")
    headers = {"authorization": f"Bearer {given['token']}", "idempotency-key": "triton"}
    client = module.InferenceServerClient(address)
    whole = module.InferInput("features", list(matrix.shape), "FP32")
    whole.set_data_from_numpy(matrix)
    outputs = [module.InferRequestedOutput(name) for name in ("predict", "predict_proba")]
    answer = client.infer(model, [whole], outputs=outputs, request_id="mine", headers=headers)
    by_default = client.infer(model, [whole], headers=headers)
    metadata = client.get_model_metadata(model, headers=headers)
    if protocol == "grpc":
        metadata = {"inputs": [{"name": each.name} for each in metadata.inputs]}
    columns = []
    for number in range(matrix.shape[1]):
        column = module.InferInput(given["columns"][number], [len(matrix), 1], "FP64")
        column.set_data_from_numpy(matrix[:, number : number + 1].astype(np.float64))
        columns.append(column)
    by_column = client.infer(model, columns, headers=headers)
    try:
        client.infer("wines", [whole], headers=headers)
        error = ""
    except Exception as raised:
        error = str(raised)
    found = {
        "live": client.is_server_live(),
        "ready": client.is_server_ready() and client.is_model_ready(model, headers=headers),
        "inputs": [each["name"] for each in metadata["inputs"]],
        "predictions": answer.as_numpy("predict").tolist(),
        "probabilities": answer.as_numpy("predict_proba").tolist(),
        "by_default": by_default.as_numpy("predict").tolist(),
        "by_column": by_column.as_numpy("predict").tolist(),
        "error": error,
    }
    json.dump(found, sys.stdout)


main()
