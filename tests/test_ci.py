"""The files and the page for pipelines: every shell step of them runs, in a real shell."""

from __future__ import annotations

import importlib
import json
import os
import re
import shlex
import shutil
import socketserver
import subprocess
import sys
import tomllib
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from compress.gate import KEYS, limit_of, read_gate
from compress.measure import latency_pair

writing = importlib.import_module("compress.pipeline.writing")
ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "ci.md").read_text("utf-8")
Shell = Callable[..., "subprocess.CompletedProcess[str]"]

# What the shell finds as `compress`: hands its words to this process, which has torch already
SHIM = """#!{python} -IS
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as peer:
    peer.connect({address!r})
    peer.sendall(json.dumps([os.getcwd(), os.environ.get("GITHUB_STEP_SUMMARY"), sys.argv[1:]]).encode() + b"\\n")
    code, out, err = json.loads(peer.makefile().read())
sys.stdout.write(out)
sys.stderr.write(err)
sys.exit(code)
"""


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory, invoke: Callable[..., Any]) -> Iterator[Shell]:
    """Runs a script as pipelines do, in a folder with a sample model; `pip` and `apt-get` do nothing there."""
    work, bin, sockets = (tmp_path_factory.mktemp(name) for name in ("work", "bin", "s"))
    (work / "sample_models").mkdir()
    shutil.copy(ROOT / "sample_models" / "digits_mlp.pt", work / "sample_models")
    address = str(sockets / "s")

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            folder, summary, words = json.loads(self.rfile.readline())
            with pytest.MonkeyPatch.context() as patch:
                patch.chdir(folder)
                if summary:
                    patch.setenv("GITHUB_STEP_SUMMARY", summary)
                done = invoke(*words)
            self.wfile.write(json.dumps([done.code, done.out, done.err]).encode())

    (bin / "compress").write_text(SHIM.format(python=sys.executable, address=address))
    for name in ("pip", "python", "apt-get"):
        (bin / name).write_text("#!/bin/sh\nexit 0\n")
    for file in bin.iterdir():
        file.chmod(0o755)

    def run(script: str, **env: str) -> subprocess.CompletedProcess[str]:
        path = {**os.environ, **env, "PATH": f"{bin}:{os.environ['PATH']}"}
        return subprocess.run(
            ["bash", "-eo", "pipefail", "-c", script], cwd=work, env=path, capture_output=True, text=True
        )

    with socketserver.UnixStreamServer(address, Handler) as server, pytest.MonkeyPatch.context() as patch:
        patch.delenv("GITHUB_STEP_SUMMARY", raising=False)
        patch.setattr(writing, "reloaded", lambda *_: 0.0)
        patch.setattr(writing, "latency_pair", partial(latency_pair, min_seconds=0))
        Thread(target=server.serve_forever, daemon=True).start()
        done = run("\n".join(blocks("sh")))
        assert done.returncode == 0, done.stderr
        assert "passed: 4 of 4 limits met" in done.stdout
        yield run
        server.shutdown()


def scripts(document: Any) -> list[str]:
    """The shell steps of a pipeline of GitHub or GitLab, in their order."""
    found = []
    for job in document.get("jobs", document).values():
        if isinstance(job, dict):
            found += [step["run"] for step in job.get("steps", ()) if "run" in step] + job.get("script", [])
    return found


@pytest.mark.parametrize(("kind", "count"), [("jobs:", 3), ("script:", 4)], ids=["github", "gitlab"])
def test_the_pipelines_of_the_page(shell: Shell, kind: str, count: int, tmp_path: Path) -> None:
    (example,) = (block for block in blocks("yaml") if kind in block)
    steps = scripts(yaml.safe_load(example))
    assert len(steps) == count
    for step in steps:
        done = shell(f"rm -f gate.xml\n{step}", GITHUB_STEP_SUMMARY=str(tmp_path / "summary.md"))
        assert done.returncode == 0, done.stderr
    assert "passed" in (tmp_path / "summary.md").read_text()
    suites = ElementTree.fromstring(shell("cat gate.xml").stdout)
    assert (suites.attrib["tests"], suites.attrib["failures"]) == ("4", "0")


