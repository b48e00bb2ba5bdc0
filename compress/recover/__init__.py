"""Winning accuracy back after a slice."""

from compress.recover.compensate import Compensation, compensate
from compress.recover.finetune import Trained, finetune
from compress.recover.hooks import Hook
from compress.recover.session import InSession
from compress.recover.state import StateFile

__all__ = ["Compensation", "Hook", "InSession", "StateFile", "Trained", "compensate", "finetune"]
