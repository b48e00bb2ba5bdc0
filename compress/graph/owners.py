"""Which submodule is running while a forward is recorded."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from torch import fx, nn
from torch.nn.modules import module as hooks


class Owners:
    """The stack of running submodules of a module, by path."""

    def __init__(self, module: nn.Module) -> None:
        self._paths = {id(child): path for path, child in module.named_modules()}
        self._types: dict[str, Any] = {path: type(child) for path, child in module.named_modules()}
        self._stack = [""]

    def meta(self) -> dict[str, tuple[str, Any]]:
        """The innermost of them, as ``torch.export`` writes it into a node."""
        path = self._stack[-1]
        return {path: (path, self._types.get(path, nn.Module))}

    @contextlib.contextmanager
    def inside(self, path: str, kind: Any) -> Iterator[None]:
        """Count what runs as part of the named submodule."""
        self._types.setdefault(path, kind)
        self._stack.append(path)
        try:
            yield
        finally:
            self._stack.pop()

    @contextlib.contextmanager
    def watch(self) -> Iterator[None]:
        """Keep account while modules are called."""

        def enter(module: nn.Module, _: Any) -> None:
            self._stack.append(self._paths.get(id(module), self._stack[-1]))

        def leave(module: nn.Module, _: Any, __: Any) -> None:
            self._stack.pop()

        handles = [
            hooks.register_module_forward_pre_hook(enter),
            hooks.register_module_forward_hook(leave, always_call=True),
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


class Replay(fx.Interpreter):
    """Runs a graph whose nodes remember the modules they came from."""

    def __init__(self, module: fx.GraphModule, owners: Owners) -> None:
        super().__init__(module)
        self.owners = owners

    def run_node(self, n: fx.Node) -> Any:
        stack = n.meta.get("nn_module_stack")
        path, kind = list(stack.values())[-1][:2] if stack else ("", nn.Module)
        with self.owners.inside(str(path), kind):
            return super().run_node(n)
