"""Imports go downward only, and the command line starts without torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import compress

ROOT = Path(compress.__file__).parent
PLUGINS = ROOT.parent / "plugins" / "compress_plugins"

# A module may import those of its own level and of the levels above it in this list.
LEVELS = (
    {
        "errors", "figures", "progress", "schedules", "training", "inputs", "nn", "fsa", "units", "files", "pictures",
        "wording",
    },
    {"graph"},
    {"calibration"},
    {"plugin", "methods", "registry", "plan", "budget", "retrain", "sparsity", "trainable", "weights"},
    {"export", "report", "recover", "checkpoint", "data", "datasets", "evaluate", "counting", "measure", "latency"},
    {"search"},
    {"pipeline", "recipe", "gate", "request", "searching", "result", "testing"},
    {"cli"},
    {"__main__"},
)
LEVEL = {name: level for level, names in enumerate(LEVELS) for name in names}


def parts_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*.py") if "__pycache__" not in path.parts)


def imported(path: Path) -> Iterator[str]:
    """Full names of all that a file imports: "torch.nn", "compress.graph.trace"."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def first_level(name: str) -> str:
    """ "compress.graph.trace" -> "graph"."""
    return name.split(".")[1]


@pytest.mark.parametrize("path", parts_of(ROOT), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_downward(path: Path) -> None:
    own = path.relative_to(ROOT).parts[0].removesuffix(".py")
    if own == "__init__":  # of the package: re-exports, at first use
        return
    assert own in LEVEL, f"{own} has no level yet: add it to LEVELS"
    for name in imported(path):
        if name.startswith("compress.") and name != "compress.__version__":
            assert LEVEL[first_level(name)] <= LEVEL[own], f"{path} imports {name} from above"


@pytest.mark.parametrize("path", parts_of(ROOT), ids=lambda path: str(path.relative_to(ROOT)))
def test_the_core_imports_no_plugin(path: Path) -> None:
    assert not [name for name in imported(path) if name.startswith("compress_plugins")]


@pytest.mark.parametrize("path", parts_of(PLUGINS), ids=lambda path: path.name)
def test_plugins_import_the_contract_alone(path: Path) -> None:
    ours = [name for name in imported(path) if name.startswith("compress.")]
    assert [name for name in ours if not name.startswith("compress.plugin.")] == []


def test_one_place_prints() -> None:
    found = [
        str(path.relative_to(ROOT))
        for path in [*parts_of(ROOT), *parts_of(PLUGINS)]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert set(found) == {"cli/output.py"}


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["--version"],
        ["methods"],
        ["methods", "tetris"],
        *([c, "--help"] for c in ("prune", "retrain", "check", "compare", "init", "run", "export", "search")),
        ["init", "/dev/null"],
        ["prun"],
    ],
)
def test_no_torch_before_it_is_needed(words: list[str]) -> None:
    heavy = {"torch", "onnx", "onnxruntime", "jinja2", "matplotlib", "compress_plugins"}
    assert not heavy & modules_after(words)


@pytest.mark.parametrize(
    ("words", "files"),
    [
        ("methods", {"methods"}),
        ("check --help", {"check"}),
        ("export --help", {"export"}),
        ("eval --help", {"evaluate"}),
        ("init --help", {"run", "prune", "finetune", "methods"}),
    ],
)
def test_a_command_imports_its_own_file(words: str, files: set[str]) -> None:
    """And neither the other commands nor the reports: they would be most of the time that it takes to start."""
    found = modules_after(words.split())
    assert {name.removeprefix("compress.cli.") for name in found & COMMANDS} == files
    assert "compress.report" not in found


COMMANDS = {
    f"compress.cli.{path.stem}" for path in parts_of(ROOT / "cli") if "\ndef add_to(" in path.read_text("utf-8")
}


def modules_after(words: list[str]) -> set[str]:
    """What a new process has imported when the command is done."""
    code = (
        "import sys; from compress.cli import main; main(sys.argv[1:]); print(*sys.modules, sep='\\n', file=sys.stderr)"
    )
    run = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    return set(run.stderr.split())


def test_load_is_public_and_lazy() -> None:
    code = "import sys, compress; assert 'load' in compress.__all__; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        compress.lode  # noqa: B018
