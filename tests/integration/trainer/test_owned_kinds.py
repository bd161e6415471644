"""Times and sentences in models of the owner's, loaded as inference loads them."""

import json
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import onnx
import pandas as pd
import pytest
from onnx import TensorProto, helper
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder

from services.inference.models.cache import ModelCache
from services.inference.models.loader import load_version
from services.inference.models.table import LoadedModel
from tests.integration.trainer.conftest import Workshop
from trainer.errors import TrainerError
from trainer.import_model import import_model
from trainer.modelling.own_pipeline import PipelineFile
from trainer.outcome import Outcome

TIMES = """
import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin

class Rule(ClassifierMixin, BaseEstimator):
    def fit(self, X, y):
        assert list(X.columns) == ["at", "review", "size"]
        assert X["at"].dtype == "datetime64[us]"
        assert X["review"].dtype == object and X["review"].map(type).eq(str).all()
        self.classes_ = np.unique(y)
        return self

    def predict_proba(self, X):
        good = (X["at"].dt.hour >= 12) & X["review"].str.contains("Fine!", regex=False)
        return np.where(good.to_numpy()[:, None], [[0.05, 0.95]], [[0.95, 0.05]])

    def predict(self, X):
        return self.classes_[self.predict_proba(X).argmax(axis=1)]

def make_pipeline(signature):
    return Rule()
"""
SENTENCES = """
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline as chain

def make_pipeline(signature):
    words = CountVectorizer(lowercase=False, token_pattern="[a-zA-Z]+")
    prepare = ColumnTransformer([("words", words, "review"), ("size", SimpleImputer(), ["size"])])
    return chain(prepare, LogisticRegression())
"""
WORDS = ("the", "room", "was", "near", "that", "old", "house", "with", "two", "windows", "and")
ROWS: list[list[Any]] = [
    ["2026-01-31T14:00:00+01:00", "That old house, with windows. Fine!", 2.5],
    ["2026-01-31T12:30:00+01:00", "That old house, with windows. Fine!", 2.5],
    ["2026-01-31T14:00:00+01:00", "That old house, with windows. fine", 2.5],
    [None, None, None],
]
ANSWERS = ["yes", "no", "no", "no"]
"""Those to `ROWS`, if the hour counts in UTC, and case and punctuation do."""


def data() -> pd.DataFrame:
    """Return times and sentences, of which some are missing, a number and a target."""
    chance = np.random.default_rng(1)
    seconds = chance.integers(1_700_000_000, 1_800_000_000, size=300)
    table = pd.DataFrame({"at": seconds.astype("datetime64[s]")})
    table["review"] = [
        " ".join([*chance.choice(WORDS, 6, replace=False), chance.choice(["Fine!", "fine"])])
        for _ in seconds
    ]
    table["size"] = chance.normal(size=len(table)).round(3)
    table.loc[::25, "at"] = pd.NaT
    table.loc[3::25, "review"] = ""
    good = (table["at"].dt.hour >= 12) & table["review"].str.contains("Fine!", regex=False)
    return table.assign(y=np.where(good, "yes", "no"))


def finished_model() -> Any:
    """Return a pipeline that was fitted on pandas' own types."""

    def parts(table: pd.DataFrame) -> Any:
        fine = table["review"].fillna("").str.contains("Fine!", regex=False)
        return np.column_stack([table["at"].dt.hour.fillna(-1), fine, table["size"].fillna(0)])

    table = data()
    model = make_pipeline(FunctionTransformer(parts), RandomForestClassifier(20, random_state=0))
    return model.fit(table[["at", "review", "size"]], table["y"])


@pytest.fixture
def shop(workshop: Workshop) -> Workshop:
    """The owner's data is there."""
    workshop.put("m", data().to_csv(index=False))
    workshop.configure("m", target="y", columns={"review": "sentence"})
    return workshop


def load(shop: Workshop, outcome: Outcome) -> LoadedModel:
    cache = ModelCache(shop.store, shop.trusted, folder=shop.home / "cache", max_bytes=2**30)
    return load_version(cache, "m", outcome.version, allow_joblib=True)


def predict(model: LoadedModel, rows: list[list[Any]]) -> list[Any]:
    return model.runtime.run(model.inputs.decode(rows)).predictions


def dump(path: Path, model: Any) -> Path:
    path.write_bytes(cloudpickle.dumps(model))
    return path


@pytest.mark.costly
def test_code_of_the_owners_gets_timestamps_and_whole_sentences(
    shop: Workshop, tmp_path: Path
) -> None:
    code = tmp_path / "pipeline.py"
    code.write_text(TIMES)

    outcome = shop.train("m", pipeline=PipelineFile(code, only=True))

    assert (outcome.gate, outcome.serving) == ("passed", "joblib"), outcome.reasons
    assert predict(load(shop, outcome), ROWS) == ANSWERS


@pytest.mark.slow
def test_code_of_the_owners_competes_where_candidates_take_words(
    shop: Workshop, tmp_path: Path
) -> None:
    code = tmp_path / "pipeline.py"
    code.write_text(TIMES)

    outcome = shop.train("m", pipeline=PipelineFile(code))

    candidates = shop.manifest(outcome).metrics["candidates"]
    assert {name.partition(" ")[0] for name in candidates} == {"pipeline", "linear"}
    assert candidates["pipeline"]["dropped"] == (
        "A model of the owner's that takes times has no ONNX form."
    )
    assert (outcome.gate, outcome.serving) == ("passed", "onnx"), outcome.reasons


