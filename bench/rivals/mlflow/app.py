"""MLflow: the pipeline saved in its own format, behind `mlflow models serve`."""

import os
import sys
import tempfile

import estimator
import joblib
import mlflow.sklearn

folder = tempfile.mkdtemp(prefix="tollgate-bench-", dir=os.environ["BENCH_FOLDER"])
mlflow.sklearn.save_model(
    joblib.load(estimator.MODEL), f"{folder}/model", serialization_format="cloudpickle"
)
options = ["--env-manager", "local", "--host", "127.0.0.1", "--port", str(estimator.PORT)]
command = ["-m", "mlflow", "models", "serve", "--model-uri", f"{folder}/model", *options]
os.execv(sys.executable, [sys.executable, *command])
