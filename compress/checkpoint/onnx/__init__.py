"""ONNX models in: a file is read into the same graph of operations that tracing a module makes (``reading.py``)."""
