from __future__ import annotations

import io
import itertools
import json
import sys

import pytest

from compress.cli.output import Output, output_of


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_results_go_to_stdout_in_one_of_three_forms(capsys: pytest.CaptureFixture[str]) -> None:
    for out, text in ((Output(), "long"), (Output(quiet=True), "short")):
        out.result({"a": 1}, "long", "short")
        assert capsys.readouterr() == (f"{text}\n", "")
    Output(json=True, quiet=True).result({"a": [1, None]}, "long", "short")
    assert json.loads(capsys.readouterr().out) == {"a": [1, None]}


def test_all_else_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    out = Output()
    out.step("Pruning")
    out.detail("unseen")
    out.warn("odd")
    out.error("broken", "mend it")
    assert capsys.readouterr() == ("", "Pruning\nwarning: odd\nerror: broken\n  try: mend it\n")


def test_verbose_and_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    Output(verbose=True).detail("seen")
    Output(quiet=True).step("unseen")
    Output(quiet=True).warn("odd")
    assert capsys.readouterr().err == "  seen\nwarning: odd\n"


def test_progress_in_lines(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count(0.0, 6.0)  # six seconds pass between two looks at it
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    assert list(Output().track(range(5), "epochs")) == [0, 1, 2, 3, 4]
    # items 1 to 4 begin after 12, 18, 24 and 30 s; a line at the first look 10 s after the last line
    assert capsys.readouterr().err == ("  epochs: 1 of 5, 48 s left\n  epochs: 3 of 5, 16 s left\n")


def test_progress_of_unknown_length(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = itertools.count(0.0, 20.0)
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    assert list(Output().track(iter("ab"), "batches")) == ["a", "b"]
    assert capsys.readouterr().err == "  batches: 1\n"


@pytest.mark.parametrize("out", [Output(quiet=True), Output(progress=False)])
def test_progress_can_be_silenced(out: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    assert list(out.track([1, 2], "x")) == [1, 2]
    assert terminal.getvalue() == ""


def test_progress_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    assert list(Output().track([1, 2], "epochs")) == [1, 2]
    assert "epochs" in terminal.getvalue()


def test_color_heeds_the_terminal_and_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)

    def colored(out: Output) -> bool:
        terminal = Terminal()
        monkeypatch.setattr(sys, "stderr", terminal)
        out.warn("x")
        return "\033" in terminal.getvalue()

    assert colored(Output())
    assert not colored(Output(color="never"))
    monkeypatch.setenv("NO_COLOR", "1")
    assert not colored(Output())
    assert colored(Output(color="always"))


def test_output_of_a_broken_command_line() -> None:
    assert output_of(["x", "--color", "never"]).color == "never"
    assert output_of(["x", "--color=always"]).color == "always"
    assert output_of(["x", "--color", "blue"]).color == "auto"
    assert output_of(["x", "--color"]).color == "auto"
