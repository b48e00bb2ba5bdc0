"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from compress.errors import InputError


def write_whole(target: Path, content: bytes) -> None:
    """Write a file under another name and rename it.

    Raises:
        InputError: It cannot be written there.
    """
    try:
        descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
            os.chmod(name, 0o644)
            os.replace(name, target)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise InputError(f"{target} cannot be written: {error.strerror}", "choose another place") from error
