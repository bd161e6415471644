"""Which column each encoded feature comes from, for fitted scikit-learn transformers."""

from typing import Any

import numpy as np
from sklearn.base import OneToOneFeatureMixin
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.feature_selection import SelectorMixin
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, TargetEncoder

from registry.runtimes.named_table import NamedTable

Sources = list[int]


class MixedColumns(Exception):
    """A feature is made of several columns, or a transformer is not one of those known here."""


def find_sources(transformer: Any, inputs: Sources) -> Sources:
    """Return the column of each output of a fitted transformer.

    Args:
        inputs: the column of each input.

    Raises:
        MixedColumns: an output does not come from exactly one column, or its columns are unknown.
    """
    if transformer in (None, "passthrough") or isinstance(transformer, NamedTable):
        return inputs
    if transformer == "drop":
        return []
    if isinstance(transformer, Pipeline):
        for _, step in transformer.steps:
            inputs = find_sources(step, inputs)
        return inputs
    if isinstance(transformer, ColumnTransformer):
        return _of_columns(transformer, inputs)
    if isinstance(transformer, OneHotEncoder):
        return np.repeat(inputs, transformer._n_features_outs).tolist()
    if isinstance(transformer, TargetEncoder):
        each = len(transformer.get_feature_names_out()) // len(inputs)
        return np.repeat(inputs, each).tolist()
    if isinstance(transformer, SelectorMixin):
        return [inputs[i] for i in transformer.get_support(indices=True)]
    if isinstance(transformer, CountVectorizer) and len(inputs) == 1:  # TF-IDF, too
        return inputs * len(transformer.vocabulary_)
    if isinstance(transformer, SimpleImputer):
        return _of_imputer(transformer, inputs)
    if isinstance(transformer, OneToOneFeatureMixin) or _is_elementwise(transformer):
        return inputs
    if len(set(inputs)) == 1 and hasattr(transformer, "get_feature_names_out"):
        return inputs[:1] * len(transformer.get_feature_names_out())
    raise MixedColumns(type(transformer).__name__)


def _of_columns(transformer: ColumnTransformer, inputs: Sources) -> Sources:
    parts = transformer.named_transformers_
    slices = transformer.output_indices_
    found = [-1] * max((part.stop for part in slices.values()), default=0)
    for name, columns in transformer._transformer_to_input_indices.items():
        part = slices.get(name)
        if part is None or part.start == part.stop:
            continue
        sources = find_sources(parts[name], [inputs[i] for i in columns])
        if len(sources) != part.stop - part.start:
            raise MixedColumns(name)
        found[part] = sources
    if -1 in found:
        raise MixedColumns("ColumnTransformer")
    return found


def _of_imputer(imputer: SimpleImputer, inputs: Sources) -> Sources:
    kept = inputs
    if not imputer.keep_empty_features:
        is_empty = [value is None or value != value for value in imputer.statistics_]
        kept = [column for column, empty in zip(inputs, is_empty, strict=True) if not empty]
    if imputer.indicator_ is not None:
        kept = kept + [inputs[i] for i in imputer.indicator_.features_]
    return kept


def _is_elementwise(transformer: Any) -> bool:
    """Return whether it passes values on unchanged, or applies a function like `np.log1p`."""
    return isinstance(transformer, FunctionTransformer) and (
        transformer.func is None or isinstance(transformer.func, np.ufunc)
    )
