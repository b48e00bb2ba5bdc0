"""The size of a file before anything is cut is the size of the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from compress.budget import Budget, everything, fit
from compress.checkpoint.write import bundle_bytes
from compress.graph import analyse, clusters, slice_graph
from compress.pipeline.bundle import file_facts, input_records, provenance
from compress.pipeline.filesize import file_size
from compress.pipeline.opening import open_model, traced
from compress.plan import Plan, plan_json
from compress.request import ModelSource, Settings

SAMPLES = Path(__file__).resolve().parents[2] / "sample_models"


@pytest.mark.parametrize(
    ("name", "factory"),
    [("digits_mobile.pt", "mobile_cnn"), ("digits_vit.pt2", None), ("digits_mlp.pt", None)],
)
def test_bytes_of_the_file(name: str, factory: str | None) -> None:
    arch = None if factory is None else f"{SAMPLES}/architectures.py:{factory}"
    shapes = None if factory is None else ((1, 8, 8),)
    opened = open_model(ModelSource(SAMPLES / name, arch, input_shapes=shapes), Settings())
    coupling = analyse(traced(opened))
    size = file_size(coupling, opened, 0)
    found = [c for c in clusters(coupling) if c.steps > 1]
    rng = np.random.default_rng(0)
    scores = {g.name: rng.random(g.size) for g in coupling.groups}
    sizes = []
    for ratio in (0.0, 0.3, 0.7):
        plan = Plan(fit(coupling, found, scores, Budget("ratio", ratio)) if ratio else {})
        alive = coupling.alive(plan.removed)
        about = (input_records(opened), plan_json(plan, coupling), provenance(opened, 0), file_facts(opened))
        sizes.append(len(bundle_bytes(slice_graph(coupling, alive), *about)))
        assert size(alive) == sizes[-1]
    assert size(everything(coupling)) == sizes[0] > sizes[1] > sizes[2]
