"""Finished models, written by the libraries that people use, and data that they were fitted on."""

import importlib
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import joblib
import lightgbm
import numpy as np
import pandas as pd
import xgboost
from skl2onnx import to_onnx
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

NAMES = ["size", "age", "noise"]
TASKS = {"kind": "classification", "price": "regression"}
"""The targets."""
COUNT = 200


def data(*, seed: int = 1) -> pd.DataFrame:
    """Return numbers, a text column, a target with classes, and one with values."""
    chance = np.random.default_rng(seed)
    table = pd.DataFrame(
        {name: chance.normal(size=COUNT).round(3) for name in NAMES}
        | {"colour": chance.choice(["red", "green", "blue"], COUNT)}
    )
    table["kind"] = np.where(table["size"] + 0.2 * table["age"] > 0, 1, 0)
    table["price"] = (100 * table["size"] + 10 * table["age"] + 7.5).round(2)
    return table


def write(name: str, folder: Path) -> Path:
    """Write a finished model to a folder and return its path."""
    table = data()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return WRITERS[name](table, folder)


def _numbers(table: pd.DataFrame) -> pd.DataFrame:
    return table[NAMES]


def logistic(table: pd.DataFrame) -> Any:
    model = make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression())
    return model.fit(_numbers(table), table["kind"])


def forest(table: pd.DataFrame) -> Any:
    return RandomForestRegressor(20, random_state=0).fit(_numbers(table), table["price"])


def with_text(table: pd.DataFrame) -> Any:
    encode = ColumnTransformer(
        [
            ("text", OneHotEncoder(handle_unknown="ignore"), ["colour"]),
            ("numbers", "passthrough", NAMES),
        ]
    )
    model = make_pipeline(encode, LogisticRegression())
    return model.fit(table[[*NAMES, "colour"]].astype({"colour": object}), table["kind"])


def _joblib(table: pd.DataFrame, folder: Path) -> Path:
    joblib.dump(logistic(table), folder / "model.joblib", compress=3)
    return folder / "model.joblib"


def _cloudpickle(table: pd.DataFrame, folder: Path) -> Path:
    class Doubled(LinearRegression):  # type: ignore[misc]  # scikit-learn is untyped
        def predict(self, X: Any) -> Any:
            return 1.0 * super().predict(X)

    Doubled.__module__ = "__main__"  # by value, as from a notebook
    path = folder / "model.pkl"
    path.write_bytes(cloudpickle.dumps(Doubled().fit(_numbers(table), table["price"])))
    return path


def _skops(table: pd.DataFrame, folder: Path) -> Path:
    import skops.io  # takes a second, which every worker would need to collect the tests

    skops.io.dump(forest(table), folder / "model.skops")
    return folder / "model.skops"


def _text_joblib(table: pd.DataFrame, folder: Path) -> Path:
    joblib.dump(with_text(table), folder / "text.joblib")
    return folder / "text.joblib"


def _onnx(table: pd.DataFrame, folder: Path) -> Path:
    """Write what skl2onnx does by default: a matrix in, labels and a list of dictionaries out."""
    model = logistic(table)
    matrix = _numbers(table).to_numpy(np.float32)
    (folder / "model.onnx").write_bytes(to_onnx(model, matrix[:1]).SerializeToString())
    return folder / "model.onnx"


def _onnx_columns(table: pd.DataFrame, folder: Path) -> Path:
    """Write a graph with one input per column, of text too."""
    model = with_text(table)
    first = table[[*NAMES, "colour"]][:1].astype(dict.fromkeys(NAMES, np.float32))
    path = folder / "columns.onnx"
    path.write_bytes(to_onnx(model, first.astype({"colour": object})).SerializeToString())
    return path


def _onnx_regression(table: pd.DataFrame, folder: Path) -> Path:
    model = LinearRegression().fit(_numbers(table), table["price"])
    matrix = _numbers(table).to_numpy(np.float64)
    (folder / "line.onnx").write_bytes(to_onnx(model, matrix[:1]).SerializeToString())
    return folder / "line.onnx"


def _lightgbm(table: pd.DataFrame, folder: Path) -> Path:
    _lightgbm_model(table).save_model(folder / "model.txt")
    return folder / "model.txt"


