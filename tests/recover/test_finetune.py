"""The training loop on small networks and little data."""

from __future__ import annotations

import importlib
import signal
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from compress.data import Split, load_data
from compress.errors import InputError, ModelError
from compress.graph import trace
from compress.progress import Silent
from compress.recover import Hook, StateFile, Trained, finetune
from compress.recover.loop import Loop
from compress.training import Training

FAST = Training(epochs=2, batch_size=32, lr=0.05)


class Told(Silent):
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)


def digits(count: int = 200) -> Split:
    train = load_data("digits").train
    assert train is not None
    return Split(train.inputs[:count], train.targets[:count])


def network(seed: int = 0, classes: int = 10, module: nn.Module | None = None) -> fx.GraphModule:
    torch.manual_seed(seed)
    before = (nn.Conv2d(1, 4, 3, stride=2), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.1))
    made = module or nn.Sequential(*before, nn.Flatten(), nn.Linear(36, classes))
    return trace(made.eval(), (torch.randn(2, 1, 8, 8),)).module


def tensors(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach() for name, tensor in (*module.named_parameters(), *module.named_buffers())}


def same(one: nn.Module, other: nn.Module) -> bool:
    a, b = tensors(one), tensors(other)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


class Ready(Hook):
    """Nothing is a candidate before so many steps."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def ready(self, loop: Loop) -> bool:
        return loop.step >= self.steps


class Stop(Hook):
    """A Ctrl-C in the middle of a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def after_step(self, loop: Loop) -> None:
        if loop.step == self.step:
            signal.raise_signal(signal.SIGINT)


def test_it_learns_and_leaves_the_network_that_went_in() -> None:
    before, start = network(), network()
    trained = finetune(start, digits(), replace(FAST, epochs=8))
    assert same(start, before)
    assert (trained.train, trained.validation, trained.distill) == (180, 20, "none")
    assert [entry["epoch"] for entry in trained.history] == list(range(9))
    assert trained.history[-1]["loss"] < trained.history[1]["loss"]
    best = max(trained.history, key=lambda e: (e["validation accuracy"], -e["validation loss"]))
    assert trained.best == best["epoch"] > 0 and best["validation accuracy"] > 0.5
    assert not torch.equal(trained.module.get_buffer("1.running_mean"), start.get_buffer("1.running_mean"))


def test_the_steps_are_those_of_plain_torch() -> None:
    """One epoch of one batch with label smoothing and weight decay, by hand."""
    data, start = digits(40), network(module=nn.Sequential(nn.Flatten(), nn.Linear(64, 10)))
    settings = Training(
        epochs=2, batch_size=64, lr=0.1, momentum=0.9, nesterov=False, weight_decay=0.01, warmup=0, label_smoothing=0.2
    )
    trained = finetune(start, data, settings, hooks=(Ready(2),))
    numbers = torch.randperm(40, generator=torch.Generator().manual_seed(0))[4:].sort().values
    x, y = data.inputs[numbers].flatten(1), data.targets[numbers]
    weight, bias = (tensors(start)[name].clone().requires_grad_() for name in ("1.weight", "1.bias"))
    momentum = [torch.zeros_like(weight), torch.zeros_like(bias)]
    for rate in (0.1, 0.05):  # half of a cosine's way down
        smooth = torch.full((36, 10), 0.02).scatter_(1, y[:, None], 0.82)
        loss = -(smooth * functional.log_softmax(x @ weight.T + bias, 1)).sum(1).mean()
        for i, (p, grad) in enumerate(zip((weight, bias), torch.autograd.grad(loss, (weight, bias)), strict=True)):
            momentum[i] = 0.9 * momentum[i] + grad + (0.01 * p.detach() if p is weight else 0)
            with torch.no_grad():
                p -= rate * momentum[i]
    assert trained.best == 2
    torch.testing.assert_close(tensors(trained.module)["1.weight"], weight.detach())
    torch.testing.assert_close(tensors(trained.module)["1.bias"], bias.detach())


