"""Finds the installed methods, describes them, and makes one from the options of a command line.

Methods are plugins that distributions register under the entry-point groups in `GROUPS`. Listing them
reads their source and imports nothing, because a plugin imports torch and that takes seconds.
"""

from __future__ import annotations

from compress.registry.describe import Description, Option
from compress.registry.methods import (
    GROUPS,
    Kind,
    Method,
    conflicts,
    create,
    describe,
    find,
    glance,
    methods,
    missing,
)
from compress.registry.words import did_you_mean

__all__ = [
    "GROUPS",
    "Description",
    "Kind",
    "Method",
    "Option",
    "conflicts",
    "create",
    "describe",
    "did_you_mean",
    "find",
    "glance",
    "methods",
    "missing",
]
