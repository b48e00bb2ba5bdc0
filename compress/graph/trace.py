"""From a module to a graph of operations on named parameters.

The module's forward is recorded (``record.py``), at two batch sizes so that the graph holds for any. Where that fails,
``torch.export`` is asked, which follows more kinds of code and takes longer.
"""

from __future__ import annotations

import linecache
import re
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import UnsupportedOperatorException
from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols

from compress.errors import ModelError
from compress.graph.arguments import Arguments, flatten, positional
from compress.graph.batch import batch_size, generalise, with_batch
from compress.graph.names import graph_tensors
from compress.graph.quiet import quiet
from compress.graph.record import How, Recording, record

_BY_VALUES = {"DataDependentOutputException", "DynamicOutputShapeException", "GuardOnDataDependentSymNode"}
_MORE = 5  # from 2 to 7: halves and remainders of the batch do not pass for multiples of it


@dataclass(frozen=True)
class Program:
    """A traced network.

    Attributes:
        module: Plain graph module; parameters and buffers keep the names of the original module.
        inputs: The example tensors of the trace, in the order in which the graph takes them.
        dynamic_batch: Whether any batch size may be run.
        arguments: How the original module is called with these tensors; None - one after the other.
        replayable: Whether the graph holds for other numbers than those of the example. Not so for a network whose
            path depends on its data, such as a detector: it is analysed and sliced in place, and its graph is dropped.
    """

    module: fx.GraphModule
    inputs: tuple[Any, ...]
    dynamic_batch: bool
    arguments: Arguments | None = None
    replayable: bool = True

    def call(self, module: nn.Module, inputs: Sequence[Tensor]) -> Any:
        """The result of the original module, or of a slice of it, on tensors in the order of ``inputs``."""
        return (self.arguments or positional(len(self.inputs))).call(module, inputs)


def trace(
    module: nn.Module,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    any_batch: bool = True,
    follow_data: bool = False,
) -> Program:
    """Trace ``module`` in its current mode on example inputs whose first dim is the batch.

    Args:
        module: Any module; it is left as it was.
        args, kwargs: What forward takes: tensors, and lists, tuples and dicts of them.
        any_batch: Try for a graph that holds for any batch (a second recording).
        follow_data: Where the module's path depends on its data, record the one path that the examples take.

    Raises:
        ModelError: The module cannot be traced; the message holds the line that defeats it.
    """
    arguments, inputs = flatten(args, kwargs)
    failure: Exception | None = None
    for how in ("meta", "fake"):
        try:
            with quiet():
                return _recorded(module, arguments, inputs, how, any_batch)
        except Exception as error:  # the module's own code may raise anything
            failure = error
    if follow_data:
        return _followed(module, arguments, inputs)
    program = _exported(module, arguments, inputs)
    if program is not None:
        return program
    raise _untraceable(failure) from failure


def _recorded(
    module: nn.Module, arguments: Arguments, inputs: tuple[Tensor, ...], how: How, any_batch: bool
) -> Program:
    small = record(module, arguments, inputs, how)
    size = batch_size(inputs) if any_batch else None
    large = None if size is None else _larger(module, arguments, inputs, how, size + _MORE)
    dynamic = size is not None and large is not None and generalise(small, large, (size, size + _MORE), inputs)
    return Program(_pruned(small), inputs, dynamic, arguments)


def _larger(module: nn.Module, arguments: Arguments, inputs: Sequence[Tensor], how: How, size: int) -> Recording | None:
    """The same forward with another batch; None if the module's code takes no other."""
    try:
        return record(module, arguments, with_batch(inputs, size), how)
    except Exception:  # the module's own code may raise anything: the batch is fixed then
        return None


def _followed(module: nn.Module, arguments: Arguments, inputs: tuple[Tensor, ...]) -> Program:
    try:
        found = record(module, arguments, inputs, "real")
    except Exception as error:  # the module's own code may raise anything
        raise _untraceable(error) from error
    unread = [n for n, t in graph_tensors(module).items() if isinstance(t, nn.Parameter) and n not in found.tensors]
    if unread:
        raise ModelError(
            f"the path of the model depends on its data, and on the example inputs it does not reach {unread[0]}"
            + (f" and {len(unread) - 1} other parameters" if len(unread) > 1 else ""),
            "give inputs that lead through all of it",
        )
    return Program(_pruned(found), inputs, False, arguments, replayable=False)


def _pruned(recording: Recording) -> fx.GraphModule:
    _drop_unread(recording.graph, recording.attributes().__getitem__)
    return recording.module()


