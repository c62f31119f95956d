"""Tritier: split one ONNX model across several Triton servers and serve it as one model."""

__version__ = "0.1.0"
