"""The file `explainer.npz` of a version: arrays and an ONNX encoder; no pickles.

kind       "linear", "trees" or "sampled"
linear     the fields of `Linear`
trees      the fields of `Trees`
sampled    `rows`: background rows as JSON, in signature order
both exact kinds: `link`, `sources`, and `encoder` (an ONNX graph; empty for none)
"""

import dataclasses
import io
import json
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from registry.explain.encoded import EncodedExplainer, Encoder, Link
from registry.explain.linear import Linear
from registry.explain.sampled import SampledExplainer
from registry.explain.trees import Trees
from registry.explanations import Explainer
from registry.features import Arrays
from registry.records import Signature
from registry.runtimes.runtime import Runtime

FILE = "explainer.npz"

Named = dict[str, npt.NDArray[Any]]
_READING = threading.Lock()
"""NumPy parses the head of each array as Python source. If threads do so at the same time, CPython
3.11 fails now and then with "AST constructor recursion depth mismatch"."""

_KERNELS: dict[str, type[Linear] | type[Trees]] = {"linear": Linear, "trees": Trees}


def pack_exact(
    kernel: Linear | Trees, *, link: Link, sources: npt.NDArray[np.int64], encoder: bytes | None
) -> bytes:
    """Return the file of an exact explainer; `EncodedExplainer` describes the arguments."""
    kind = "linear" if isinstance(kernel, Linear) else "trees"
    fields: Named = {each.name: getattr(kernel, each.name) for each in dataclasses.fields(kernel)}
    shared: Named = {"link": _text(link), "sources": sources}
    graph = np.frombuffer(encoder or b"", dtype=np.uint8)
    return _save({"kind": _text(kind), "encoder": graph, **shared, **fields})


def pack_sampled(rows: list[list[Any]]) -> bytes:
    """Return the file of a sampling explainer; the background rows are as clients send them."""
    return _save({"kind": _text("sampled"), "rows": _text(json.dumps(rows))})


def load_explainer(
    content: bytes,
    signature: Signature,
    runtime: Runtime,
    decode: Callable[[list[Any]], Arrays],
) -> Explainer:
    """Load a verified file.

    Args:
        decode: turns rows, as clients send them, into the arrays of a request.

    Raises:
        Exception: the file is damaged, or was written by a later Tollgate.
    """
    with _READING, np.load(io.BytesIO(content), allow_pickle=False) as file:
        fields: Named = dict(file)
    kind = _read_text(fields["kind"])
    if kind == "sampled":
        return sample(json.loads(_read_text(fields["rows"])), signature, runtime, decode)
    kernel = _KERNELS[kind]
    names = [field.name for field in dataclasses.fields(kernel)]
    link: Any = _read_text(fields["link"])
    return EncodedExplainer(
        encoder=Encoder(fields["encoder"].tobytes() or None, signature),
        kernel=kernel(**{name: fields[name] for name in names}),
        sources=fields["sources"],
        columns=len(signature.columns),
        link=link,
        is_classifier=signature.classes is not None,
    )


def sample(
    rows: Sequence[Sequence[Any]],
    signature: Signature,
    runtime: Runtime,
    decode: Callable[[list[Any]], Arrays],
) -> SampledExplainer:
    """Return an explainer that samples, with background rows as clients send them."""
    return SampledExplainer(
        runtime,
        decode(list(rows)),
        columns=len(signature.columns),
        is_classifier=signature.classes is not None,
    )


def _save(fields: Named) -> bytes:
    content = io.BytesIO()
    np.savez_compressed(content, **fields)  # type: ignore[arg-type]
    return content.getvalue()


def _text(text: str) -> npt.NDArray[np.uint8]:
    return np.frombuffer(text.encode(), dtype=np.uint8)


def _read_text(array: npt.NDArray[Any]) -> str:
    return array.tobytes().decode()
