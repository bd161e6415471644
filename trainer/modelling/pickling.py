"""Pickle models of the owner's, and find out which packages their pickles need."""

import io
import pickle
import sys
from importlib import metadata
from typing import Any

import cloudpickle

from trainer.errors import TrainerError

SERVED = {
    "cloudpickle",
    "joblib",
    "numpy",
    "pandas",
    "registry",
    "scipy",
    "sklearn",
    "threadpoolctl",
}
"""The packages that inference has where it may open pickles."""


def dump_by_value(model: Any, *modules: str) -> bytes:
    """Pickle a model so that it can be loaded without some modules: their code is in the pickle.

    Raises:
        TrainerError: it cannot be pickled.
    """
    found = [sys.modules[name] for name in modules if name in sys.modules]
    for module in found:
        cloudpickle.register_pickle_by_value(module)
    try:
        return bytes(cloudpickle.dumps(model))
    except Exception as error:  # any part of the model may refuse
        raise TrainerError(
            f"The fitted model cannot be pickled: {type(error).__name__}: {error}."
        ) from error
    finally:
        for module in found:
            cloudpickle.unregister_pickle_by_value(module)


def load_recording(content: bytes) -> tuple[Any, dict[str, str]]:
    """Unpickle trusted content; return also the packages it needs besides those inference has.

    Raises:
        Exception: unpickling failed.
    """
    unpickler = _Recorder(io.BytesIO(content))
    model = unpickler.load()
    packages = {name.partition(".")[0] for name in unpickler.modules}
    distributions = metadata.packages_distributions()
    needed: dict[str, str] = {}
    for package in sorted(packages - SERVED - sys.stdlib_module_names):
        for distribution in distributions.get(package, [])[:1]:
            needed[distribution] = metadata.version(distribution)
    return model, needed


class _Recorder(pickle.Unpickler):
    """An unpickler that records the modules it imports."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self.modules: set[str] = set()

    def find_class(self, module: str, name: str) -> Any:
        """Import a global; modules as values are imported by cloudpickle's `subimport`."""
        self.modules.add(module)
        found = super().find_class(module, name)
        if (module, name) == ("cloudpickle.cloudpickle", "subimport"):
            return self._subimport
        return found

    def _subimport(self, name: str) -> Any:
        self.modules.add(name)
        return cloudpickle.cloudpickle.subimport(name)