def _lightgbm_regression(table: pd.DataFrame, folder: Path) -> Path:
    training = lightgbm.Dataset(_numbers(table), table["price"])
    booster = lightgbm.train({"verbose": -1, "num_threads": 1}, training, 20)
    booster.save_model(folder / "price.txt")
    return folder / "price.txt"


def _xgboost(extension: str) -> Callable[[pd.DataFrame, Path], Path]:
    def write_booster(table: pd.DataFrame, folder: Path) -> Path:
        matrix = xgboost.DMatrix(_numbers(table), table["kind"], nthread=1)
        booster = xgboost.train({"objective": "binary:logistic", "nthread": 1}, matrix, 20)
        booster.save_model(folder / f"model.{extension}")
        return folder / f"model.{extension}"

    return write_booster


def _lightgbm_estimator(table: pd.DataFrame, folder: Path) -> Path:
    model = lightgbm.LGBMClassifier(n_estimators=20, verbose=-1, n_jobs=1)
    joblib.dump(model.fit(_numbers(table), table["kind"]), folder / "lgbm.joblib")
    return folder / "lgbm.joblib"


def _xgboost_estimator(table: pd.DataFrame, folder: Path) -> Path:
    joblib.dump(_xgboost_model(table), folder / "xgb.joblib")
    return folder / "xgb.joblib"


def _boosting(table: pd.DataFrame, folder: Path) -> Path:
    model = HistGradientBoostingClassifier(max_iter=10).fit(_numbers(table), table["kind"])
    joblib.dump(model, folder / "boosting.joblib")
    return folder / "boosting.joblib"


def _mlflow(
    flavour: str, model: Callable[[pd.DataFrame], Any], **options: Any
) -> Callable[[pd.DataFrame, Path], Path]:
    """Return what writes a model folder with `mlflow.<flavour>.save_model`."""

    def write_folder(table: pd.DataFrame, folder: Path) -> Path:
        from mlflow.models import infer_signature

        save = importlib.import_module(f"mlflow.{flavour}").save_model
        target = table["price" if flavour == "xgboost" else "kind"]
        signature = infer_signature(_numbers(table), target)
        path = folder / "run"
        # Without requirements, which MLflow would otherwise find by loading the model again.
        save(model(table), path, signature=signature, pip_requirements=[], **options)
        return path

    return write_folder


def _onnx_model(table: pd.DataFrame) -> Any:
    return to_onnx(logistic(table), _numbers(table).to_numpy(np.float32)[:1])


def _lightgbm_model(table: pd.DataFrame) -> Any:
    training = lightgbm.Dataset(_numbers(table), table["kind"])
    return lightgbm.train({"objective": "binary", "verbose": -1, "num_threads": 1}, training, 20)


def _xgboost_model(table: pd.DataFrame) -> Any:
    model = xgboost.XGBRegressor(n_estimators=20, n_jobs=1)
    return model.fit(_numbers(table), table["price"])


WRITERS: dict[str, Callable[[pd.DataFrame, Path], Path]] = {
    "joblib": _joblib,
    "joblib with text": _text_joblib,
    "joblib with boosting": _boosting,
    "cloudpickle": _cloudpickle,
    "skops": _skops,
    "onnx": _onnx,
    "onnx with text": _onnx_columns,
    "onnx of a regression": _onnx_regression,
    "lightgbm": _lightgbm,
    "lightgbm of a regression": _lightgbm_regression,
    "xgboost json": _xgboost("json"),
    "xgboost ubj": _xgboost("ubj"),
    "estimator of lightgbm": _lightgbm_estimator,
    "estimator of xgboost": _xgboost_estimator,
    "mlflow sklearn": _mlflow("sklearn", logistic, serialization_format="cloudpickle"),
    "mlflow skops": _mlflow("sklearn", logistic, skops_trusted_types=["numpy.dtype"]),
    "mlflow onnx": _mlflow("onnx", _onnx_model),
    "mlflow lightgbm": _mlflow("lightgbm", _lightgbm_model),
    "mlflow xgboost": _mlflow("xgboost", _xgboost_model),
}
TARGETS = {
    name: "price"
    if name
    in (
        "cloudpickle",
        "skops",
        "onnx of a regression",
        "lightgbm of a regression",
        "estimator of xgboost",
        "mlflow xgboost",
    )
    else "kind"
    for name in WRITERS
}
