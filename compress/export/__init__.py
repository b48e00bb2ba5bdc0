"""Artifacts for other runtimes: ONNX and the archive of ``torch.export``, run before they are handed over."""

from __future__ import annotations

from compress.export.onnx import OnnxExport, export_onnx
from compress.export.pt2 import Pt2Export, export_pt2

__all__ = ["OnnxExport", "Pt2Export", "export_onnx", "export_pt2"]
