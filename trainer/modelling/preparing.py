"""Prepare the encoded features for a model: impute numbers, and encode text, times and sentences.

Every step has an ONNX form. Categories and words are counted in the rows to fit on, without the
target, so that each fold encodes the same ones.
"""

from collections import Counter
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.feature_selection import SelectKBest, f_classif, f_regression
from sklearn.impute import SimpleImputer
from sklearn.model_selection import KFold, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler, TargetEncoder

from registry.features import feature_names
from registry.records import Signature
from trainer.types import Features, Source

MAX_ONE_HOT = 100
"""A column with up to this many categories has a feature for each."""
MAX_CATEGORIES = 50
"""Of a column with more, the most frequent have one; it is target encoded as well."""
MAX_NATIVE_CATEGORIES = 250  # histogram boosting has 255 bins
MAX_ENCODED_CATEGORIES = 10_000
MAX_ENCODED_CLASSES = 10
"""The target encoding has a number per class; with more classes, more categories are one-hot."""
FOLDS_OF_ENCODING = 5
MAX_WORDS = 1_000
MAX_WORDS_OF_TREES = 100
MIN_SENTENCES_PER_WORD = 2

_CALENDAR = {"month": range(1, 13), "day_of_week": range(7), "hour": range(24)}
_BETWEEN_BLANKS = "[^ ]+"


def prepare(family: Source, signature: Signature, features: Features, *, seed: int) -> list[Any]:
    """Return the unfitted steps before a model, which accept null and unknown text everywhere.

    Args:
        features: the rows to fit on; their most frequent categories and words are encoded.
    """
    # Keep columns that are empty in training, so that the feature count matches the signature.
    numeric: list[Any] = [SimpleImputer(strategy="median", keep_empty_features=True)]
    if family == "linear":
        numeric.append(StandardScaler(copy=False))
    if isinstance(features, np.ndarray):
        return numeric

    names: dict[str, list[str]] = {"text": [], "sentence": [], "calendar": [], "numbers": []}
    for i, column in enumerate(signature.columns):
        for name in feature_names(i, column):
            is_calendar = family == "linear" and name.endswith(tuple(_CALENDAR))
            kind = "calendar" if is_calendar else column.kind
            names.get(kind, names["numbers"]).append(name)
    texts, many = names["text"], []
    if uses_target_encoding(family, signature):
        many = [name for name in texts if features[name].nunique() > MAX_ONE_HOT]

    steps: list[tuple[str, Any, Any]] = []
    if texts:  # first: histogram boosting marks them as categorical by position
        steps.append(("text", _one_hot(family, signature, [features[n] for n in texts]), texts))
    if many:
        steps.append(
            ("target", _target_encoder([features[n] for n in many], signature, seed), many)
        )
    if names["calendar"]:
        steps.append(("calendar", _calendar_encoder(names["calendar"]), names["calendar"]))
    if names["numbers"]:
        steps.append(("numbers", make_pipeline(*numeric), names["numbers"]))
    for name in names["sentence"]:
        if words := _frequent_words(features[name]):
            steps.append((name, _word_encoder(family, signature, words), name))
    # Linear models take the many words of sentences as a sparse matrix; the others cannot.
    return [ColumnTransformer(steps, sparse_threshold=1.0 if family == "linear" else 0.0)]


def count_features(family: Source, signature: Signature, categories: int) -> int:
    """Return how many categories of a text column have a feature of their own.

    Args:
        categories: all that the column has.
    """
    if not uses_target_encoding(family, signature):
        return min(categories, MAX_NATIVE_CATEGORIES)
    return categories if categories <= MAX_ONE_HOT else MAX_CATEGORIES


def uses_target_encoding(family: Source, signature: Signature) -> bool:
    """Return whether text columns with many categories are target encoded."""
    few_classes = len(signature.classes or ()) <= MAX_ENCODED_CLASSES
    return few_classes and family != "categorical_boosting"


def _one_hot(
    family: Source, signature: Signature, columns: list[pd.Series]
) -> OneHotEncoder | OrdinalEncoder:
    # An explicit list: `max_categories` adds a group that skl2onnx does not support.
    known = [
        _frequent(values, count_features(family, signature, values.nunique())) for values in columns
    ]
    if family == "categorical_boosting":
        return OrdinalEncoder(
            categories=known,
            handle_unknown="use_encoded_value",
            unknown_value=np.nan,
            dtype=np.float32,
        )
    return OneHotEncoder(
        categories=known,
        handle_unknown="ignore",
        sparse_output=False,
        dtype=np.float32,
    )


def _target_encoder(columns: list[pd.Series], signature: Signature, seed: int) -> TargetEncoder:
    """Return an encoder by the mean target of each category.

    In fitting, each row is encoded by the other folds, so that its own target does not leak.
    Categories beyond the most frequent count as unknown, and get the mean of all rows.
    """
    is_value = signature.classes is None
    folds = KFold if is_value else StratifiedKFold
    return TargetEncoder(
        categories=[_frequent(values, MAX_ENCODED_CATEGORIES) for values in columns],
        target_type="continuous" if is_value else "auto",
        cv=folds(FOLDS_OF_ENCODING, shuffle=True, random_state=seed),
    )


def _calendar_encoder(names: list[str]) -> OneHotEncoder:
    """Return an encoder of months, weekdays and hours, whose effects are hardly linear."""
    values = [
        next(known for part, known in _CALENDAR.items() if name.endswith(part)) for name in names
    ]
    return OneHotEncoder(
        categories=[np.array(known, dtype=np.float32) for known in values],
        handle_unknown="ignore",
        sparse_output=False,
        dtype=np.float32,
    )


def _word_encoder(family: Source, signature: Signature, words: list[str]) -> Any:
    """Return TF-IDF for linear models; for trees, the presence of the most telling words.

    Trees split where a TF-IDF is equal up to rounding, and the rounding of ONNX Runtime differs.
    """
    is_linear = family == "linear"
    counts = TfidfVectorizer(
        vocabulary=words,
        lowercase=False,
        token_pattern=_BETWEEN_BLANKS,  # `registry.features` has separated the words
        binary=not is_linear,
        use_idf=is_linear,
        norm="l2" if is_linear else None,
        dtype=np.float32,
    )
    if is_linear or len(words) <= MAX_WORDS_OF_TREES:
        return counts
    by = f_regression if signature.classes is None else f_classif
    return make_pipeline(counts, SelectKBest(by, k=MAX_WORDS_OF_TREES))


def _frequent(values: pd.Series, most: int) -> npt.NDArray[Any]:
    # Break ties alphabetically, so that the result does not depend on row order.
    counts = values.value_counts().sort_index().sort_values(ascending=False, kind="stable")
    return np.array(sorted(counts.index[:most]), dtype=object)


def _frequent_words(sentences: pd.Series) -> list[str]:
    """Return the words of most sentences, in alphabetical order."""
    counts: Counter[str] = Counter()
    for sentence in sentences:
        counts.update(set(sentence.split(" ")))
    del counts[""]
    ordered = sorted(counts.items(), key=lambda each: (-each[1], each[0]))[:MAX_WORDS]
    return sorted(word for word, times in ordered if times >= MIN_SENTENCES_PER_WORD)
