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
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from compress.graph.arguments import Arguments, map_leaves
from compress.graph.names import graph_tensors
from compress.graph.owners import Owners, Replay
from compress.graph.untouched import untouched
from compress.graph.values import changed, shape_only

How = Literal["meta", "fake", "real"]
_META, _CPU = torch.device("meta"), torch.device("cpu")
# Their shape is plain to see; asking PyTorch for it takes half of the time.
_UNARY = {
    f"aten::{name}"
    for name in ("relu", "relu6", "hardtanh", "hardswish", "hardsigmoid", "silu", "sigmoid", "tanh", "elu", "gelu")
}
_SAME_SHAPE = {*_UNARY, "aten::batch_norm", "aten::group_norm", "aten::dropout"}
_PAIRS = {"aten::add", "aten::mul", "aten::sub"}
_IN_PLACE = {f"{name}_" for name in (*_UNARY, *_PAIRS, "aten::dropout")}
# A mask among their indices decides the size of the result.
_INDEXED = {"aten::index", "aten::index_put", "aten::index_put_"}
# With integers on GPUs only: the code has looked at the device, and is shown a CPU in the next attempt.
_GPU_ONLY = {"aten::histc"}
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
    recorder = _Recorder(module, how)
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
        recorder.take(inputs)
        stack.enter_context(recorder.owners.watch())
        run = Replay(module, recorder.owners).run if isinstance(module, fx.GraphModule) else module
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


class _Recorder(TorchDispatchMode):
    def __init__(self, module: nn.Module, how: How) -> None:
        super().__init__()
        self.how = how
        self.graph = fx.Graph()
        self.nodes: dict[int, fx.Node] = {}
        self.held: list[Tensor] = []  # an id is good for as long as its tensor lives
        self.twins: dict[int, Tensor] = {}
        self.place: fx.Node | None = None
        self.copies: dict[int, Tensor] = {}
        self.unknown: set[int] = set()  # tensors whose numbers are not known while recording
        self.constants: dict[str, Tensor] = {}
        self.tensors: dict[str, Tensor] = {}
        self.names: dict[int, list[str]] = {}
        self.owners = Owners(module)
        for name, tensor in graph_tensors(module).items():
            self.names.setdefault(id(tensor), []).append(name)
        self.counters = [b for b in module.buffers() if not b.is_floating_point()]
        self.parameters = {id(tensor) for tensor in module.parameters()}
        self.unknown |= self.parameters
        if how == "meta":  # outside of inference mode: views of a parameter are of its kind
            with torch.no_grad():
                self.twins = {id(p): torch.empty_like(p, device=_META) for p in module.parameters()}

    def take(self, inputs: Sequence[Tensor]) -> None:
        """Make the inputs known."""
        for i, x in enumerate(inputs):
            node = self.graph.placeholder(f"input_{i}")
            node.meta["val"] = shape_only(x)
            self._bind(x, node)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func._schema.name in _INDEXED and self.how == "meta":
            args = (args[0], [p for index in args[1] for p in self._positions(index)], *args[2:])
        ready_args, ready_kwargs = self._ready(args, kwargs)
        result = self._run(func, ready_args, ready_kwargs)
        many = isinstance(result, (list, tuple))
        outs = list(result) if many else [result]
        if not any(isinstance(out, Tensor) for out in outs) and func._schema.name not in _READS:
            return result
        node = self._node(func, args, kwargs)
        node.meta["val"] = [shape_only(out) for out in outs] if many else shape_only(result)
        for i, out in enumerate(outs):
            if isinstance(out, Tensor):
                self._bind(out, self._item(node, i, out) if many else node)
        if func._schema.is_mutable:
            self._changed(func, args, kwargs, ready_args, ready_kwargs, result, node)
        return result

    def _positions(self, index: Any) -> Sequence[Any]:
        """A mask whose numbers are known as the positions it picks: their number is the size of the result."""
        if not isinstance(index, Tensor) or index.dtype != torch.bool or self._is_unknown(index):
            return (index,)
        return index.nonzero(as_tuple=True)

    def _run(self, func: Any, args: list[Any], kwargs: dict[str, Any]) -> Any:
        if func._schema.name in _GPU_ONLY and self.how == "meta" and not args[0].is_floating_point():
            raise NotImplementedError(f"{func._schema.name} of integers, which the code does not ask of a CPU")
        x = args[0] if args else None
        if self.how == "meta" and isinstance(x, Tensor) and x.device.type == "meta" and x.is_floating_point():
            name, other = func._schema.name, args[1] if len(args) > 1 else None
            if name in _IN_PLACE:
                return x
            if name == "aten::layer_norm":
                return torch.empty_like(x, memory_format=torch.contiguous_format)
            like = name in _PAIRS and isinstance(other, Tensor) and other.shape == x.shape and other.dtype == x.dtype
            if like or name in _SAME_SHAPE:
                return torch.empty_like(x)
        return func(*args, **kwargs)

    def _node(self, func: Any, args: Any, kwargs: dict[str, Any]) -> fx.Node:
        kwargs = {k: v for k, v in kwargs.items() if k not in ("pin_memory", "layout") or v is not None}
        made = {key: changed(value, self._argument) for key, value in kwargs.items()}
        node = self.graph.call_function(func, tuple(changed(value, self._argument) for value in args), made)
        node.meta["nn_module_stack"] = self.owners.meta()
        return node

    def _item(self, node: fx.Node, index: int, out: Tensor) -> fx.Node:
        item = self.graph.call_function(operator.getitem, (node, index))
        item.meta |= {"val": shape_only(out), "nn_module_stack": node.meta["nn_module_stack"]}
        return item

    def _argument(self, leaf: Any) -> Any:
        if isinstance(leaf, Tensor):
            return self._source(leaf)
        return self._device() if isinstance(leaf, torch.device) else leaf

    def _device(self) -> Any:
        """Where the inputs lie when the graph is run, as the code asks for by ``x.device`` or a parameter's."""
        inputs = [node for node in self.graph.nodes if node.op == "placeholder"]
        if self.place is None and inputs:
            self.place = self.graph.call_function(torch.ops.prim.device.default, (inputs[0],))
            self.place.meta["val"] = _CPU
        return self.place or _CPU

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
            each.meta["val"] = shape_only(tensor)
        self._bind(tensor, made[0])
        return made[0]

    def _bind(self, tensor: Tensor, node: fx.Node) -> None:
        self.nodes[id(tensor)] = node
        self.held.append(tensor)

    def _ready(self, args: Any, kwargs: dict[str, Any]) -> Any:
        """Arguments as they can be run: on meta as soon as one number is not known, for real otherwise."""
        meta = self.how == "meta"
        unknown = meta and any(self._is_unknown(value) for value in (*args, *kwargs.values()))

        def change(leaf: Any) -> Any:
            if isinstance(leaf, Tensor):
                return self._twin(leaf) if unknown else self._copy(leaf)
            return (_META if unknown else _CPU) if meta else leaf

        return [changed(value, change) for value in args], {k: changed(v, change) for k, v in kwargs.items()}

    def _is_unknown(self, value: Any) -> bool:
        """Whether there is a tensor without numbers in an argument."""
        if isinstance(value, Tensor):
            return value.device.type == "meta" or id(value) in self.unknown
        return isinstance(value, (list, tuple)) and any(self._is_unknown(each) for each in value)

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
        if id(found) not in self.nodes:
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
