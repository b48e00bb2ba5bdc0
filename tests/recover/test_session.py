"""Sessions of retrain methods in the training loop: what they may do there, and what they see."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compress.errors import InputError, PluginError
from compress.plugin import Context, Loop, Plan
from compress.recover import InSession, finetune
from compress.testing import check_plugin
from compress.training import Training
from tests.sessions import SETTINGS, Nothing, Plain, mlp, samples, train


def test_a_penalty_has_its_gradient_in_every_step() -> None:
    class Shrink(Nothing):
        def penalty(self, loop: Loop) -> Tensor:
            return 100 * loop.network.get_parameter("0.weight").square().sum()

    parts = Training(**{**vars(SETTINGS), "accumulate": 4, "lr": 1e-6})
    whole = Training(**{**vars(SETTINGS), "lr": 1e-6})
    session = [Shrink(Context(mlp())) for _ in range(2)]
    found = [
        finetune(s.network, samples(), settings, hooks=[InSession(s)]).history[1]["loss"]
        for s, settings in zip(session, (whole, parts), strict=True)
    ]
    assert found[0] == pytest.approx(found[1], rel=1e-5)  # once, in however many parts a batch is run
    assert found[0] > 100  # it is of the loss, too


def test_an_epoch_that_is_not_ready_is_not_kept() -> None:
    class Late(Nothing):
        def ready(self, loop: Loop) -> bool:
            return loop.epoch == 2

        def numbers(self, loop: Loop) -> Mapping[str, float]:
            return {"steps": loop.step}

    trained = train(Late(Context(mlp())))
    assert trained.best == 2 and [e["steps"] for e in trained.history] == [0, 4, 8, 12]
    assert all(e["nonzero"] == 6 * 12 + 12 + 36 + 3 for e in trained.history)

    class Never(Nothing):
        def ready(self, loop: Loop) -> bool:
            return False

    with pytest.raises(InputError, match="the method was not done with the network in any epoch"):
        train(Never(Context(mlp())))


def test_a_session_ends_the_training_and_sees_how_it_goes() -> None:
    class Early(Nothing):
        def ready(self, loop: Loop) -> bool:
            return loop.epoch >= 1

        def after_epoch(self, loop: Loop) -> None:
            self.before = (len(loop.history), loop.validated())

        def numbers(self, loop: Loop) -> Mapping[str, float]:
            return {"own": 7.0}

        def finished(self, loop: Loop) -> str:
            last = loop.history[-1]
            assert last["own"] == 7.0 and last["epoch"] == loop.epoch
            if loop.epoch:
                assert self.before == (loop.epoch, (last["validation accuracy"], last["validation loss"]))
            return "enough" if loop.epoch != 1 else ""

    trained = train(Early(Context(mlp())))
    assert len(trained.history) == 3 and trained.stopped == "enough"  # not at epoch 0, when nothing was ready


def test_a_loss_that_is_no_number_before_the_method_is_done() -> None:
    class Breaks(Nothing):
        def ready(self, loop: Loop) -> bool:
            return loop.epoch == 3

        def after_step(self, loop: Loop) -> None:
            with torch.no_grad():
                loop.network.get_parameter("0.weight").fill_(torch.nan)

    with pytest.raises(
        InputError, match=r"not a number any more in epoch 1 .*: no epoch before it can be kept"
    ) as found:
        train(Breaks(Context(mlp())))
    assert found.value.hint == "a lower --lr"


class Still(Nothing):
    """A second tensor of two dims that nothing reads, so that decay alone could move it."""

    named: tuple[str, ...] = ("still",)

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.network.still = nn.Parameter(torch.ones(2, 2))

    def undecayed(self) -> tuple[str, ...]:
        return self.named

    def penalty(self, loop: Loop) -> Tensor:
        return 0 * loop.network.get_parameter("still").sum()


class Unnamed(Still):
    named = ()


class Misnamed(Still):
    named = ("stil",)


def test_what_a_session_names_does_not_decay() -> None:
    decayed = Training(**{**vars(SETTINGS), "weight_decay": 0.1})
    for made, same in ((Still, True), (Unnamed, False)):
        session = made(Context(mlp()))
        found = finetune(session.network, samples(), decayed, hooks=[InSession(session)]).module
        assert torch.equal(found.get_parameter("still"), torch.ones(2, 2)) == same
    with pytest.raises(PluginError, match=r"Misnamed\.undecayed names 'stil', which is no parameter"):
        train(Misnamed(Context(mlp())))


@pytest.mark.parametrize("parts", [1, 4])
def test_a_penalty_pulls_as_it_is_while_the_gradient_of_the_samples_is_clipped(parts: int) -> None:
    """12 steps of 0.001 by hand: the penalty's slope is 1000, and the other tensors move by 0.0001 a step at most."""

    class Pulled(Still):
        def penalty(self, loop: Loop) -> Tensor:
            return 1000 * loop.network.get_parameter("still").sum()

        def ready(self, loop: Loop) -> bool:
            return loop.epoch == 3

    plain = replace(
        SETTINGS, accumulate=parts, lr=0.001, momentum=0, nesterov=False, schedule="constant", clip_norm=0.1
    )
    session = Pulled(Context(mlp()))
    before = {name: tensor.detach().clone() for name, tensor in session.network.named_parameters()}
    trained = finetune(session.network, samples(), plain, hooks=[InSession(session)]).module
    torch.testing.assert_close(trained.get_parameter("still"), torch.full((2, 2), -11.0))
    after = dict(trained.named_parameters())
    moved = [float((after[n].detach() - before[n]).norm()) for n in before if n != "still"]
    assert 0 < max(moved) < 12 * 0.0001 * 1.001


class Changes(Nothing):
    """Goes on with another optimizer after the second epoch."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.kinds: list[str] = []

    def after_step(self, loop: Loop) -> None:
        self.kinds.append(f"{type(loop.optimizer.optimizer).__name__} {loop.optimizer.param_groups[0]['lr']:g}")

    def after_epoch(self, loop: Loop) -> None:
        if loop.epoch == 2:
            loop.change_optimizer(optimizer="adamw", lr=1e-3, weight_decay=0.0)

    def plan(self, context: Context) -> Plan:
        return Plan({context.groups[0].name: np.array([0])})


def test_another_optimizer_from_some_step_on() -> None:
    session = Changes(Context(mlp()))
    settings = Training(**{**vars(SETTINGS), "schedule": "constant"})
    trained = finetune(session.network, samples(), settings, hooks=[InSession(session)])
    assert session.kinds == ["SGD 0.05"] * 8 + ["AdamW 0.001"] * 4
    assert [entry.get("learning rate") for entry in trained.history] == [None, 0.05, 0.001, 0.001]
    check_plugin(Plain(Changes))  # cut off after the change, it goes on with it


def test_what_a_session_sees_of_the_training() -> None:
    class Looks(Nothing):
        def begin(self, loop: Loop) -> None:
            self.epochs = loop.history
            self.summed = loop.summed(torch.ones(2)).tolist()

    session = Looks(Context(mlp()))
    trained = train(session)
    assert session.summed == [1.0, 1.0] and tuple(session.epochs) == trained.history
