"""Training code of the owner's: it competes with the candidates, and may fail in any way."""

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from cli.main import app
from registry.runtimes.scikit_learn import load_pickled
from tests.integration.trainer import samples
from tests.integration.trainer.conftest import Workshop, new_workshop
from trainer.errors import TrainerError
from trainer.modelling.own_pipeline import PipelineFile

GOOD = """
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline as chain
from sklearn.preprocessing import OneHotEncoder

param_grid = {"randomforestclassifier__max_depth": [3, None]}

def make_pipeline(signature):
    texts = [column.name for column in signature.columns if column.kind == "text"]
    numbers = [column.name for column in signature.columns if column.kind != "text"]
    fill = SimpleImputer(strategy="most_frequent")
    prepare = ColumnTransformer([
        ("text", chain(fill, OneHotEncoder(handle_unknown="ignore", sparse_output=False)), texts),
        ("numbers", SimpleImputer(keep_empty_features=True), numbers),
    ])
    return chain(prepare, RandomForestClassifier(20, min_samples_leaf=3, random_state=0))
"""
CUSTOM = """
import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin

class Rule(ClassifierMixin, BaseEstimator):
    def fit(self, X, y):
        assert list(X.columns) == ["size", "sold", "colour", "void"]
        assert X["size"].dtype == X["sold"].dtype == np.float64
        assert X["colour"].dtype == object
        assert not (X["colour"] == "").any()
        self.classes_ = np.unique(y)
        return self

    def predict_proba(self, X):
        big = X["size"].fillna(5).to_numpy() + 3 * (X["colour"] == "red").to_numpy() > 6
        return np.where(big[:, None], [[0.95, 0.05]], [[0.05, 0.95]])

    def predict(self, X):
        return self.classes_[self.predict_proba(X).argmax(axis=1)]

def rule(signature):
    return Rule()
"""
NAN = CUSTOM.replace("np.where(big", "np.nan * np.where(big")
BAD = {
    "does not import": (
        "1 / 0",
        "cannot be imported: ZeroDivisionError: division by zero (line 1)",
    ),
    "is not Python": ("def make_pipeline(:", "SyntaxError"),
    "has no function": (
        "def other(signature): ...",
        "no function 'make_pipeline' (found: 'other')",
    ),
    "returns no estimator": ("def make_pipeline(signature): return 3", "returned a int"),
    "returns a class": (
        "from sklearn.svm import SVC\ndef make_pipeline(signature): return SVC",
        "returned the class SVC",
    ),
    "returns a regressor for classes": (
        "from sklearn.linear_model import Ridge\ndef make_pipeline(signature): return Ridge()",
        "returned the regressor Ridge, but the task is classification",
    ),
    "gives no probabilities": (
        "from sklearn.svm import LinearSVC\ndef make_pipeline(signature): return LinearSVC()",
        "without predict_proba",
    ),
    "needs a missing package": (
        "import missing_package.part",
        "the package 'missing_package' is not installed (line 1)",
    ),
    "calls sys.exit": ("import sys\nsys.exit(0)", "it called sys.exit (line 2)"),
    "fails in its function": (
        "def make_pipeline(signature): return signature.nothing",
        "make_pipeline() failed: AttributeError",
    ),
    "fails in fit": (
        "from sklearn.linear_model import LogisticRegression\n"
        "def make_pipeline(signature): return LogisticRegression()",
        "the estimator cannot be used: ValueError: could not convert string to float",
    ),
    "predicts NaN": (
        NAN + "make_pipeline = rule",
        "ValueError: a prediction is not a finite number",
    ),
    "has a wrong grid": (
        GOOD + "param_grid = {'nothing': [1]}",
        "Invalid parameter 'nothing'",
    ),
    "has a huge grid": (
        GOOD + "param_grid = {'randomforestclassifier__max_depth': list(range(100))}",
        "has 100 combinations; at most 50",
    ),
}


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """`m` is live."""
    workshop = new_workshop(tmp_path_factory.mktemp("home"))
    workshop.put_rows("m", samples.HEADER, samples.rows(samples.text))
    workshop.configure("m", target="y")
    assert workshop.train("m", release=True).release == 1
    return workshop


