"""Explain models whose encoded features are known: linear models and trees."""

from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import onnxruntime

from registry.explanations import Explanations
from registry.features import MATRIX, Arrays, expand, needs_expansion
from registry.records import Signature

Floats = npt.NDArray[np.float64]
Singles = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]

Link = Literal["identity", "logistic", "softmax"]
"""How a model's answer follows from its outputs; `identity` for values and probabilities."""

MAX_ROWS = 1_000


class Kernel(Protocol):
    """A model of encoded features with exact Shapley values."""

    def shap(self, rows: Singles, outputs: Indices) -> tuple[Floats, Floats]: ...
    def raw(self, rows: Singles) -> Floats: ...


class Encoder:
    """Turns the arrays of a request into the encoded features [rows, features] of a model.

    Args:
        content: an ONNX graph of expanded arrays; None if the model takes them as they are.
    """

    def __init__(self, content: bytes | None, signature: Signature) -> None:
        self._signature = signature if needs_expansion(signature) else None
        self._session: Any = None
        if content is not None:
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = options.inter_op_num_threads = 1
            options.log_severity_level = 3
            self._session = onnxruntime.InferenceSession(
                content, options, providers=["CPUExecutionProvider"]
            )

    def encode(self, arrays: Arrays) -> Singles:
        """Return the encoded features."""
        if self._session is None:
            return arrays[MATRIX]
        inputs = arrays if self._signature is None else expand(arrays, self._signature)
        return np.asarray(self._session.run(None, inputs)[0], dtype=np.float32)


@dataclass(frozen=True)
class EncodedExplainer:
    """Explains a linear model or trees exactly.

    Args:
        sources: [features] the position of the column that each encoded feature comes from.
        columns: how many columns the signature has.
        is_classifier: if so, one output means the score of the second class of two.
    """

    encoder: Encoder
    kernel: Kernel
    sources: Indices
    columns: int
    link: Link
    is_classifier: bool

    max_rows = MAX_ROWS

    @property
    def needs_probabilities(self) -> bool:
        """Whether probabilities are explained, not raw scores."""
        return self.is_classifier and self.link == "identity"

    def explain(self, arrays: Arrays, chosen: Indices, served: Floats | None) -> Explanations:
        """Explain rows; see `Explainer`."""
        rows = self.encoder.encode(arrays)
        is_one_score = self.link == "logistic"
        base, found = self.kernel.shap(rows, np.zeros_like(chosen) if is_one_score else chosen)
        contributions = self._sum_by_column(found)
        if is_one_score:
            sign = np.where(chosen == 1, 1.0, -1.0)
            base, contributions = base * sign, contributions * sign[:, None]
        if served is not None and self.link == "identity":
            _absorb_rounding(contributions, served - base)
        return Explanations(base, contributions, is_approximate=False)

    def answer(self, arrays: Arrays) -> Floats:
        """Return the values [rows] or probabilities [rows, classes] that the kernel stands for."""
        raw = self.kernel.raw(self.encoder.encode(arrays))
        if not self.is_classifier:
            return np.asarray(raw[:, 0])
        match self.link:
            case "identity":
                return raw
            case "logistic":
                second = 1 / (1 + np.exp(-np.clip(raw, -700, 700)))
                return np.hstack([1 - second, second])
            case "softmax":
                powers = np.exp(raw - raw.max(axis=1, keepdims=True))
                return np.asarray(powers / powers.sum(axis=1, keepdims=True))

    def _sum_by_column(self, found: Floats) -> Floats:
        if len(self.sources) == self.columns and (self.sources == np.arange(self.columns)).all():
            return found
        summed = np.zeros((len(found), self.columns))
        np.add.at(summed.T, self.sources, found.T)
        return summed


def _absorb_rounding(contributions: Floats, wanted: Floats) -> None:
    """Add the rounding of the served model's float32 arithmetic to the largest contributions.

    Args:
        wanted: [rows] what the contributions of a row shall add up to.
    """
    rows, largest = np.arange(len(contributions)), np.abs(contributions).argmax(axis=1)
    contributions[rows, largest] += wanted - contributions.sum(axis=1)
