"""The session of a retrain method in the training loop."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

from compress.counting import count_nonzero
from compress.errors import PluginError
from compress.recover.hooks import Hook
from compress.retrain import Session, guarded

if TYPE_CHECKING:
    from compress.recover.loop import Loop


class InSession(Hook):
    """Passes the loop's calls on; what a plugin raises becomes a PluginError.

    The history tells of every epoch how many parameters are not zero.
    """

    def __init__(self, session: Session) -> None:
        self.session = session

    def undecayed(self) -> Iterable[str]:
        with guarded(self.session):
            names = tuple(self.session.undecayed())
        known = dict(self.session.network.named_parameters())
        strange = [name for name in names if name not in known]
        if strange:
            raise PluginError(f"{type(self.session).__name__}.undecayed names {strange[0]!r}, which is no parameter")
        return names

    def start(self, loop: Loop) -> None:
        with guarded(self.session):
            self.session.begin(loop)

    def before_step(self, loop: Loop) -> None:
        with guarded(self.session):
            self.session.before_step(loop)

    def penalty(self, loop: Loop) -> Tensor | None:
        with guarded(self.session):
            return self.session.penalty(loop)

    def after_step(self, loop: Loop) -> None:
        with guarded(self.session):
            self.session.after_step(loop)

    def after_epoch(self, loop: Loop) -> None:
        with guarded(self.session):
            self.session.after_epoch(loop)

    def ready(self, loop: Loop) -> bool:
        with guarded(self.session):
            return self.session.ready(loop)

    def finished(self, loop: Loop) -> str:
        with guarded(self.session):
            return self.session.finished(loop)

    def numbers(self, loop: Loop) -> Mapping[str, float]:
        with guarded(self.session):
            return {"nonzero": count_nonzero(loop.network), **self.session.numbers(loop)}

    def state(self) -> dict[str, Any]:
        with guarded(self.session):
            return self.session.state()

    def load(self, state: Mapping[str, Any]) -> None:
        with guarded(self.session):
            self.session.load(state)
