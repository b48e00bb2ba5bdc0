"""One torchvision model cut in half by one side, in this process: CPU seconds by stage, peak memory above the start.

The settings are the same for both: half of every layer, chosen by L2 magnitude over everything that is coupled, one
thread, float32, the input size that the model was made for. Outputs keep their size: this package finds them itself,
Torch-Pruning is given the layers to leave alone, and the number of heads of attention.
"""

from __future__ import annotations

import gc
import resource
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

DETECTORS = ("fasterrcnn", "maskrcnn", "keypointrcnn", "retinanet", "ssd", "fcos")
SEGMENTATION = ("deeplabv3", "fcn_", "lraspp")
VIDEO = ("mc3", "r2plus1d", "r3d", "s3d", "swin3d", "mvit")
SIZES = {"inception_v3": 299, "vit_h_14": 224}
RATIO = 0.5

# Layers whose outputs are the network's, by the start of the model's name; classifiers of 1000 classes are found.
OUTPUTS = {
    "fasterrcnn": ("rpn.head.cls_logits", "rpn.head.bbox_pred", "roi_heads.box_predictor", "backbone.fpn"),
    "maskrcnn": (
        "rpn.head.cls_logits", "rpn.head.bbox_pred", "roi_heads.box_predictor", "roi_heads.mask_predictor",
        "backbone.fpn",
    ),
    "keypointrcnn": (
        "rpn.head.cls_logits", "rpn.head.bbox_pred", "roi_heads.box_predictor", "roi_heads.keypoint_predictor",
        "backbone.fpn",
    ),
    "retinanet": ("head.classification_head.cls_logits", "head.regression_head.bbox_reg"),
    "fcos": (
        "head.classification_head.cls_logits", "head.regression_head.bbox_reg", "head.regression_head.bbox_ctrness",
    ),
    "ssd": ("head",),
    "raft": ("corr_block", "update_block", "mask_predictor"),
    "deeplabv3": ("classifier.4", "aux_classifier.4"),
    "fcn_": ("classifier.4", "aux_classifier.4"),
    "lraspp": ("classifier.low_classifier", "classifier.high_classifier"),
}  # fmt: skip
CLASSES = (1000, 400)


def models() -> list[str]:
    """Every builder of torchvision, those of quantised models left out (the same networks)."""
    import torchvision

    return [name for name in torchvision.models.list_models() if not name.startswith("quantized")]


def build(name: str) -> tuple[nn.Module, tuple[Any, ...]]:
    """The model in eval mode with random weights, and the arguments of one call."""
    import torchvision

    options: dict[str, Any] = {}
    if name.startswith((*DETECTORS, *SEGMENTATION)):
        options["weights_backbone"] = None
    if name in ("googlenet", "inception_v3"):
        options["init_weights"] = False  # slow
    torch.manual_seed(0)
    module: nn.Module = torchvision.models.get_model_builder(name)(weights=None, **options)
    return module.eval(), _arguments(name)


def _arguments(name: str) -> tuple[Any, ...]:
    if name.startswith("raft"):
        return torch.rand(1, 3, 128, 128) * 2 - 1, torch.rand(1, 3, 128, 128) * 2 - 1
    if name.startswith(VIDEO):
        size = 224 if name.startswith(("mvit", "s3d")) else 112
        return (torch.rand(1, 3, 16, size, size),)
    if name.startswith(DETECTORS):
        return ([torch.rand(3, 224, 224)],)
    size = SIZES.get(name, 224)
    return (torch.rand(1, 3, size, size),)


class Meter:
    """CPU and wall seconds by stage, and the peak of resident memory above that at the start."""

    def __init__(self) -> None:
        self.cpu: dict[str, float] = {}
        self.wall: dict[str, float] = {}
        gc.collect()
        self._reset = _reset_peak()
        self._start = _resident() if self._reset else _peak()
        self._at = (time.process_time(), time.perf_counter())

    def lap(self, stage: str) -> None:
        """End a stage."""
        now = (time.process_time(), time.perf_counter())
        self.cpu[stage], self.wall[stage] = now[0] - self._at[0], now[1] - self._at[1]
        self._at = now

    def found(self, **more: Any) -> dict[str, Any]:
        """What was measured until now, as plain data."""
        return {"cpu": self.cpu, "wall": self.wall, "megabytes": (_peak() - self._start) / 2**20, **more}


