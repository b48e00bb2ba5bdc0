"""Latency in the runtime that a network is meant for: measured, predicted from measured layers, and as a budget."""

from compress.latency.networks import measured, measured_pair
from compress.latency.rounds import counted, meet
from compress.latency.table import LatencyModel, tables
from compress.latency.targets import TARGETS, check_target

__all__ = ["TARGETS", "LatencyModel", "check_target", "counted", "measured", "measured_pair", "meet", "tables"]
