"""Run ONNX models. Unlike a pickle, an ONNX file is data and executes no code of its author."""

import onnxruntime

from registry.features import Arrays
from registry.records import Signature
from registry.runtimes.runtime import InferenceResponse, check_finite


class OnnxRuntime:
    """One loaded ONNX model; safe to call from several threads at once.

    Args:
        content: the bytes of a verified `model.onnx`.

    Raises:
        Exception: onnxruntime cannot load the model; its errors share no base class.
    """

    def __init__(self, content: bytes, signature: Signature) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # the engine's pool provides the parallelism
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(
            content, options, providers=["CPUExecutionProvider"]
        )
        outputs = [output.name for output in self._session.get_outputs()]
        self._labels = outputs[:1]
        is_classifier = signature.task == "classification"
        self._labels_and_probabilities = outputs[:2] if is_classifier else outputs[:1]
        # ONNX returns boolean labels as 0 and 1.
        self._boolean = any(label is True for label in signature.classes or [])

    def run(self, arrays: Arrays, *, probabilities: bool = False) -> InferenceResponse:
        """Predict as described in `Runtime`."""
        outputs_to_compute = self._labels_and_probabilities if probabilities else self._labels
        outputs = self._session.run(outputs_to_compute, arrays)
        check_finite(outputs[-1])
        predictions = outputs[0].ravel().tolist()
        if self._boolean:
            predictions = [bool(label) for label in predictions]
        return InferenceResponse(predictions, outputs[1].tolist() if probabilities else None)
