"""Build the explainer of a fitted model, and prove that it explains the model that is served."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from sklearn.pipeline import Pipeline

from registry.explain.artefact import pack_exact, pack_sampled
from registry.explain.encoded import EncodedExplainer, Encoder, Link
from registry.explain.linear import Linear
from registry.explain.trees import Trees
from registry.explainer_kinds import ExplainerKind
from registry.features import Arrays, feature_names, is_one_matrix, needs_expansion
from registry.records import Signature
from registry.runtimes.named_table import NamedTable
from registry.runtimes.runtime import Runtime
from registry.tolerances import NUMBER_TOLERANCE, PROBABILITY_TOLERANCE
from trainer.modelling.boosters import is_booster
from trainer.modelling.explaining.boosters import read_booster
from trainer.modelling.explaining.estimators import NotReadable, read_estimator
from trainer.modelling.explaining.sources import find_sources
from trainer.modelling.export import convert
from trainer.types import Floats

PROVED_BATCHES = 5
PROVED_ROWS = 2_000
"""Rows of each batch whose outputs are compared."""
SUMMED_ROWS = 20
"""Rows of each batch whose contributions are added up."""
SUM_TOLERANCE = 1e-7
"""Of paths that test more than 12 features, as words bring, sums are off by up to 1e-8."""

Batches = Callable[[], Iterable[Arrays]]
"""Yields the arrays of requests in batches, to bound memory."""


@dataclass(frozen=True)
class BuiltExplainer:
    """The content of `explainer.npz`, and what it is."""

    kind: ExplainerKind
    content: bytes


class NotProved(Exception):
    """The explainer does not explain what the served model answers."""


def build_explainer(
    estimator: Any | None,
    *,
    signature: Signature,
    runtime: Runtime,
    background: list[list[Any]],
    training: Batches,
    held_out: Batches,
) -> BuiltExplainer:
    """Build the explainer of any fitted model.

    A linear model or trees, alone or at the end of a pipeline whose features come from one column
    each, is explained exactly; any other by sampling.

    Args:
        estimator: the fitted estimator or pipeline; None if there is only its ONNX form.
        runtime: the model as it is served.
        background: rows to sample from, as clients send them.
        training: the rows that the model was fitted on.
        held_out: rows on which to prove that the explainer explains the served model.
    """
    try:
        return _build_exact(estimator, signature, runtime, training, held_out)
    except Exception:  # whatever the reader of an estimator of unknown make raises
        return BuiltExplainer("sampled", pack_sampled(background))


def _build_exact(
    estimator: Any, signature: Signature, runtime: Runtime, training: Batches, held_out: Batches
) -> BuiltExplainer:
    steps, model = _split(estimator)
    graph = _export_encoder(steps, signature)
    encoder = Encoder(graph, signature)
    inputs = [i for i, column in enumerate(signature.columns) for _ in feature_names(i, column)]
    sources = find_sources(steps, inputs)
    kernel, link = _read(model, encoder, training, features=len(sources))
    explainer = EncodedExplainer(
        encoder=encoder,
        kernel=kernel,
        sources=np.array(sources, dtype=np.int64),
        columns=len(signature.columns),
        link=link,
        is_classifier=signature.classes is not None,
    )
    for arrays in islice(held_out(), PROVED_BATCHES):
        _prove(explainer, runtime, {name: array[:PROVED_ROWS] for name, array in arrays.items()})
    content = pack_exact(kernel, link=link, sources=explainer.sources, encoder=graph)
    return BuiltExplainer("linear" if isinstance(kernel, Linear) else "trees", content)


def _split(estimator: Any) -> tuple[Pipeline | None, Any]:
    """Return the steps before the model, and the model; nested pipelines are one."""
    steps = [("model", estimator)]
    while isinstance(steps[-1][1], Pipeline):
        steps = [*steps[:-1], *steps[-1][1].steps]
    model = steps[-1][1]
    if hasattr(model, "get_booster"):
        model = model.get_booster()
    named = [(str(i), step) for i, (_, step) in enumerate(steps[:-1])]
    return (Pipeline(named) if named else None), model


def _read(
    model: Any, encoder: Encoder, training: Batches, *, features: int
) -> tuple[Linear | Trees, Link]:
    if is_booster(model):
        return read_booster(model)
    if not hasattr(model, "coef_"):
        return read_estimator(model, mean=np.zeros(features))
    total, rows = np.zeros(features), 0
    for arrays in training():
        encoded = encoder.encode(arrays)
        total += encoded.sum(axis=0, dtype=np.float64)
        rows += len(encoded)
    return read_estimator(model, mean=total / max(rows, 1))


def _export_encoder(steps: Pipeline | None, signature: Signature) -> bytes | None:
    """Return the steps before the model as an ONNX graph; None without any."""
    has_table = steps is not None and isinstance(steps[0], NamedTable)
    if has_table and needs_expansion(signature):
        raise NotReadable  # `Encoder` expands, but the owner's steps take what is not expanded
    if steps is None or len(steps) == has_table:
        if not is_one_matrix(signature.columns):
            raise NotReadable
        return None
    return convert(steps, signature)


def _prove(explainer: EncodedExplainer, runtime: Runtime, arrays: Arrays) -> None:
    """Check on some rows that the explained outputs are the served ones, and add up.

    Raises:
        NotProved: they differ.
    """
    output = runtime.compute(runtime.expand(arrays), probabilities=explainer.is_classifier)
    wanted = output.predictions if output.probabilities is None else output.probabilities
    with np.errstate(all="ignore"):
        given = explainer.answer(arrays)
        rows = explainer.encoder.encode(arrays)[:SUMMED_ROWS]
        raw = explainer.kernel.raw(rows)
        if given.shape != wanted.shape or not _is_close(
            given, wanted, output.probabilities is None
        ):
            raise NotProved
        for number in range(raw.shape[1]):
            base, found = explainer.kernel.shap(rows, np.full(len(rows), number))
            wanted_sum = raw[:, number]
            slack = SUM_TOLERANCE * np.maximum(1.0, np.abs(found).sum(axis=1) + np.abs(base))
            if not (np.abs(base + found.sum(axis=1) - wanted_sum) <= slack).all():
                raise NotProved


def _is_close(given: Floats, wanted: Floats, is_value: bool) -> bool:
    slack = np.full(wanted.shape, PROBABILITY_TOLERANCE)
    if is_value:
        slack = NUMBER_TOLERANCE * np.maximum(np.abs(wanted), np.abs(wanted).mean() * 0.01)
    return bool((np.abs(given - wanted) <= slack).all())
