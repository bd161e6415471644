"""Flask behind gunicorn: one process with threads."""

import os
import sys

import estimator
from flask import Flask, request


def create_app() -> Flask:
    """Return the WSGI app, which answers `{"instances": [[…]]}`."""
    app, predict = Flask(__name__), estimator.load()

    @app.post("/predict")
    def answer() -> dict:
        return {"predictions": predict(request.get_json()["instances"]).tolist()}

    return app


if __name__ == "__main__":
    options = ["--bind", f"127.0.0.1:{estimator.PORT}", "--worker-class", "gthread"]
    workers = ["--workers", "1", "--threads", "16", "--keep-alive", "75", "--log-level", "error"]
    os.execv(
        sys.executable, [sys.executable, "-m", "gunicorn", *options, *workers, "app:create_app()"]
    )
