"""Checkpoints: read every usual form of a trained model, find its architecture, write bundles."""

from __future__ import annotations

from compress.checkpoint.read import LoadedModel, load_model

__all__ = ["LoadedModel", "load_model"]
