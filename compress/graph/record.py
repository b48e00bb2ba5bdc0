"""The calls that a forward makes, recorded while it runs without data.

A dispatch mode sees every operation of a forward. In inference mode it sees them before they are decomposed: linear,
conv2d, layer_norm and scaled_dot_product_attention stay whole. On *meta* tensors (shapes without numbers) a forward
takes a tenth of a second, whatever the size of the network, and Python control flow that depends on data cannot be
followed by accident. Tensors that do not depend on the inputs or the parameters (positions, masks, tables of indices)
are computed for real, so that code may read their values.
"""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, fx, nn
from torch.nn.modules import module as hooks
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from compress.graph.arguments import Arguments, map_leaves
from compress.graph.untouched import untouched

How = Literal["meta", "fake", "real"]
_META, _CPU = torch.device("meta"), torch.device("cpu")
# They hand numbers to Python, which may decide by them.
_READS = {"aten::item", "aten::_local_scalar_dense", "aten::equal", "aten::is_nonzero", "aten::allclose"}


@dataclass(frozen=True)
class Recording:
    """What one forward did: the graph, and the tensors that it reads by name."""

    graph: fx.Graph
    tensors: dict[str, Tensor]
    constants: dict[str, Tensor]

    def attributes(self) -> dict[str, Tensor]:
        return self.tensors | self.constants

    def module(self) -> fx.GraphModule:
        network = fx.GraphModule(self.attributes(), self.graph, class_name="Network")
        network.training = False  # what depends on the mode is a constant in the graph
        return network


def record(module: nn.Module, arguments: Arguments, inputs: Sequence[Tensor], how: How) -> Recording:
    """Run the module's forward once and write down its calls.

    Args:
        module: Any module, in its current mode; it is left as it was.
        arguments: How it is called.
        inputs: Example tensors; only their shapes and types matter unless ``how`` is "real".
        how: "meta" - fastest; "fake" - on tensors that say they lie on the CPU, for code that asks; "real" - on the
            numbers of ``inputs``, for code whose path depends on them.

    Raises:
        Exception: Whatever the module's code raises.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.inference_mode())
        stack.enter_context(untouched(module))
        stack.enter_context(_whole_attention())
        if how == "fake":
            from torch._subclasses.fake_tensor import FakeTensorMode

            mode = stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
            inputs = [mode.from_tensor(x, static_shapes=True) for x in inputs]
        elif how == "meta":
            inputs = [torch.empty_like(x, device=_META) for x in inputs]
        else:
            inputs = [x.detach().clone() for x in inputs]  # forward may work in place
        recorder = _Recorder(module, inputs, how)
        stack.enter_context(recorder.owners())
        run = _Replay(module, recorder).run if isinstance(module, fx.GraphModule) else module
        with recorder:
            result = arguments.call(run, inputs)
        return recorder.finish(result)


@contextlib.contextmanager
def _whole_attention() -> Iterator[None]:
    """Keep ``nn.MultiheadAttention`` from its fused inference kernel, which hides the layers inside it."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


class _Replay(fx.Interpreter):
    """Runs a graph whose nodes remember the modules they came from."""

    def __init__(self, module: fx.GraphModule, recorder: _Recorder) -> None:
        super().__init__(module)
        self.recorder = recorder

    def run_node(self, n: fx.Node) -> Any:
        stack = n.meta.get("nn_module_stack")
        owner = list(stack.values())[-1] if stack else ("", nn.Module)
        self.recorder.types.setdefault(owner[0], owner[1])
        self.recorder.stack.append(owner[0])
        try:
            return super().run_node(n)
        finally:
            self.recorder.stack.pop()


