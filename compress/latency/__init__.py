"""Latency in the runtime that a network is meant for: measured, predicted from measured layers, and as a budget."""

from compress.latency.table import LatencyModel, tables

__all__ = ["LatencyModel", "tables"]