def test_the_action(shell: Shell) -> None:
    action = yaml.safe_load((ROOT / "action.yml").read_text("utf-8"))
    (example,) = (block for block in blocks("yaml") if "uses: OWNER/compress@" in block)
    (used,) = yaml.safe_load(example)
    assert set(used["with"]) <= set(action["inputs"])
    values = {name: each["default"] for name, each in action["inputs"].items()} | used["with"]
    steps = {step["name"]: step for step in action["runs"]["steps"] if "run" in step}
    assert list(steps) == ["Install", "Prune", "Check"] and all(step["shell"] == "bash" for step in steps.values())

    def run(name: str, **changed: str) -> subprocess.CompletedProcess[str]:
        given = {**values, **changed}
        env = {
            k: re.sub(r"\$\{\{ inputs\.([\w-]+) \}\}", lambda m: given[m[1]], v) for k, v in steps[name]["env"].items()
        }
        assert "${{" not in steps[name]["run"]  # an input in the text of a script could be a command
        return shell(steps[name]["run"], **env)

    for name in steps:
        done = run(name)
        assert done.returncode == 0, done.stderr
    assert run("Check", data="digits", bundle="small/model.safetensors", junit="my file.xml").returncode == 0
    strict = run("Check", config="none.toml")
    assert strict.returncode == 2 and "none.toml cannot be read" in strict.stderr
    shell("echo 'max_params = 1' > 'a strict.toml'")
    assert run("Check", config="a strict.toml").returncode == 1


def test_the_hook(shell: Shell) -> None:
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text("utf-8"))
    (example,) = (block for block in blocks("yaml") if "repos:" in block)
    (used,) = yaml.safe_load(example)["repos"][0]["hooks"]
    assert used["id"] == hook["id"] and hook["pass_filenames"] is False
    done = shell(f"{hook['entry']} {shlex.join(used['args'])}")
    assert done.returncode == 0, done.stderr
    for path, wanted in (
        ("small/report.json", True),
        ("model.safetensors", True),
        ("gate.toml", True),
        ("small/report.json.md", False),
    ):
        assert (re.search(hook["files"], path) is not None) == wanted


def test_the_image_has_what_the_package_is_made_of() -> None:
    lines = (ROOT / "Dockerfile").read_text("utf-8").splitlines()
    copied = [word for line in lines if line.startswith("COPY") for word in line.split()[1:-1]]
    ignored = (ROOT / ".dockerignore").read_text("utf-8").split()
    assert ignored[0] == "*" and [f"!{name}" for name in copied] == ignored[1 : 1 + len(copied)]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    needed = [
        project["project"]["readme"],
        *project["project"]["license-files"],
        project["tool"]["hatch"]["version"]["path"],
    ]
    needed += project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    for path in needed:
        assert (ROOT / path).exists() and path.partition("/")[0] in copied
    assert lines.index("USER 1000") < lines.index('ENTRYPOINT ["compress"]')


def test_the_limits_of_the_page(tmp_path: Path) -> None:
    (example,) = blocks("toml")
    (tmp_path / "pyproject.toml").write_text(example)
    assert len(read_gate(None, folder=tmp_path).limits) == 4
    rows = re.findall(r"^\| (`max_.*|`min_.*) \| .* \| (.*) \|$", PAGE, re.MULTILINE)
    told = [name for names, _ in rows for name in re.findall(r"`(\w+)`", names)]
    assert sorted(told) == sorted(KEYS)
    for names, values in rows:
        for name in re.findall(r"`(\w+)`", names):
            for value in re.findall(r"`([^`]+)`", values):
                limit_of(name, tomllib.loads(f"v = {value}")["v"], "ci.md")