class _Recorder(TorchDispatchMode):
    def __init__(self, module: nn.Module, inputs: Sequence[Tensor], how: How) -> None:
        super().__init__()
        self.how = how
        self.graph = fx.Graph()
        self.nodes: dict[int, fx.Node] = {}
        self.held: list[Tensor] = []  # an id is good for as long as its tensor lives
        self.twins: dict[int, Tensor] = {}
        self.copies: dict[int, Tensor] = {}
        self.unknown: set[int] = set()  # tensors whose numbers are not known while recording
        self.constants: dict[str, Tensor] = {}
        self.tensors: dict[str, Tensor] = {}
        self.names: dict[int, list[str]] = {}
        self.paths = {id(child): path for path, child in module.named_modules()}
        self.types: dict[str, Any] = {path: type(child) for path, child in module.named_modules()}
        self.stack: list[str] = []
        parameters = list(module.named_parameters(remove_duplicate=False))
        for name, tensor in [*parameters, *module.named_buffers(remove_duplicate=False)]:
            self.names.setdefault(id(tensor), []).append(name)
        self.counters = [b for b in module.buffers() if not b.is_floating_point()]
        self.parameters = {id(tensor) for _, tensor in parameters}
        self.unknown |= self.parameters
        for i, x in enumerate(inputs):
            node = self.graph.placeholder(f"input_{i}")
            node.meta["val"] = _shape_only(x)
            self._bind(x, node)

    @contextlib.contextmanager
    def owners(self) -> Iterator[None]:
        """Keep account of which submodule is running."""

        def enter(module: nn.Module, _: Any) -> None:
            self.stack.append(self.paths.get(id(module), self.stack[-1] if self.stack else ""))

        def leave(module: nn.Module, _: Any, __: Any) -> None:
            self.stack.pop()

        handles = [
            hooks.register_module_forward_pre_hook(enter),
            hooks.register_module_forward_hook(leave, always_call=True),
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        ready_args, ready_kwargs = self._ready(args, kwargs)
        result = func(*ready_args, **ready_kwargs)
        many = isinstance(result, (list, tuple))
        outs = list(result) if many else [result]
        if not any(isinstance(out, Tensor) for out in outs) and func._schema.name not in _READS:
            return result
        node = self._node(func, args, kwargs)
        node.meta["val"] = [_shape_only(out) for out in outs] if many else _shape_only(result)
        for i, out in enumerate(outs):
            if isinstance(out, Tensor):
                self._bind(out, self._item(node, i, out) if many else node)
        if func._schema.is_mutable:
            self._changed(func, args, kwargs, ready_args, ready_kwargs, result, node)
        return result

    def _node(self, func: Any, args: Any, kwargs: dict[str, Any]) -> fx.Node:
        kwargs = {k: v for k, v in kwargs.items() if k not in ("pin_memory", "layout") or v is not None}
        made = map_leaves((tuple(args), kwargs), self._argument)
        node = self.graph.call_function(func, made[0], made[1])
        path = self.stack[-1] if self.stack else ""
        node.meta["nn_module_stack"] = {path: (path, self.types.get(path, nn.Module))}
        return node

    def _item(self, node: fx.Node, index: int, out: Tensor) -> fx.Node:
        item = self.graph.call_function(operator.getitem, (node, index))
        item.meta |= {"val": _shape_only(out), "nn_module_stack": node.meta["nn_module_stack"]}
        return item

    def _argument(self, leaf: Any) -> Any:
        if isinstance(leaf, Tensor):
            return self._source(leaf)
        return _CPU if isinstance(leaf, torch.device) and leaf.type == "meta" else leaf

    def _source(self, tensor: Tensor) -> fx.Node:
        """The node that made a tensor; a tensor that no operation made is read by name, or is a constant."""
        node = self.nodes.get(id(tensor))
        if node is not None:
            return node
        names = self.names.get(id(tensor))
        if names is None:
            if tensor.device.type == "meta" or (self.how == "fake" and type(tensor) is not Tensor):
                raise LookupError("the code made a tensor of numbers where there are none")  # x[:, [2, 0]] on meta
            names = [f"_tensor_constant{len(self.constants)}"]
            with _disable_current_modes(), torch.inference_mode(False):  # the graph is to be trained as well
                self.constants[names[0]] = tensor.clone().detach()
        else:
            self.tensors |= dict.fromkeys(names, tensor)
        made = [self.graph.get_attr(name) for name in names]
        for each in made:
            each.meta["val"] = _shape_only(tensor)
        self._bind(tensor, made[0])
        return made[0]

    def _bind(self, tensor: Tensor, node: fx.Node) -> None:
        self.nodes[id(tensor)] = node
        self.held.append(tensor)

    def _ready(self, args: Any, kwargs: dict[str, Any]) -> Any:
        """Arguments as they can be run: on meta as soon as one number is not known, for real otherwise."""
        unknown = False

        def look(leaf: Any) -> Any:
            nonlocal unknown
            unknown |= isinstance(leaf, Tensor) and (leaf.device.type == "meta" or id(leaf) in self.unknown)
            return leaf

        if self.how == "meta":
            map_leaves((args, kwargs), look)

        def change(leaf: Any) -> Any:
            if isinstance(leaf, Tensor):
                return self._twin(leaf) if unknown else self._copy(leaf)
            place = isinstance(leaf, torch.device) and self.how == "meta"
            return (_META if unknown else _CPU) if place else leaf

        return map_leaves((args, kwargs), change)

    def _twin(self, tensor: Tensor) -> Tensor:
        """The tensor without its numbers."""
        return tensor if tensor.device.type == "meta" else self._stand_in(self.twins, tensor, _META)

    def _copy(self, tensor: Tensor) -> Tensor:
        """A buffer is copied before it is read, as it may be changed in place."""
        owned = id(tensor) in self.names and id(tensor) not in self.parameters
        return self._stand_in(self.copies, tensor, tensor.device) if owned else tensor

    def _stand_in(self, known: dict[int, Tensor], tensor: Tensor, device: torch.device) -> Tensor:
        found = known.get(id(tensor))
        if found is None:
            # Views of it are of its kind
            with _disable_current_modes(), torch.inference_mode(tensor.is_inference()), torch.no_grad():
                found = torch.empty_like(tensor, device=device, requires_grad=False)
                known[id(tensor)] = found = found.copy_(tensor) if device != _META else found
            self.held.append(tensor)
            self.nodes[id(found)] = self._source(tensor)
        return found

    def _changed(
        self, func: Any, args: Any, kwargs: Any, ready_args: Any, ready_kwargs: Any, result: Any, node: fx.Node
    ) -> None:
        """What was changed in place is from now on the result of the call, under the name that the code knows."""
        given, ready = [*args, *kwargs.values()], [*ready_args, *ready_kwargs.values()]
        for before, after in zip(given, ready, strict=True):
            if isinstance(before, Tensor) and after is result and before is not after:
                self._bind(before, node)
                self.unknown.add(id(before))

    def finish(self, result: Any) -> Recording:
        def leaf(value: Any) -> Any:
            if isinstance(value, Tensor):
                return self._source(value)
            return value if isinstance(value, (bool, int, float, str)) else None

        for tensor in self.counters:  # such as num_batches_tracked: no layer reads it, a state dict holds it
            self._source(tensor)
        self.graph.output(map_leaves(result, leaf))
        self._order()
        return Recording(self.graph, self.tensors, self.constants)

    def _order(self) -> None:
        """Inputs first, then the tensors in the order of the module, however late the forward reads them."""
        read = {str(n.target): n for n in self.graph.nodes if n.op == "get_attr"}
        inputs = [n for n in self.graph.nodes if n.op == "placeholder"]
        anchor = inputs[-1] if inputs else None
        for name in [*(n for names in self.names.values() for n in names if n in read), *self.constants]:
            if anchor is None:
                next(iter(self.graph.nodes)).prepend(read[name])
            else:
                anchor.append(read[name])
            anchor = read[name]


def _shape_only(value: Any) -> Any:
    if not isinstance(value, Tensor):
        return value
    return value if value.device.type == "meta" else torch.empty(value.shape, dtype=value.dtype, device=_META)