def _exported(module: nn.Module, arguments: Arguments, inputs: tuple[Tensor, ...]) -> Program | None:
    """By ``torch.export``; None where that fails too."""
    for dynamic in (True, False):
        copies = [x.detach().clone() for x in inputs]  # export marks dynamic tensors for good
        shapes = torch.export.ShapesCollection()  # by tensor: fits any signature of forward, *args included
        for example in copies:
            if example.dim():
                shapes[example] = {0: torch.export.Dim.DYNAMIC}
        given, named = arguments.build(copies)
        try:
            with torch.no_grad(), quiet():
                dims = shapes if dynamic else None
                exported = torch.export.export(module, given, named, dynamic_shapes=dims, strict=False)
                program = Program(plain(exported.module(check_guards=False)), inputs, dynamic, arguments)
        except Exception:  # torch.export raises many kinds; what the recording met is reported
            continue
        if not any(free_unbacked_symbols(node.meta.get("val")) for node in program.module.graph.nodes):
            return program  # else sizes depend on values (torch.where, nonzero), and labels need sizes
    return None


def _untraceable(error: Exception | None) -> ModelError:
    kind, lines = type(error).__name__, [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = f"{kind}: {lines[0] if lines else ''}"[:300]
    hint = "run the model once on the same input to see that it works"
    if kind in _BY_VALUES or "numpy" in reason:
        reason = "it needs the values of tensors, and a graph has none"
        hint = (
            "write it with tensor operations (torch.where for an `if`, torch for NumPy); a network that cannot do "
            "without, such as a detector, is sliced in place from Python: see docs/usage.md"
        )
    elif operator := _without_fake(error):
        reason = f"the operator {operator} does not say what shape it returns"
        hint = "register that with torch.library.register_fake"
    return ModelError(f"the model cannot be traced{_where(error)}: {reason}", hint)


def _without_fake(error: Exception | None) -> str:
    """The operator of the user that runs on real tensors alone; "" if the error is another."""
    if isinstance(error, UnsupportedOperatorException):
        return str(error.func.name()).removesuffix(".default")
    found = re.search(r"no fake impl registered for <CustomOpDef\((\S+)\)>", str(error))
    return found[1] if found else ""


def _where(error: Exception | None) -> str:
    """File, line and text of the innermost line that is not PyTorch's or this package's."""
    own = (str(Path(torch.__file__).parent), str(Path(__file__).parent), "<")
    frames = traceback.extract_tb(None if error is None else error.__traceback__)
    for frame in reversed(frames):
        if not frame.filename.startswith(own):
            line = frame.line or linecache.getline(frame.filename, frame.lineno or 0).strip()
            return f" at {frame.filename}:{frame.lineno} (`{line}`)"
    return ""


def plain(module: nn.Module) -> fx.GraphModule:
    """A graph module without the guards and the train/eval lock that ``ExportedProgram.module()`` adds.

    What the outputs do not depend on is left out: a weight that nothing reads is no unit that a method may remove.
    """
    if not isinstance(module, fx.GraphModule):
        raise TypeError(f"expected a graph module, got {type(module).__name__}")
    graph = fx.Graph()
    for node in list(module.graph.nodes):
        if node.op == "call_module" and node.target == "_guards_fn":
            module.graph.erase_node(node)
    mapping: dict[fx.Node, fx.Node] = {}
    output = graph.graph_copy(module.graph, mapping)
    originals = {copy: node for node, copy in mapping.items()}
    graph.output(output)
    for copy in graph.nodes:
        if copy in originals:
            copy.meta = dict(originals[copy].meta)
    _drop_unread(graph, lambda name: attribute(module, name))
    graph.set_codegen(module.graph._codegen)
    network = fx.GraphModule(module, graph, class_name="Network")
    network.training = False  # what depends on the mode is a constant in the graph
    return network


def _drop_unread(graph: fx.Graph, tensor_of: Callable[[str], Any]) -> None:
    """Erase operations and floating point tensors without readers; other names of a tensor that is read stay."""
    graph.eliminate_dead_code(lambda node: node.is_impure() or node.op == "get_attr")
    tensors = {n: tensor_of(str(n.target)) for n in graph.nodes if n.op == "get_attr"}
    read = {id(tensor) for node, tensor in tensors.items() if node.users}
    for node, tensor in tensors.items():
        labelled = isinstance(tensor, torch.Tensor) and tensor.is_floating_point()
        if not node.users and labelled and id(tensor) not in read:
            graph.erase_node(node)


def attribute(module: nn.Module, name: str) -> Any:
    """Parameter, buffer or submodule by its dotted name."""
    found: Any = module
    for part in name.split("."):
        found = getattr(found, part)
    return found


def shape_of(value: Any) -> tuple[int, ...]:
    """Concrete shape of a traced tensor; dynamic sizes by the value of the example input."""
    return tuple(concrete(n) for n in value.shape)


def concrete(size: Any) -> int:
    """A size or symbolic integer as the plain integer it had in the example."""
    if isinstance(size, torch.SymInt):
        node: Any = size.node
        hint = node.hint
        return int(hint) if hint is not None else int(node.guard_int("", 0))
    return int(size)


def owner(node: fx.Node) -> str:
    """Path of the module that owns an operation, "" for the root."""
    stack = node.meta.get("nn_module_stack")
    return str(list(stack.values())[-1][0]) if stack else ""
