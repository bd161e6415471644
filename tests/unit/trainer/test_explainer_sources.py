"""Which column each encoded feature comes from."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.feature_selection import SelectKBest, f_regression
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    OneHotEncoder,
    OrdinalEncoder,
    PolynomialFeatures,
    SplineTransformer,
    StandardScaler,
    TargetEncoder,
)

from trainer.modelling.explaining.sources import MixedColumns, find_sources

TABLE = pd.DataFrame(
    {
        "n": [1.0, 2.0, np.nan, 4.0],
        "colour": ["red", "green", "blue", "red"],
        "m": [0.5, 0.25, 0.125, 0.0],
        "size": ["s", "m", "s", "m"],
        "note": ["a cheap car", "a fast car", "a fast cheap car", "no car"],
    }
)
TRUTH = np.array([1.0, 2.0, 3.0, 5.0])
ALL = list(range(len(TABLE.columns)))


def test_one_hot_features_follow_their_column_in_the_order_of_the_parts() -> None:
    encoder = ColumnTransformer(
        [
            ("text", OneHotEncoder(), ["size", "colour"]),
            ("dropped", "drop", ["note"]),
            ("numbers", make_pipeline(SimpleImputer(), StandardScaler()), ["m", "n"]),
        ]
    ).fit(TABLE)

    assert find_sources(encoder, ALL) == [3, 3, 1, 1, 1, 2, 0]


def test_every_word_of_a_sentence_belongs_to_its_column() -> None:
    encoder = ColumnTransformer(
        [("words", TfidfVectorizer(), "note")], remainder="passthrough"
    ).fit(TABLE)

    words = len(encoder.named_transformers_["words"].vocabulary_)
    assert find_sources(encoder, ALL) == [4] * words + [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("transformer", "columns", "sources"),
    [
        (SimpleImputer(add_indicator=True), ["n", "m"], [0, 2, 0]),
        (OrdinalEncoder(), ["colour", "size"], [1, 3]),
        (OneHotEncoder(drop="if_binary"), ["size", "colour"], [3, 1, 1, 1]),
        (TargetEncoder(cv=2, target_type="continuous"), ["size", "colour"], [3, 1]),
        (SelectKBest(f_regression, k=1), ["m"], [2]),
        (SplineTransformer(n_knots=3), ["m"], [2] * 5),
        (PolynomialFeatures(2, include_bias=False), ["m"], [2, 2]),
    ],
)
def test_features_of_common_transformers(
    transformer: Any, columns: list[str], sources: list[int]
) -> None:
    encoder = ColumnTransformer([("part", transformer, columns)]).fit(TABLE, TRUTH)

    assert find_sources(encoder, ALL) == sources


@pytest.mark.parametrize("transformer", [PCA(1), PolynomialFeatures(2)])
def test_features_of_several_columns_are_refused(transformer: Any) -> None:
    fitted = transformer.fit(TABLE[["m", "m"]].to_numpy(), TRUTH)

    with pytest.raises(MixedColumns):
        find_sources(fitted, [0, 1])
