"""Every error a user can meet, each with the exit code of the command line."""

from __future__ import annotations


class CompressError(Exception):
    """Base of all errors that are reported to the user as one message.

    Args:
        message: What is wrong and where.
        hint: What the user can do next; printed on a line of its own.
    """

    exit_code = 4

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class Elsewhere(CompressError):
    """Not an error: this process has done its part, and the main one writes the result (exit code 0)."""

    exit_code = 0


class GateFailed(CompressError):
    """A limit of the CI gate was not met (exit code 1)."""

    exit_code = 1


class InputError(CompressError):
    """Usage, recipe, file or data is wrong (exit code 2)."""

    exit_code = 2


class ModelError(CompressError):
    """The model cannot be handled; the message names what was met (exit code 3)."""

    exit_code = 3


class PluginError(CompressError):
    """A plugin broke its contract or failed (exit code 4)."""

    exit_code = 4
