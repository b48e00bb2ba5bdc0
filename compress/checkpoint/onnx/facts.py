"""What an ONNX file says about itself, kept beside the network that was read from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from compress.errors import InputError


@dataclass(frozen=True)
class OnnxFacts:
    """Of an ONNX file.

    Attributes:
        opset: Version of the ONNX operators.
        producer: What wrote it, "" if it does not say.
        inputs: Names, in order.
        outputs: Names, in order.
        names: By parameter or buffer, the initialiser that it was, where the name had to be changed.
        transposed: Parameters held as (out, in) that the file holds as (in, out).
        initialisers: How many constants it has; 0 where that is not known any more.
        ir: Version of the file format; 0 where that is not known any more.
        batch: What it calls the free size of the batch, "" if it has no name.
        metadata: What its users noted in it, such as the names of classes.
        sizes: By input and dim behind the batch the name of a size that it leaves open, else "".
        free: Whether the network that was read from it takes any of these sizes as well.
    """

    opset: int
    producer: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    names: Mapping[str, str] = field(default_factory=dict)
    transposed: tuple[str, ...] = ()
    initialisers: int = 0
    ir: int = 0
    batch: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    sizes: tuple[tuple[str, ...], ...] = ()
    free: bool = False

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self)


def facts_of(stored: Any) -> OnnxFacts | None:
    """The facts from the metadata of a bundle; None where its network came from something else.

    Raises:
        InputError: They are damaged.
    """
    if stored is None:
        return None
    try:
        return OnnxFacts(
            int(stored["opset"]),
            str(stored["producer"]),
            tuple(str(name) for name in stored["inputs"]),
            tuple(str(name) for name in stored["outputs"]),
            {str(key): str(name) for key, name in stored["names"].items()},
            tuple(str(name) for name in stored["transposed"]),
            int(stored["initialisers"]),
            int(stored.get("ir", 0)),
            str(stored.get("batch", "")),
            {str(key): str(value) for key, value in stored.get("metadata", {}).items()},
            tuple(tuple(str(name) for name in each) for each in stored.get("sizes", ())),
            bool(stored.get("free", False)),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"the metadata 'compress.onnx' of the bundle is damaged: {error}", "write it again") from error
