"""KServe: its `ModelServer` with a custom model, because its scikit-learn one is unpackaged."""

import estimator
import kserve


class Measured(kserve.Model):
    """The model, under the name of its route."""

    def __init__(self) -> None:
        super().__init__("model")
        self._predict = estimator.load()
        self.ready = True

    async def predict(self, payload, headers=None, response_headers=None):
        """Answer `{"instances": [[…]]}`."""
        return {"predictions": self._predict(payload["instances"]).tolist()}


if __name__ == "__main__":
    server = kserve.ModelServer(
        http_port=estimator.PORT,
        enable_grpc=False,
        enable_latency_logging=False,
        access_log_format=None,
    )
    server.start([Measured()])