def _status(field: str) -> int | None:
    try:
        text = Path("/proc/self/status").read_text("ascii")
    except OSError:
        return None
    found = [line.split()[1] for line in text.splitlines() if line.startswith(f"{field}:")]
    return 1024 * int(found[0]) if found else None


def _reset_peak() -> bool:
    """Start the kernel's record of the peak anew, where it can be: building a model may need more than pruning it."""
    try:
        Path("/proc/self/clear_refs").write_text("5", "ascii")
    except OSError:
        return False
    return _status("VmHWM") is not None


def _resident() -> int:
    return _status("VmRSS") or 0


def _peak() -> int:
    """Bytes."""
    return _status("VmHWM") or 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def ours(name: str) -> dict[str, Any]:
    """Trace, couple, choose, slice."""
    from compress.graph import analyse, slice_graph, trace
    from compress.plugin import Budget, Context, make_plan
    from compress_plugins.dependency import Dependency

    module, args = build(name)
    meter = Meter()
    program = trace(module, args, any_batch=False, follow_data=name.startswith(DETECTORS))
    meter.lap("trace")
    coupling = analyse(program)
    meter.lap("couple")
    plan = make_plan(Dependency(), Context(coupling, Budget("ratio", RATIO)))
    meter.lap("choose")
    sliced = slice_graph(coupling, coupling.alive(plan.removed))
    meter.lap("slice")
    found = meter.found(weights=_weights(sliced) / _weights(module))
    run = program.replayable
    problem = _judge(name, lambda: module(*args), lambda: sliced(*program.inputs)) if run else ""
    return found | {"problem": problem}


def theirs(name: str) -> dict[str, Any]:
    """The dependency graph, then the step."""
    import torch_pruning

    module, args = build(name)
    options = _hints(name, module)
    example = args[0] if len(args) == 1 and isinstance(args[0], Tensor) else list(args)
    meter = Meter()
    pruner = torch_pruning.pruner.MetaPruner(
        module,
        example,
        importance=torch_pruning.importance.MagnitudeImportance(p=2),
        global_pruning=False,
        pruning_ratio=RATIO,
        **options,
    )
    meter.lap("graph")
    before = _weights(module)
    pruner.step()
    meter.lap("step")
    found = meter.found(weights=_weights(module) / before)
    return found | {"problem": _judge(name, lambda: build(name)[0](*args), lambda: module(*args))}


def _hints(name: str, module: nn.Module) -> dict[str, Any]:
    """The layers to leave alone, and the numbers of heads."""
    ignored = [
        m for m in module.modules()
        if (isinstance(m, nn.Linear) and m.out_features in CLASSES)
        or (isinstance(m, (nn.Conv2d, nn.Conv3d)) and m.out_channels in CLASSES)
    ]  # fmt: skip
    named = dict(module.named_modules())
    for start, paths in OUTPUTS.items():
        if name.startswith(start):
            ignored += [named[path] for path in paths if path in named]
    heads = {m: m.num_heads for m in module.modules() if isinstance(m, nn.MultiheadAttention)}
    return {"ignored_layers": ignored, "num_heads": heads, "output_transform": _tensors}


def _tensors(result: Any) -> list[Tensor]:
    if isinstance(result, Tensor):
        return [result]
    nested = result.values() if isinstance(result, dict) else result if isinstance(result, (list, tuple)) else []
    return [tensor for each in nested for tensor in _tensors(each)]


def _shapes(name: str, result: Any) -> list[tuple[int, ...]]:
    boxes = name.startswith(DETECTORS)  # how many there are is chance
    return [tuple(t.shape[1 if boxes else 0 :]) for t in _tensors(result)]


def _weights(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _judge(name: str, before: Callable[[], Any], after: Callable[[], Any]) -> str:
    """What is wrong with the smaller network, "" if nothing is: it runs, and its output has the shape it had."""
    with torch.no_grad():
        wanted = _shapes(name, before())
        try:
            got = _shapes(name, after())
        except Exception as error:  # whatever the pruned network raises is the result
            return f"the pruned network fails: {type(error).__name__}: {error}"[:200]
    return "" if got == wanted else f"output {wanted} became {got}"[:200]


def measure(side: str, name: str) -> dict[str, Any]:
    """What one side needs for one model; a failure is a result too (``problem``)."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    try:
        return {"ours": ours, "theirs": theirs}[side](name)
    except Exception as error:  # a benchmark of what fails must not fail
        return {"problem": f"{type(error).__name__}: {error}"[:200]}
