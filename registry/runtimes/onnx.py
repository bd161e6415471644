"""Run ONNX models. Unlike a pickle, an ONNX file is data and executes no code of its author."""

import onnxruntime

from registry.features import Arrays
from registry.records import Signature
from registry.runtimes.runtime import ModelOutput, Runtime


class OnnxRuntime(Runtime):
    """One loaded ONNX model, on one thread: the caller's pool provides the parallelism.

    Args:
        content: the bytes of a verified `model.onnx`.

    Raises:
        Exception: onnxruntime cannot load the model; its errors share no base class.
    """

    def __init__(self, content: bytes, signature: Signature, *, expands: bool = True) -> None:
        super().__init__(signature, expands=expands)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(
            content, options, providers=["CPUExecutionProvider"]
        )
        outputs = [output.name for output in self._session.get_outputs()]
        self._labels = outputs[:1]
        is_classifier = signature.task == "classification"
        self._labels_and_probabilities = outputs[:2] if is_classifier else outputs[:1]

    def compute(self, inputs: Arrays, *, probabilities: bool = False) -> ModelOutput:
        """Run the graph, which returns labels or values first, and then probabilities."""
        names = self._labels_and_probabilities if probabilities else self._labels
        outputs = self._session.run(names, inputs)
        return ModelOutput(outputs[0].ravel(), outputs[1] if probabilities else None)
