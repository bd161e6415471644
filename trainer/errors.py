"""What can go wrong in a training, besides the store.

TrainerError        the training made no version; the message is one line for the operator
├── DataError       the data, or what is stated about it, cannot be trained on
│   └── EmptyPart   a file without even a header
└── ExportError     a fitted candidate cannot be served as ONNX
"""


class TrainerError(Exception):
    """The training made no version."""


class DataError(TrainerError):
    """The data cannot be trained on."""


class EmptyPart(DataError):
    """A file has no header: other parts may still do."""


class ExportError(TrainerError):
    """A model has no ONNX form, or one that answers differently."""
