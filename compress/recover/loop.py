"""The one training loop: the same on a CPU, on a GPU and on several of them, on one machine or on many."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx, nn

from compress.data import Split
from compress.errors import ModelError
from compress.evaluate import class_scores
from compress.progress import Progress
from compress.recover import samples
from compress.recover.distill import FEATURE_WEIGHT, Teacher, feature_loss, soft_loss
from compress.recover.hooks import Hook
from compress.recover.launch import Interrupt
from compress.recover.losses import gradients, summed_loss
from compress.recover.modes import Modes
from compress.recover.schedule import factor, warmup_steps
from compress.recover.snapshot import snapshot
from compress.recover.state import StateFile
from compress.recover.validation import validate
from compress.recover.weights import Best, optimizer, put, taken
from compress.training import Training

if TYPE_CHECKING:
    from accelerate import Accelerator

_CHECK = 20  # steps between two looks at the loss, which a GPU has to be waited for
_FLATTERED = 0.015  # validation accuracy, see Loop._better


class Loop:
    """One training; `run` goes through it.

    Args:
        network: A traced network; its tensors are trained.
        train, validation: Samples to train on, and to choose the best epoch by.
        settings, seed: What is done.
        accelerator: Where it is done, and with how many processes.
        teacher: The original network, if anything is learned from it.
        features: Names of the nodes of ``network`` that are compared with the teacher's.
        hooks: What is done beside it.
        file: Where the state is kept, if anywhere.
        progress: Told about epochs.
        log: A ``SummaryWriter``, if any.
    """

    def __init__(
        self,
        network: fx.GraphModule,
        train: Split,
        validation: Split,
        settings: Training,
        seed: int,
        accelerator: Accelerator,
        *,
        progress: Progress,
        teacher: Teacher | None = None,
        features: Sequence[str] = (),
        hooks: Sequence[Hook] = (),
        file: StateFile | None = None,
        log: Any = None,
    ) -> None:
        self.network, self.settings, self.seed = network, settings, seed
        self.train, self.validation = train, validation
        self.accelerator, self.teacher, self.hooks = accelerator, teacher, tuple(hooks)
        self.file, self.progress, self.log = file, progress, log
        self.rank, self.processes = accelerator.process_index, accelerator.num_processes
        self.steps_per_epoch = samples.batch_count(len(train), settings.batch_size)
        self.total = settings.epochs * self.steps_per_epoch
        self.augment = samples.Augmentation(settings.augment, tuple(train.inputs.shape[1:]), seed)
        self.has_features = bool(features)
        self.model = Modes(network, self.processes, features)
        # The model is prepared first: a network that runs in several processes is moved before its optimizer is made
        self.ready: Any = accelerator.prepare_model(self.model)
        self.optimizer: Any = accelerator.prepare_optimizer(self._optimizer())
        self.changes: dict[str, Any] = {}  # what `change_optimizer` was given
        self.step = 0
        self.history: list[dict[str, Any]] = []
        self.best: Best | None = None
        self.stopped = ""  # why it ended before its last epoch
        self.diverged = False
        self.loss = torch.zeros((), dtype=torch.float32, device=accelerator.device)  # of this epoch's steps
        self._order: tuple[int, tuple[Tensor, ...]] = (-1, ())

    @property
    def epoch(self) -> int:
        """Epochs that are complete."""
        return self.step // self.steps_per_epoch

    def run(self) -> None:
        """Train to the end, to the last epoch that patience allows, or until the loss is no number; keep the best.

        There is no best epoch where the hooks were ready in none.

        Raises:
            KeyboardInterrupt: After a Ctrl-C, when the state has been saved.
        """
        devices = [self.accelerator.device] if self.accelerator.device.type == "cuda" else []
        deterministic = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True)
        with torch.random.fork_rng(devices=devices), deterministic, Interrupt() as interrupt:
            for hook in self.hooks:
                hook.start(self)
            if not self.history:
                self._judge()
            while self.step < self.total and not self.stopped:
                self._step()
                self._after_step()
                if interrupt.wanted:
                    self._interrupted()
        if self.best is not None:
            put(self.network, self.best.tensors)

    def _step(self) -> None:
        """One step of the optimizer. What it draws at random depends on seed, step and process alone."""
        self.model.train()
        self._seed(samples.stream(self.seed, "step", self.step, self.rank))
        rate = self.rate(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        for hook in self.hooks:
            hook.before_step(self)
        pulls = self._backward(self._batch())
        if self.settings.clip_norm:
            self.accelerator.clip_grad_norm_(self.ready.parameters(), self.settings.clip_norm)
        for parameter, pull in pulls:
            parameter.grad = pull if parameter.grad is None else parameter.grad + pull
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1
        for hook in self.hooks:
            hook.after_step(self)

    def _backward(self, batch: Tensor) -> list[tuple[nn.Parameter, Tensor]]:
        """The gradient of a batch; beside it that of the penalty, where the first alone is to be clipped.

        A method steers its penalty by what it does, so that its gradient has to stay what it is.
        """
        parts = samples.share(batch, self.rank, self.processes, self.settings.accumulate)
        pulls: list[tuple[nn.Parameter, Tensor]] = []
        for i, part in enumerate(parts):
            last = i == len(parts) - 1
            with contextlib.nullcontext() if last else self.accelerator.no_sync(self.ready):
                loss, penalty = self._loss_of(part) / len(batch), self._penalty()
                of_all = loss if penalty is None else loss + penalty / (len(parts) * self.processes)
                self.loss += of_all.detach()
                if penalty is not None and self.settings.clip_norm:
                    pulls += gradients(penalty / len(parts), self.network)
                    of_all = loss
                # Gradients are averaged over processes, and the mean over all samples is meant
                self.accelerator.backward(of_all * self.processes)
        return pulls

    def _seed(self, seed: int) -> None:
        # What torch.manual_seed does where it matters here; for a step of milliseconds that takes long
        torch.default_generator.manual_seed(seed)
        if self.accelerator.device.type == "cuda":
            torch.cuda.manual_seed(seed)

    def _penalty(self) -> Tensor | None:
        found = [penalty for hook in self.hooks if (penalty := hook.penalty(self)) is not None]
        return sum(found[1:], found[0]) if found else None

    def _optimizer(self) -> torch.optim.Optimizer:
        undecayed = {name for hook in self.hooks for name in hook.undecayed()}
        return optimizer(self.network, self.settings, undecayed)

    def change_optimizer(self, **settings: Any) -> None:
        """Go on with a new optimizer that has seen no step; the state keeps which.

        Args:
            settings: Fields of `Training` that differ from now on: optimizer, lr, momentum, nesterov, weight_decay.
        """
        self.changes = {**self.changes, **settings}
        self.settings = replace(self.settings, **settings)
        self.optimizer = self.accelerator.prepare_optimizer(self._optimizer())

    def summed(self, tensor: Tensor) -> Tensor:
        """The sum of a tensor over all processes, each of which has to ask for it."""
        total: Tensor = self.accelerator.reduce(tensor, "sum")
        return total

    def rate(self, step: int) -> float:
        """The learning rate of a step."""
        warmup = warmup_steps(self.total, self.settings.warmup)
        return self.settings.peak * factor(step, self.total, warmup, self.settings.schedule)

    def _batch(self) -> Tensor:
        epoch, position = divmod(self.step, self.steps_per_epoch)
        if self._order[0] != epoch:
            size = self.settings.batch_size
            self._order = (epoch, samples.batches(len(self.train), size, self.seed, epoch))
        return self._order[1][position]

    def _loss_of(self, numbers: Tensor) -> Tensor:
        """The loss of some samples, summed over them."""
        settings, device = self.settings, self.accelerator.device
        inputs = self.augment(self.train.inputs[numbers], numbers, self.step // self.steps_per_epoch).to(device)
        targets = self.train.targets[numbers].to(device)
        wanted = None
        if self.teacher is not None:
            with self.accelerator.autocast():
                wanted, wanted_features = self.teacher(inputs)
        output = self.ready(inputs)
        output, features = output if self.has_features else (output, [])
        scores = class_scores(output, len(inputs)).float()
        loss = summed_loss(scores, targets, settings.loss, settings.label_smoothing)
        if wanted is None:
            return loss
        soft = soft_loss(scores, wanted, settings.temperature)
        loss = (1 - settings.distill_weight) * loss + settings.distill_weight * soft
        return loss + FEATURE_WEIGHT * feature_loss(features, wanted_features) if features else loss

    def _after_step(self) -> None:
        ends_epoch = self.step % self.steps_per_epoch == 0
        saves = self.file is not None and self.step % self.file.every == 0
        if (ends_epoch or saves or self.step % _CHECK == 0) and not math.isfinite(self._total_loss()):
            self._diverge("loss")
        elif ends_epoch:
            for hook in self.hooks:
                hook.after_epoch(self)
            self._judge()
        if (ends_epoch or saves) and not self.diverged:
            self.save()

    def _total_loss(self) -> float:
        """The sum of the losses of the steps of this epoch, over all processes."""
        return float(self.accelerator.reduce(self.loss.clone(), "sum"))

    def _diverge(self, what: str) -> None:
        epoch = self.step // self.steps_per_epoch + (self.step % self.steps_per_epoch > 0)
        best = self.best.epoch if self.best is not None else 0
        kept = f"the weights of epoch {best} are kept" if best else "the weights are left as they were"
        if self.best is None:
            kept = "no epoch before it can be kept"
        self.diverged = True
        self.stopped = f"the {what} is not a number any more in epoch {epoch} (step {self.step}): {kept}"
        self.progress.warn(f"{self.stopped}; a lower --lr may help")

    def _judge(self) -> None:
        """Loss and accuracy on the validation samples: the best epoch is kept, and too many that are none end it."""
        accuracy, loss = self.validated()
        if not math.isfinite(loss):
            if not self.step:
                raise ModelError("the model's scores on the validation samples are not numbers, before any training")
            self._diverge("loss on the validation samples")
            return
        entry: dict[str, Any] = {"epoch": self.epoch}
        if self.step:
            rate = self.optimizer.param_groups[0]["lr"]
            entry |= {"learning rate": rate, "loss": self._total_loss() / self.steps_per_epoch}
        entry |= {"validation loss": loss, "validation accuracy": accuracy}
        for hook in self.hooks:
            entry |= hook.numbers(self)
        self.history.append(entry)
        self.loss.zero_()
        self._tell(self.history[-1])
        score = (accuracy, -loss)
        if all(hook.ready(self) for hook in self.hooks) and self._better(score):
            self.best = Best(self.epoch, score, taken(self.network))
        self._end()

    def _end(self) -> None:
        """Stop before the last epoch where a hook is done, or no better epoch has come for long."""
        reasons = [reason for hook in self.hooks if (reason := hook.finished(self))]
        if self.best is None or self.step >= self.total:
            return
        waited = self.epoch - self.best.epoch
        if self.settings.patience and waited >= self.settings.patience:
            reasons.append(f"no better epoch than {self.best.epoch} in {waited}")
        self.stopped = reasons[0] if reasons else ""

    def _better(self, score: tuple[float, float]) -> bool:
        """Whether an epoch is better than the best so far, by accuracy and then by loss.

        The original may have been trained on the very samples that are kept out here. These flatter the network that
        was cut out of it, and less so the longer it is trained without them: against epoch 0 alone a little is allowed.
        """
        if self.best is None:
            return True
        return score[0] >= self.best.score[0] - _FLATTERED if self.best.epoch == 0 else score > self.best.score

    def validated(self) -> tuple[float, float]:
        """Accuracy and mean loss on the validation samples, over all processes. All of them have to ask."""
        return validate(self.model, self.validation, self.settings, self.accelerator)

    def _tell(self, entry: Mapping[str, Any]) -> None:
        epoch = entry["epoch"]
        loss = f"loss {entry['loss']:.4f}, " if "loss" in entry else ""
        accuracy = f"{100 * entry['validation accuracy']:.2f} % of {len(self.validation):,} validation samples right"
        left = f", {entry['nonzero']:,} parameters not zero" if "nonzero" in entry else ""
        self.progress.step(f"Epoch {epoch} of {self.settings.epochs}: {loss}{accuracy}{left}")
        if self.log is not None:
            for name, value in entry.items():
                if name != "epoch":
                    self.log.add_scalar(name, value, epoch)

    def _interrupted(self) -> None:
        # Of several processes, others may be a step behind and could not take part in a save: the last one counts
        if self.file is not None and self.processes == 1 and math.isfinite(self._total_loss()):
            self.save()
            self.progress.warn(f"stopped after step {self.step} of {self.total}; --resume goes on from there")
        raise KeyboardInterrupt

    def save(self) -> None:
        """Write the state, if it is kept. All processes take part, one writes."""
        if self.file is None:
            return
        loss = self._total_loss()
        if self.accelerator.is_main_process:
            self.file.save(snapshot(self, loss))