def test_long_gradients_are_scaled_down_to_the_norm() -> None:
    """One step of plain gradient descent, by hand: weights of 30 have a gradient that is far too long."""
    data, start = digits(40), network(module=nn.Sequential(nn.Flatten(), nn.Linear(64, 10, bias=False)))
    with torch.no_grad():
        start.get_parameter("1.weight").mul_(30)
    plain = Training(epochs=1, batch_size=64, lr=0.5, momentum=0, weight_decay=0, warmup=0, schedule="constant")
    first = tensors(start)["1.weight"].clone()
    for limit, norm in ((0.25, 0.25), (1e6, None), (0.0, None)):
        trained = finetune(start, data, replace(plain, clip_norm=limit), hooks=(Ready(1),))
        moved = float((tensors(trained.module)["1.weight"] - first).norm()) / 0.5
        assert moved == pytest.approx(norm, rel=1e-4) if norm else moved > 1


@pytest.mark.parametrize(("layer", "passes"), [(nn.BatchNorm1d(8), False), (nn.LayerNorm(8), True)])
def test_a_batch_of_one_sample_has_no_variance(layer: nn.Module, passes: bool) -> None:
    start = network(module=nn.Sequential(nn.Flatten(), nn.Linear(64, 8), layer, nn.Linear(8, 10)))
    single, parts = replace(FAST, epochs=1, batch_size=1), replace(FAST, epochs=1, batch_size=9, accumulate=5)
    for settings in (single, parts):
        if passes:
            assert len(finetune(start, digits(20), settings).history) == 2
            continue
        with pytest.raises(InputError, match="one value of each channel, which has no variance"):
            finetune(start, digits(20), settings)
    finetune(start, digits(20), replace(parts, accumulate=4))


@pytest.mark.parametrize("settings", [FAST, replace(FAST, optimizer="adamw", lr=0.01, precision="bf16")])
def test_the_same_seed_gives_the_same_result_twice(settings: Training) -> None:
    first, second, other = (finetune(network(), digits(), settings, seed=seed) for seed in (1, 1, 2))
    assert same(first.module, second.module) and first.history == second.history
    assert not same(first.module, other.module)