@pytest.mark.costly
def test_whole_sentences_go_into_the_onnx_form_of_the_owners_code(
    shop: Workshop, tmp_path: Path
) -> None:
    code = tmp_path / "pipeline.py"
    code.write_text(SENTENCES)
    table = data()
    table["y"] = np.where(table["review"].str.contains("Fine!", regex=False), "yes", "no")
    shop.put("m", table.drop(columns="at").to_csv(index=False))

    outcome = shop.train("m", pipeline=PipelineFile(code, only=True))

    assert (outcome.gate, outcome.serving) == ("passed", "onnx"), outcome.notes
    assert predict(load(shop, outcome), [row[1:] for row in ROWS]) == ["yes", "yes", "no", "no"]


@pytest.mark.costly
def test_a_finished_pipeline_gets_timestamps_and_whole_sentences(
    shop: Workshop, tmp_path: Path
) -> None:
    path = dump(tmp_path / "model.pkl", finished_model())

    outcome = import_model(shop.settings, "m", path, trust_pickle=True)

    assert (outcome.gate, outcome.serving) == ("passed", "joblib"), outcome.reasons
    assert predict(load(shop, outcome), ROWS) == ANSWERS


@pytest.mark.costly
def test_a_model_without_data_is_explained_by_sampling_from_its_warm_up_rows(
    workshop: Workshop, tmp_path: Path
) -> None:
    dump(tmp_path / "model.pkl", finished_model())
    kinds = {"at": "datetime", "review": "string", "size": "double"}
    inputs = [{"name": name, "type": kind} for name, kind in kinds.items()]
    description = {
        "flavors": {"sklearn": {"pickled_model": "model.pkl"}},
        "signature": {"inputs": json.dumps(inputs)},
    }
    (tmp_path / "MLmodel").write_text(json.dumps(description))

    outcome = import_model(
        workshop.settings,
        "m",
        tmp_path,
        target="y",
        trust_pickle=True,
        force=True,
        reason="no data yet",
    )

    columns = workshop.manifest(outcome).signature.columns
    assert [column.kind for column in columns] == ["datetime", "text", "number"]
    loaded = load(workshop, outcome)
    assert predict(loaded, ROWS) == ANSWERS
    assert loaded.explainer is not None
    arrays = loaded.inputs.decode(ROWS)
    served = loaded.runtime.run(arrays, probabilities=True).probabilities
    explanations = loaded.explainer.explain(
        arrays, np.array([1] * len(ROWS)), np.array(served)[:, 1]
    )
    assert explanations.is_approximate
    totals = explanations.base + explanations.contributions.sum(axis=1)
    assert totals == pytest.approx(np.array(served)[:, 1], abs=1e-5)


@pytest.mark.costly
def test_missing_text_is_what_pandas_read_in_training(workshop: Workshop, tmp_path: Path) -> None:
    colours = pd.Series(["red", np.nan, "green"] * 70, dtype=object)
    table = pd.DataFrame({"colour": colours, "y": np.where(colours.isna(), "yes", "no")})
    encode = ColumnTransformer([("text", OneHotEncoder(), ["colour"])])
    model = make_pipeline(encode, LogisticRegression()).fit(table[["colour"]], table["y"])
    workshop.put("m", table.assign(colour=colours.fillna("NA")).to_csv(index=False))
    workshop.configure("m", target="y")

    outcome = import_model(
        workshop.settings, "m", dump(tmp_path / "model.pkl", model), trust_pickle=True
    )

    assert (outcome.gate, outcome.serving) == ("passed", "onnx"), outcome.reasons
    assert predict(load(workshop, outcome), [["red"], [None], ["green"]]) == ["no", "yes", "no"]
    assert not [note for note in outcome.notes if "missing values" in note]


def one_hot(folder: Path) -> Path:
    """Write a pipeline that takes the times as categories."""
    table = data()
    encode = ColumnTransformer([("text", OneHotEncoder(), ["at"])])
    texts = table[["at"]].astype(str).astype(object)
    return dump(
        folder / "model.pkl", make_pipeline(encode, LogisticRegression()).fit(texts, table["y"])
    )


def graph(folder: Path) -> Path:
    """Write an ONNX graph of two columns without names."""
    shape = [None, 2]
    given, made = (helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n in ("x", "y"))
    body = helper.make_graph([helper.make_node("Softmax", ["x"], ["y"])], "g", [given], [made])
    opsets = [helper.make_opsetid("", 20)]
    onnx.save_model(
        helper.make_model(body, opset_imports=opsets, ir_version=10), folder / "model.onnx"
    )
    return folder / "model.onnx"


@pytest.mark.parametrize(
    ("write", "columns", "message"),
    [
        (
            one_hot,
            ["at", "y"],
            "Column 'at' is text in the model, but datetime in the data. State its kind",
        ),
        (graph, ["at", "size", "y"], "Column 'at' is a time, which onnx models do not take."),
    ],
)
def test_a_model_that_takes_no_times_is_refused(
    write: Any, columns: list[str], message: str, workshop: Workshop, tmp_path: Path
) -> None:
    workshop.put("m", data()[columns].to_csv(index=False))
    workshop.configure("m", target="y")

    with pytest.raises(TrainerError, match=message):
        import_model(workshop.settings, "m", write(tmp_path), trust_pickle=True)

    assert not workshop.store.list_versions("m")


def test_a_column_that_is_ignored_though_the_model_takes_it_is_named(
    workshop: Workshop, tmp_path: Path
) -> None:
    table = data().assign(customer=range(1000, 1300))
    model = LogisticRegression().fit(table[["customer", "size"]], table["y"])
    workshop.put("m", table[["customer", "size", "y"]].to_csv(index=False))
    workshop.configure("m", target="y")

    with pytest.raises(TrainerError, match=r"The data has 'customer', but ignores it\. State its"):
        import_model(workshop.settings, "m", dump(tmp_path / "model.pkl", model), trust_pickle=True)
