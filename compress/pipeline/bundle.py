"""Writing a network so that it loads without its class, and proving that it does."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

import compress
from compress.checkpoint.reload import reload_error
from compress.checkpoint.write import bundle_bytes, write_bundle
from compress.errors import CompressError, InputError, ModelError
from compress.files import write_whole
from compress.graph import Program
from compress.graph.double import same_draws
from compress.graph.names import graph_name
from compress.inputs import types_of
from compress.pipeline.opening import Opened
from compress.recipe import to_toml
from compress.report import markdown

RELOAD_TOLERANCE = 1e-5


def input_records(opened: Opened) -> list[dict[str, Any]]:
    """The inputs as a bundle's metadata holds them."""
    return [t.record(shape) for shape, t in zip(opened.shapes, types_of(opened.types, len(opened.shapes)), strict=True)]


def provenance(opened: Opened, seed: int) -> dict[str, Any]:
    """Where a network came from: enough to find the original, nothing that differs between two equal runs."""
    return {
        "compress": compress.__version__,
        "torch": torch.__version__,
        "input": opened.loaded.path.name,
        "sha256": opened.loaded.sha256,
        "form": opened.loaded.form,
        "architecture": opened.loaded.architecture,
        "seed": seed,
    }


def file_facts(opened: Opened) -> dict[str, Any]:
    """What the graph does not say: mean and deviation of the inputs, the names of an ONNX model."""
    onnx = {} if opened.loaded.onnx is None else {"onnx": opened.loaded.onnx.to_json()}
    if opened.mean is None or opened.std is None:
        return onnx
    return {"mean": list(opened.mean), "std": list(opened.std), **onnx}


@dataclass(frozen=True)
class Content:
    """What a bundle holds of a network, beside what was measured of it.

    Attributes:
        program: The network.
        opened: The model that it was made of.
        plan: What was kept of that; None if nothing was removed.
        seed: Of the run.
    """

    program: Program
    opened: Opened
    plan: Mapping[str, Any] | None
    seed: int

    def weights(self) -> bytes:
        """``model.safetensors``, just as it will be written."""
        origin = provenance(self.opened, self.seed)
        return bundle_bytes(self.program.module, input_records(self.opened), self.plan, origin, file_facts(self.opened))

    def write(
        self,
        output: Path,
        report: Mapping[str, Any],
        recipe: Mapping[str, Any],
        files: Mapping[str, bytes | Path],
        force: bool,
    ) -> None:
        """Put everything in its place at once, with the report in Markdown; see `write_bundle` for what it raises."""
        write_bundle(
            output,
            program_module=self.program.module,
            inputs=input_records(self.opened),
            plan_json=self.plan,
            report=report,
            recipe_toml=to_toml(recipe),
            report_md=markdown(report, output),
            provenance=provenance(self.opened, self.seed),
            force=force,
            metadata=file_facts(self.opened),
            files=files,
        )


def reloaded(program: Program, weights: bytes, opened: Opened, tolerance: float | None = RELOAD_TOLERANCE) -> float:
    """Largest relative difference after loading ``weights`` in a new process.

    Raises:
        ModelError: It differs by more than the tolerance, or does not load.
    """
    inputs = opened.examples(int(program.inputs[0].shape[0]), seed=1)
    with torch.no_grad(), same_draws():
        expected = program.module(*(x.clone() for x in inputs))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "model.safetensors")
        file.write_bytes(weights)
        try:
            error = reload_error(file, inputs, expected)
        except CompressError as problem:
            raise ModelError(f"the written model cannot be loaded again: {problem}") from problem
    if tolerance is not None and error > tolerance:
        raise ModelError(f"the written model differs from the one in memory by {error:.1e}")
    return error


def export_weights(
    program: Program, opened: Opened, target: Path, *, pack: bool = True, precision: torch.dtype | None = None
) -> float:
    """``model.safetensors`` of a network that was not changed; its reload error.

    Args:
        program: The network.
        opened: Where it comes from.
        target: The file.
        pack, precision: See :func:`compress.checkpoint.write.bundle_bytes`.
    """
    weights = bundle_bytes(
        program.module, input_records(opened), None, provenance(opened, 0), file_facts(opened),
        pack=pack, precision=precision,
    )  # fmt: skip
    error = reloaded(program, weights, opened, RELOAD_TOLERANCE if precision is None else None)
    write_whole(target, weights)
    return error


def check_not_within(model: Path, output: Path, force: bool) -> None:
    """See that a bundle does not replace the model that it is made of.

    Raises:
        InputError: It would.
    """
    source, target = model.resolve(), output.resolve()
    if not force and target in (source, *source.parents) and target.exists():
        raise InputError(
            f"{output} holds the model itself, which would be replaced",
            "choose another --output DIR, or --force to replace it",
        )


def state_dict_file(module: torch.nn.Module, network: torch.fx.GraphModule) -> bytes:
    """The state dict of a module sliced in place as safetensors, tied tensors stored once under their first name.

    Args:
        module: Names and shapes.
        network: The same network as a graph; its values are newer where layers were refitted.
    """
    newer = {n: t for n, t in (*network.named_parameters(), *network.named_buffers())}
    seen: set[int] = set()
    own: Mapping[str, torch.Tensor] = module.state_dict(keep_vars=True)
    kept = {}
    for name, tensor in own.items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            kept[name] = newer.get(graph_name(name), tensor).detach().contiguous()
    return safetensors.torch.save(kept)