def test_parts_of_a_batch_sum_up_to_the_batch() -> None:
    plain = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    whole, parts = (finetune(network(module=plain), digits(), replace(FAST, accumulate=n)) for n in (1, 3))
    for name, tensor in tensors(whole.module).items():
        torch.testing.assert_close(tensors(parts.module)[name], tensor, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("step", [3, 6, 8])  # in the middle of an epoch, at the end of one, in the next
def test_resumed_is_uninterrupted_bit_for_bit(tmp_path: Path, optimizer: Any, step: int) -> None:
    settings = replace(FAST, optimizer=optimizer, epochs=3)
    expected = finetune(network(), digits(), settings)
    file, told = StateFile(tmp_path / "state", {}), Told()
    with pytest.raises(KeyboardInterrupt):
        finetune(network(), digits(), settings, file=file, hooks=(Stop(step),), progress=told)
    assert told.warnings == [f"stopped after step {step} of 18; --resume goes on from there"]
    found = finetune(network(), digits(), settings, file=file, resume=True, hooks=(Stop(0),))
    assert same(found.module, expected.module)
    assert found.history == expected.history and found.best == expected.best


def test_going_on_from_the_last_save(tmp_path: Path) -> None:
    """As after a kill: the state is older than the last step."""

    class Gone(Hook):
        def after_step(self, loop: Loop) -> None:
            if loop.step == 5:
                raise ConnectionError("the machine is gone")

    expected = finetune(network(), digits(), FAST)
    file = StateFile(tmp_path / "state", {}, every=2)
    with pytest.raises(ConnectionError):
        finetune(network(), digits(), FAST, file=file, hooks=(Gone(),))
    assert file.load()["step"] == 4
    found = finetune(network(), digits(), FAST, file=file, resume=True, hooks=(Hook(),))
    assert same(found.module, expected.module) and found.history == expected.history


def test_hooks_keep_their_state(tmp_path: Path) -> None:
    class Counter(Hook):
        def __init__(self) -> None:
            self.started, self.steps, self.epochs = 0, 0, 0

        def start(self, loop: Loop) -> None:
            self.started += 1

        def numbers(self, loop: Loop) -> Mapping[str, float]:
            assert self.started  # also before epoch 0 is judged
            return {}

        def before_step(self, loop: Loop) -> None:
            assert loop.optimizer.param_groups[0]["lr"] == loop.rate(loop.step)

        def after_step(self, loop: Loop) -> None:
            self.steps += 1

        def after_epoch(self, loop: Loop) -> None:
            self.epochs += 1

        def state(self) -> dict[str, Any]:
            return {"steps": self.steps, "epochs": self.epochs}

        def load(self, state: Mapping[str, Any]) -> None:
            self.steps, self.epochs = state["steps"], state["epochs"]

    file, first, second = StateFile(tmp_path, {}), Counter(), Counter()
    with pytest.raises(KeyboardInterrupt):
        finetune(network(), digits(), FAST, file=file, hooks=(first, Stop(8)))
    finetune(network(), digits(), FAST, file=file, resume=True, hooks=(second, Stop(0)))
    assert (first.started, first.steps, first.epochs) == (1, 8, 1)
    assert (second.started, second.steps, second.epochs) == (1, 12, 2)


def test_a_loss_that_is_no_number_ends_it_with_the_best_weights(tmp_path: Path) -> None:
    class Break(Hook):
        def before_step(self, loop: Loop) -> None:
            if loop.step == 8:
                with torch.no_grad():
                    next(loop.network.parameters()).fill_(float("nan"))

    told, file = Told(), StateFile(tmp_path, {}, every=1)
    trained = finetune(network(), digits(), FAST, hooks=(Break(),), progress=told, file=file)
    assert trained.diverged and trained.best == 1
    assert trained.stopped.startswith("the loss is not a number any more in epoch 2 (step 9)")
    assert "the weights of epoch 1 are kept" in told.warnings[0] and "--lr" in told.warnings[0]
    assert all(bool(t.isfinite().all()) for t in tensors(trained.module).values())
    assert file.load()["step"] == 8  # what is broken is not saved


def test_patience() -> None:
    trained = finetune(network(), digits(), replace(FAST, epochs=9, lr=1e-12, patience=2))
    assert 0 < len(trained.history) - 1 - trained.best <= 2 or trained.best == 9
    assert trained.stopped.startswith("no better epoch than")
    endless = finetune(network(), digits(60), replace(FAST, epochs=4, lr=1e-12, patience=0))
    assert (len(endless.history), endless.stopped) == (5, "")


class Wrong(Hook):
    """Gives validation samples that were right another class after an epoch, so many of a hundred."""

    def __init__(self, *wrong: int) -> None:
        self.wrong = wrong

    def after_epoch(self, loop: Loop) -> None:
        right = loop.network(loop.validation.inputs).argmax(1).detach().clone()
        right[: self.wrong[loop.epoch - 1]] += 1
        loop.validation = Split(loop.validation.inputs, right % 10)


@pytest.mark.parametrize(("wrong", "best"), [((1,), 1), ((2,), 0), ((2, 1), 2), ((1, 2), 1), ((1, 0), 2), ((2, 2), 0)])
def test_samples_that_the_original_has_seen_flatter_the_network_as_it_came(wrong: tuple[int, ...], best: int) -> None:
    start, x = network(module=nn.Sequential(nn.Flatten(), nn.Linear(64, 10))), digits(200).inputs
    data = Split(x, start(x).argmax(1).detach())  # all are right before the first epoch
    settings = replace(FAST, epochs=len(wrong), lr=1e-9, validation=0.5)
    assert finetune(start, data, settings, hooks=[Wrong(*wrong)]).best == best


def test_zeros_stay_zeros() -> None:
    start = network()
    weight = start.get_parameter("5.weight")
    with torch.no_grad():
        weight[:, ::2] = 0
    trained = finetune(start, digits(), replace(FAST, optimizer="adamw", lr=0.01)).module.get_parameter("5.weight")
    assert bool((trained[:, ::2] == 0).all()) and bool((trained[:, 1::2] != 0).all())
    assert not torch.equal(trained, weight)


@pytest.mark.parametrize("kind", ["logits", "features"])
def test_a_teacher_that_is_right_helps(kind: Any) -> None:
    data = digits(400)
    teacher = finetune(network(), data, replace(FAST, epochs=15)).module
    noise = Split(data.inputs, torch.randint(0, 10, (400,), generator=torch.Generator().manual_seed(0)))
    settings = replace(FAST, epochs=6, distill=kind, distill_weight=1.0)
    alone = finetune(network(1), noise, replace(settings, distill="none"))
    taught = finetune(network(1), noise, settings, teacher=teacher)
    assert taught.distill == kind

    def right(trained: Trained) -> float:
        with torch.no_grad():
            return float((trained.module(data.inputs).argmax(1) == data.targets).float().mean())

    assert right(taught) > right(alone) + 0.3


def test_the_teacher_is_not_changed_by_a_student_that_shares_its_tensors() -> None:
    teacher = network()
    before = {name: tensor.clone() for name, tensor in tensors(teacher).items()}
    finetune(teacher, digits(), FAST, teacher=teacher)
    assert all(torch.equal(tensor, before[name]) for name, tensor in tensors(teacher).items())
    assert all(p.grad is None for p in teacher.parameters())


def test_frozen_parameters_stay() -> None:
    start = network()
    start.get_parameter("0.weight").requires_grad_(False)
    trained = finetune(start, digits(), FAST).module
    assert torch.equal(trained.get_parameter("0.weight"), start.get_parameter("0.weight"))
    assert not torch.equal(trained.get_parameter("5.weight"), start.get_parameter("5.weight"))
    for parameter in start.parameters():
        parameter.requires_grad_(False)
    with pytest.raises(ModelError, match="every parameter of the model is frozen"):
        finetune(start, digits(), FAST)


def test_a_batch_larger_than_the_data_is_made_smaller_and_said() -> None:
    told = Told()
    finetune(network(), digits(50), replace(FAST, batch_size=64), progress=told)
    assert told.warnings == ["there are 50 training samples, fewer than a batch of 64: all are one"]


def test_what_does_not_go_together() -> None:
    data = digits()
    one = Split(data.inputs, torch.full_like(data.targets, 3))
    with pytest.raises(InputError, match="all training samples are of class 3"):
        finetune(network(), one, FAST)
    with pytest.raises(InputError, match="the model tells 5 classes apart, the training labels go up to 9"):
        finetune(network(classes=5), data, FAST)
    with pytest.raises(InputError, match="the teacher tells 12 classes apart, the model 10"):
        finetune(network(), data, FAST, teacher=network(classes=12))
    with pytest.raises(InputError, match="--distill logits needs the original model"):
        finetune(network(), data, replace(FAST, distill="logits"))
    with pytest.raises(InputError, match="--precision fp16"):
        finetune(network(), data, replace(FAST, precision="fp16"))
    with pytest.raises(InputError, match="cannot be divided over 1 processes in 99 parts"):
        finetune(network(), data, replace(FAST, accumulate=99))
    with pytest.raises(InputError, match="there is no state to resume"):
        finetune(network(), data, FAST, resume=True)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of TensorBoard itself
def test_a_log_for_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    accumulator = importlib.import_module("tensorboard.backend.event_processing.event_accumulator")
    trained = finetune(network(), digits(), FAST, log=tmp_path / "log")
    events = accumulator.EventAccumulator(str(tmp_path / "log")).Reload()
    found = [event.value for event in events.Scalars("validation loss")]
    assert found == pytest.approx([entry["validation loss"] for entry in trained.history], rel=1e-5)


def test_weights_that_blow_up_are_no_result(tmp_path: Path) -> None:
    class Late(Hook):
        """As a method whose network counts from the first step on."""

        def ready(self, loop: Loop) -> bool:
            return loop.step > 0

    class Far(Late):
        """The loss is no less a number for it."""

        def after_step(self, loop: Loop) -> None:
            with torch.no_grad():
                loop.network.get_parameter("1.bias")[3] = 1e6

    plain, file = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), StateFile(tmp_path / "state", {}, every=1)
    with pytest.raises(InputError, match=r"the weights blew up\. On the validation samples the loss was 2\.") as caught:
        finetune(network(module=plain), digits(), FAST, hooks=(Far(),), file=file)
    assert "best epoch, 1" in str(caught.value) or "best epoch, 2" in str(caught.value)
    assert caught.value.hint.startswith("a lower --lr") and not list(tmp_path.iterdir())
    assert finetune(network(module=plain), digits(), FAST, hooks=(Late(),)).best > 0