@pytest.fixture
def shop(released: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    shop = released.copy(tmp_path / "shop")
    monkeypatch.setenv("TOLLGATE_HOME", str(shop.home))
    return shop


@pytest.fixture
def code(tmp_path: Path) -> Path:
    return tmp_path / "pipeline.py"


def run(*words: str) -> Result:
    return CliRunner().invoke(app, ["train", "m", *words])


def train(shop: Workshop, path: Path, function: str = "make_pipeline", **options: Any) -> Any:
    return shop.train("m", pipeline=PipelineFile(path, function, only=True), **options)


def is_untouched(shop: Workshop) -> bool:
    return len(shop.store.list_versions("m")) == len(shop.store.list_releases("m")) == 1


@pytest.mark.costly
class TestGoodCode:
    def test_becomes_an_onnx_version_with_the_file_as_an_artefact(
        self, shop: Workshop, code: Path
    ) -> None:
        code.write_text(GOOD)

        manifest = shop.manifest(train(shop, code))

        assert (manifest.serving, manifest.explainer) == ("onnx", "trees")
        assert manifest.calibration is not None
        assert manifest.metrics["chosen"] == "pipeline"
        assert len(manifest.metrics["candidates"]) == 2
        assert manifest.origin is not None
        assert manifest.origin.model_dump(exclude={"requires"}) == {
            "kind": "pipeline",
            "file": "pipeline.py",
            "function": "make_pipeline",
            "commit": None,
        }
        assert shop.store.read_file(manifest, "pipeline.py") == code.read_bytes()

    def test_competes_with_the_built_in_candidates(self, shop: Workshop, code: Path) -> None:
        code.write_text(GOOD)

        outcome = shop.train("m", pipeline=PipelineFile(code))

        names = {name.partition(" ")[0] for name in shop.manifest(outcome).metrics["candidates"]}
        assert names == {"pipeline", "linear"}

    def test_is_served_from_a_pickle_that_contains_its_classes(
        self, shop: Workshop, code: Path
    ) -> None:
        code.write_text(CUSTOM)

        manifest = shop.manifest(train(shop, code, "rule"))
        content = shop.store.read_file(manifest, "model.joblib")
        row = {
            "column_0": np.array([[9.0]], dtype=np.float32),
            "column_1": np.array([[np.nan]], dtype=np.float32),
            "column_2": np.array([[""]], dtype=object),
            "column_3": np.array([[np.nan]], dtype=np.float32),
        }

        assert (manifest.serving, manifest.explainer) == ("joblib", "sampled")
        assert b"tollgate_pipeline" in content
        code.unlink()
        assert load_pickled(content, manifest).run(row, probabilities=True).predictions == ["big"]

    def test_has_the_commit_that_last_changed_it(self, shop: Workshop, code: Path) -> None:
        code.write_text(GOOD)
        git = ["git", "-C", str(code.parent), "-c", "user.name=a", "-c", "user.email=a@b"]
        for words in (["init", "-q"], ["add", code.name], ["commit", "-qm", "code"]):
            subprocess.run([*git, *words], check=True)
        head = subprocess.check_output([*git, "rev-parse", "HEAD"], text=True).strip()

        committed = shop.manifest(train(shop, code)).origin
        code.write_text(GOOD + "\n")
        changed = shop.manifest(train(shop, code)).origin

        assert committed is not None
        assert committed.model_dump()["commit"] == head
        assert changed is not None
        assert changed.model_dump()["commit"] is None


class TestBadCode:
    @pytest.mark.parametrize("fault", BAD)
    def test_that_fails_is_one_line_and_publishes_nothing(
        self, fault: str, shop: Workshop, code: Path
    ) -> None:
        content, expected = BAD[fault]
        code.write_text(content)

        with pytest.raises(TrainerError) as failure:
            train(shop, code)

        message = str(failure.value)
        assert expected in message
        assert "\n" not in message
        assert message.startswith("pipeline.py: ")
        assert is_untouched(shop)

    @pytest.mark.slow
    def test_that_never_returns_is_survived(self, shop: Workshop, code: Path) -> None:
        code.write_text("def make_pipeline(signature):\n    while True: pass\n")

        result = run("--pipeline", str(code), "--timeout", "1")

        assert result.exit_code == 1
        assert result.stderr.splitlines()[-1] == (
            "error: pipeline.py did not finish within 1 s; use --timeout to allow more."
        )
        assert is_untouched(shop)

    @pytest.mark.costly
    def test_of_a_data_store_is_never_executed(self, shop: Workshop) -> None:
        mark = shop.home / "executed"
        shop.put("m", f"open({str(mark)!r}, 'w')\n", name="pipeline.py")
        stored = shop.home / "data/m/pipeline.py"

        unnamed = shop.train("m")

        assert unnamed.gate == "passed"
        with pytest.raises(TrainerError, match="whose files are never executed"):
            train(shop, stored)
        with pytest.raises(TrainerError, match="code is never read from a store"):
            train(shop, Path("gs://bucket/m/pipeline.py"))
        assert not mark.exists()

    def test_that_a_link_leads_to_in_a_data_store_is_never_executed(
        self, shop: Workshop, code: Path
    ) -> None:
        mark = shop.home / "executed"
        shop.put("m", f"open({str(mark)!r}, 'w')\n", name="pipeline.py")
        code.symlink_to(shop.home / "data/m/pipeline.py")

        with pytest.raises(TrainerError, match="whose files are never executed"):
            train(shop, code)
        assert not mark.exists()

    def test_that_does_not_exist_is_refused(self, shop: Workshop, code: Path) -> None:
        with pytest.raises(TrainerError, match="cannot be read: No such file or directory"):
            train(shop, code)


def test_only_pipeline_requires_a_pipeline(shop: Workshop) -> None:
    assert run("--only-pipeline").exit_code == 2


@pytest.mark.slow
def test_what_the_code_prints_is_not_part_of_the_output(shop: Workshop, code: Path) -> None:
    code.write_text("print('noise')" + GOOD)

    result = run("--pipeline", f"{code}:make_pipeline", "--only-pipeline", "--json")

    assert json.loads(result.stdout)["metrics"]["chosen"] == "pipeline"
