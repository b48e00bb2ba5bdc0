"""Discovery of the methods through entry points."""

from __future__ import annotations

import dataclasses
import importlib.metadata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from compress.errors import InputError, PluginError
from compress.registry.describe import Description, describe_class, describe_source, find_module
from compress.registry.options import make
from compress.registry.words import did_you_mean

Kind = Literal["criterion", "pruner", "retrain"]

GROUPS: Mapping[str, Kind] = {
    "compress.criteria": "criterion",
    "compress.pruners": "pruner",
    "compress.retrain": "retrain",
}


@dataclass(frozen=True)
class Method:
    """One registered method; nothing of it is imported until `load`."""

    name: str
    kind: Kind
    distribution: str  # name and version: "compress-nn 0.1.0"
    entry_point: str  # "package.module:Class"

    def load(self) -> type[Any]:
        """Imports the plugin's class. Raises PluginError where that fails or it is not a dataclass."""
        entry = importlib.metadata.EntryPoint(self.name, self.entry_point, self.kind)
        try:
            plugin = entry.load()
        # Whatever a foreign module raises while it is imported is a failure of that plugin alone.
        except Exception as error:
            raise PluginError(
                f"method {self.name!r} of {self.distribution} cannot be imported from {self.entry_point}: "
                f"{type(error).__name__}: {error}",
                hint=f"reinstall or remove {self.distribution}; `compress methods` lists the others",
            ) from error
        if not (isinstance(plugin, type) and dataclasses.is_dataclass(plugin)):
            raise PluginError(
                f"method {self.name!r} of {self.distribution}: {self.entry_point} is not a dataclass",
                hint="the class of a plugin is a frozen dataclass; its fields are its options",
            )
        return plugin


def methods() -> tuple[Method, ...]:
    """Every registered method, by name, then distribution. Two may have one name: see `conflicts`."""
    found = []
    for group, kind in GROUPS.items():
        for entry in importlib.metadata.entry_points(group=group):
            origin = f"{entry.dist.name} {entry.dist.version}" if entry.dist else "unknown distribution"
            found.append(Method(entry.name, kind, origin, entry.value))
    return tuple(sorted(found, key=lambda method: (method.name, method.distribution, method.entry_point)))


def conflicts(found: Sequence[Method]) -> dict[str, str]:
    """What is wrong with each name that more than one of `found` claims."""
    claims: dict[str, list[Method]] = {}
    for method in found:
        claims.setdefault(method.name, []).append(method)
    return {
        name: f"method {name!r} is registered more than once: by "
        + " and by ".join(f"{method.distribution} ({method.entry_point})" for method in claim)
        for name, claim in claims.items()
        if len(claim) > 1
    }


def find(name: str) -> Method:
    """The method called `name`.

    Raises InputError where there is none, with near matches, or where two distributions claim the name.
    """
    found = methods()
    named = [method for method in found if method.name == name]
    if len(named) == 1:
        return named[0]
    if named:
        raise InputError(
            conflicts(named)[name], hint="uninstall one of them: a name belongs to one distribution"
        )
    near = did_you_mean(name, (method.name for method in found))
    raise InputError(f"no method {name!r}", hint=f"{near} `compress methods` lists all".strip())


def describe(method: Method) -> Description:
    """Summary, options and source of a method.

    They come from its source text. A class that inherits, or whose source cannot be read, is imported;
    raises PluginError where that fails.
    """
    seen = glance(method)
    return seen if seen.complete else describe_class(method.load())


def glance(method: Method) -> Description:
    """What the source text alone shows of a method; nothing is imported and nothing raised."""
    return describe_source(method.entry_point)


def missing(method: Method) -> str:
    """Why the method cannot be imported, as far as that shows without an import; "" where it may be."""
    module = method.entry_point.partition(":")[0]
    if find_module(module) is None:
        return f"method {method.name!r} of {method.distribution}: there is no module {module}"
    return ""


def create(name: str, options: Mapping[str, str]) -> tuple[Method, Any]:
    """Makes the method called `name` from options as texts, by field name: `{"pool_size": "3"}`.

    Raises InputError for an unknown name or option, a text that is not of the option's type and a value
    that the method refuses; PluginError where the plugin cannot be imported.
    """
    method = find(name)
    return method, make(method.load(), name, options)
