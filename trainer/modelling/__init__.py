"""Fit candidates, compare them by cross-validation, and export the best to ONNX."""
