"""Several layers at once: Gauss-Newton steps, each the least squares of the layers linearised where they stand.

The squares are solved by conjugate gradients on products with the Jacobian, which is never formed, preconditioned by
the second moments of each layer's inputs and of the influence of its outputs on the result (as in K-FAC).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.func import jvp, vjp
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from compress.calibration.layers import Layers, op_of
from compress.calibration.normal import flat_weight, unflatten
from compress.graph.quiet import quiet
from compress.recover.window import Window

STEPS = 2
ITERATIONS = 4  # of conjugate gradients; more of them fit the noise of the samples
PASSES = STEPS * (5 * ITERATIONS + 5)  # forward passes that all steps take, a backward pass counting as two
DAMPING = 1e-3  # of the second moments, relative to their mean

FEW = 128  # samples of the preconditioner

Env = Mapping[fx.Node, Any]
Tensors = dict[str, Tensor]  # changes of parameters by their names


class Joint:
    """The layers of one window as one function of their weights and shifts.

    Args:
        part: The window.
        layers: Of the graph.
        generator: Draws signs and positions.
    """

    def __init__(self, part: Window, layers: Layers, generator: torch.Generator) -> None:
        self.part, self.layers, self.generator = part, layers, generator
        self.weights = {node: layers.name(node) for node in part.layers}
        shifts = {node: layers.shift(node) for node in part.layers}
        self.shifts = {node: f"{node.name}:shift" for node, shift in shifts.items() if shift and self._read(shift[0])}
        self.written = {node.args[0] for node in part.nodes if op_of(node).endswith("_")}  # in place

    def _read(self, name: str) -> bool:
        """Whether the window, and not what follows it, adds or subtracts a tensor."""
        return any(str(s.target) == name for node in self.part.nodes for s in node.all_input_nodes)

    def zero(self) -> Tensors:
        """No change of anything: of weights by their names, and of what is added to the outputs of layers."""
        change = {}
        for node, name in self.weights.items():
            weight = change[name] = torch.zeros_like(self.layers.tensor_named(name))
            if node in self.shifts:
                change[self.shifts[node]] = weight.new_zeros(weight.shape[0])
        return change

    def write(self, change: Tensors) -> None:
        """Change the parameters."""
        for node, name in self.weights.items():
            self.layers.tensor_named(name).add_(change[name])
            shift = self.layers.shift(node)
            if shift and node in self.shifts:
                self.layers.tensor_named(shift[0]).add_(change[self.shifts[node]], alpha=shift[1])

    def run(self, change: Tensors, env: Env, offsets: Mapping[fx.Node, Tensor] | None = None) -> dict[fx.Node, Any]:
        """All results of the window with changed parameters; ``offsets`` are added to the outputs of layers."""
        values: dict[fx.Node, Any] = {}

        def read(node: fx.Node) -> Any:
            if node.op == "get_attr":
                present = self.layers.tensor_named(str(node.target))
                step = change.get(str(node.target))
                return present if step is None else present + step
            if node in values:
                return values[node]
            return env[node].clone() if node in self.written else env[node]

        for node in self.part.nodes:
            args, kwargs = fx.node.map_arg((node.args, dict(node.kwargs)), read)
            values[node] = node.target(*args, **kwargs)  # type: ignore[operator]
            if node in self.shifts and self.shifts[node] in change:
                step = change[self.shifts[node]]
                spatial = 0 if op_of(node) == "aten::linear" else values[node].dim() - 2
                values[node] = values[node] + step.reshape(-1, *(1,) * spatial)
            if offsets and node in offsets:
                values[node] = values[node] + offsets[node]
        return values

    def end(self, change: Tensors, env: Env) -> Tensor:
        result: Tensor = self.run(change, env)[self.part.end]
        return result

    def error(self, change: Tensors, envs: Sequence[Env], targets: Sequence[Tensor]) -> float:
        """Sum of squared differences, behind the ReLU where there is one."""
        total = 0.0
        for env, target in zip(envs, targets, strict=True):
            out = self.end(change, env)
            if self.part.rectified:
                out, target = functional.relu(out), functional.relu(target)
            total += float((out - target).double().square().sum())
        return total

    def step(self, start: Tensors, envs: Sequence[Env], targets: Sequence[Tensor]) -> Tensors:
        """The direction in which the linearised window comes nearest to the targets."""
        # Attention is differentiated forwards in plain operations only; torch warns of its own use of TorchScript
        with quiet(), sdpa_kernel(SDPBackend.MATH):
            return self._solved(start, envs, targets)

    def _solved(self, start: Tensors, envs: Sequence[Env], targets: Sequence[Tensor]) -> Tensors:
        names = list(start)
        products: list[Callable[[Tensors], Tensors]] = []
        gradient = {name: torch.zeros_like(t) for name, t in start.items()}
        for env, target in zip(envs, targets, strict=True):
            product, part = self._linearised(start, env, target)
            products.append(product)
            gradient = {n: gradient[n] + part[n] for n in names}
        few = slice(max(1, -(-FEW // len(targets[0]))))
        precondition = self._preconditioner(start, envs[few], targets[few])
        z = precondition(gradient)
        direction, total = z, {n: torch.zeros_like(t) for n, t in start.items()}
        fall = _dot(gradient, z)
        for _ in range(ITERATIONS):
            if not fall > 0:
                break
            image = {n: torch.zeros_like(t) for n, t in start.items()}
            for product in products:
                found = product(direction)
                image = {n: image[n] + found[n] for n in names}
            length = fall / _dot(direction, image).clamp(min=1e-30)
            total = {n: total[n] + length * direction[n] for n in names}
            gradient = {n: gradient[n] - length * image[n] for n in names}
            z = precondition(gradient)
            before, fall = fall, _dot(gradient, z)
            direction = {n: z[n] + fall / before * direction[n] for n in names}
        return total

    def _linearised(self, start: Tensors, env: Env, target: Tensor) -> tuple[Callable[[Tensors], Tensors], Tensors]:
        """On one batch: the product with the normal matrix, and the descent direction."""

        def result(change: Tensors) -> Tensor:
            return self.end(change, env)

        out, back = vjp(result, start)  # type: ignore[misc]
        counts = self._counts(out, target)
        wanted = (functional.relu(target) if self.part.rectified else target) - out

        def product(direction: Tensors) -> Tensors:
            _, image = jvp(result, (start,), (direction,))  # type: ignore[misc]
            found: Tensors = back(image * counts)[0]
            return found

        return product, back(wanted * counts)[0]

    def _counts(self, out: Tensor, target: Tensor) -> Tensor:
        """1 where a difference counts: not where a ReLU makes both zero."""
        return ((out > 0) | (target > 0)).to(out.dtype) if self.part.rectified else torch.ones_like(out)

    def _preconditioner(
        self, start: Tensors, envs: Sequence[Env], targets: Sequence[Tensor]
    ) -> Callable[[Tensors], Tensors]:
        sides = self._moments(start, envs, targets)

        def apply(change: Tensors) -> Tensors:
            result = dict(change)
            for node, (inputs, outputs) in sides.items():
                weight, groups = self.weights[node], inputs.shape[0]
                flat = flat_weight(change[weight], groups).to(inputs.dtype)
                if node in self.shifts:
                    flat = torch.cat([flat, change[self.shifts[node]].to(flat.dtype).reshape(groups, 1, -1)], 1)
                flat = inputs @ flat @ outputs
                if node in self.shifts:
                    result[self.shifts[node]] = flat[:, -1].reshape(-1).to(change[weight].dtype)
                    flat = flat[:, :-1]
                result[weight] = unflatten(flat, change[weight])
            return result

        return apply

    def _moments(
        self, start: Tensors, envs: Sequence[Env], targets: Sequence[Tensor]
    ) -> dict[fx.Node, tuple[Tensor, Tensor]]:
        """By layer the inverse second moments of its inputs and of its outputs' influence, by group."""
        sums: dict[fx.Node, list[Tensor]] = {}
        count: dict[fx.Node, int] = dict.fromkeys(self.weights, 0)
        for env, target in zip(envs, targets, strict=True):
            for node, x, influence in self._influences(start, env, target):
                rows = self.layers.layer(node).rows(x, influence, self.generator)
                inputs, outputs = (r.float() for r in rows)  # near enough for a preconditioner
                if node in self.shifts:
                    inputs = torch.cat([inputs, torch.ones_like(inputs[..., :1])], -1)
                found = [inputs.transpose(1, 2) @ inputs, outputs.transpose(1, 2) @ outputs]
                sums[node] = [a + b for a, b in zip(sums[node], found, strict=True)] if node in sums else found
                count[node] += inputs.shape[1]
        return {
            node: (
                _inverse(xx / count[node]),
                _inverse(gg / count[node]),
            )
            for node, (xx, gg) in sums.items()
        }

    def _influences(self, start: Tensors, env: Env, target: Tensor) -> list[tuple[fx.Node, Tensor, Tensor]]:
        """By layer its input, and the gradient of a random sum of the results with respect to its output."""
        values = self.run(start, env)
        out = values[self.part.end]
        offsets = {node: torch.zeros_like(values[node]) for node in self.part.layers}

        def result(moved: dict[fx.Node, Tensor]) -> Tensor:
            end: Tensor = self.run(start, env, moved)[self.part.end]
            return end

        _, back = vjp(result, offsets)  # type: ignore[misc]
        signs = torch.randint(0, 2, out.shape, generator=self.generator).to(out.dtype) * 2 - 1
        gradients = back(signs * self._counts(out, target))[0]
        found = []
        for node in self.part.layers:
            source = self.layers.args(node)["input"]
            found.append((node, values[source] if source in values else env[source], gradients[node]))
        return found


def _dot(a: Tensors, b: Tensors) -> Tensor:
    return torch.stack([(a[name].double() * b[name]).sum() for name in a]).sum()


def _inverse(matrix: Tensor) -> Tensor:
    scale = matrix.diagonal(dim1=1, dim2=2).mean(1).clamp(min=1e-30)
    eye = torch.eye(matrix.shape[1], dtype=matrix.dtype)
    return torch.linalg.inv((matrix + DAMPING * scale[:, None, None] * eye).double()).float()
