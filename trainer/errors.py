"""Errors of a training run, except those of the model store.

TrainerError        training produced no version; the message is one line for the operator
├── DataError       the data or dataset.json is invalid
│   ├── NoData      the model has no data
│   └── EmptyPart   a file without even a header
└── ExportError     a fitted candidate cannot be served as ONNX
"""


class TrainerError(Exception):
    """Training produced no version."""


class DataError(TrainerError):
    """The data or `dataset.json` is invalid."""


class NoData(DataError):
    """The model has no data folder, or no data file in it."""


class EmptyPart(DataError):
    """A file has no header; the other parts may be fine."""


class ExportError(TrainerError):
    """A model has no ONNX form, or its ONNX form predicts differently."""
