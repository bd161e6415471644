"""LightGBM and XGBoost give the same model each time, and have an ONNX form."""

import numpy as np
import pytest

from registry.records import Column, Label, Signature
from trainer.modelling.candidates import TrainingContext, build, variants
from trainer.modelling.export import prove_equal, to_onnx
from trainer.modelling.fitting import fit
from trainer.modelling.serving import load_onnx
from trainer.types import Family


@pytest.mark.costly
@pytest.mark.parametrize("labels", [["no", "yes"], [3, 5, 9], None])
@pytest.mark.parametrize("family", ["lightgbm", "xgboost"])
def test_boosters_are_the_same_each_time_and_convert(
    family: Family, labels: list[Label] | None
) -> None:
    features = np.random.default_rng(1).normal(size=(400, 4)).astype(np.float32)
    truth = features[:, 0] + np.abs(features[:, 1])
    targets = truth
    if labels is not None:
        places = np.digitize(truth, np.quantile(truth, [0.4, 0.7][: len(labels) - 1]))
        targets = np.array(labels)[places]
    signature = Signature(
        task="regression" if labels is None else "classification",
        target="y",
        columns=[Column(name=name, kind="number") for name in "abcd"],
        classes=labels,
    )
    context = TrainingContext(signature=signature, seed=1, jobs=1, balanced=labels is not None)
    candidate = variants(family, is_classifier=labels is not None)[0]

    fitted = [fit(build(candidate, context, features), features, targets) for _ in range(2)]

    first, again = (to_onnx(pipeline, signature) for pipeline in fitted)
    assert first == again
    prove_equal(load_onnx(first, signature), fitted[0], features, signature)
