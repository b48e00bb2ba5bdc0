"""Winning accuracy back after a slice."""

from compress.recover.compensate import Compensation, compensate

__all__ = ["Compensation", "compensate"]
