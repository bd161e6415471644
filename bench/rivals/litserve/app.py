"""LitServe: an API on the CPU with one worker, with batching or without."""

import estimator
import litserve


class Measured(litserve.LitAPI):
    """The model."""

    def setup(self, device):
        """Load the model in the worker."""
        self._predict = estimator.load()

    def decode_request(self, request):
        """Return the row of `{"row": […]}`."""
        return request["row"]

    def predict(self, x):
        """Predict one row, or with batching a list of rows."""
        return self._predict(x if estimator.BATCHING else [x])

    def unbatch(self, output):
        """Return one label per request."""
        return [[label] for label in output]

    def encode_response(self, output):
        """Return `{"predictions": […]}`."""
        return {"predictions": [int(label) for label in output]}


if __name__ == "__main__":
    batching = {"max_batch_size": 32, "batch_timeout": 0.005} if estimator.BATCHING else {}
    server = litserve.LitServer(Measured(**batching), accelerator="cpu", workers_per_device=1)
    server.run(
        host="127.0.0.1",
        port=estimator.PORT,
        num_api_servers=1,
        generate_client_file=False,
        log_level="error",
        access_log=False,
    )
