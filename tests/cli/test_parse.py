from __future__ import annotations

import pytest

from compress.cli import parse
from compress.errors import InputError
from compress.inputs import InputType
from compress.registry import Option
from compress.request import BudgetTarget

OPTIONS = (
    Option("bin", "int", "500", False, "Width."),
    Option("pool_size", "int", "2", False, "Size."),
    Option("exact", "flag", "off", False, "Exactly."),
)


def split(*words: str) -> tuple[list[str], dict[str, str]]:
    return parse.method_options(words, "m", OPTIONS, ["--ratio", "--data"])


def test_shape() -> None:
    assert parse.shape("3,224,224") == (3, 224, 224)
    assert parse.shape("3x32x32") == (3, 32, 32)
    assert parse.shape(" 64 ") == (64,)


@pytest.mark.parametrize("text", ["", "3,,4", "3,a", "-1,3", "0,3", "1.5"])
def test_not_a_shape(text: str) -> None:
    with pytest.raises(InputError, match="is not a shape"):
        parse.shape(text)


def test_inputs_with_their_types() -> None:
    assert parse.inputs([]) == (None, ())
    assert parse.inputs(["3,8,8", "4"]) == (((3, 8, 8), (4,)), ())
    types = (InputType("int64", 1000), InputType("bool"), InputType())
    assert parse.inputs(["16:int64<1000", "16:bool", "3x8"]) == (((16,), (16,), (3, 8)), types)
    for text in ("16:", "16:int8", "16:int64<0", ":int64"):
        with pytest.raises(InputError, match="--input-shape: "):
            parse.inputs([text])


def test_numbers() -> None:
    assert parse.numbers(None, "--mean") is None
    assert parse.numbers(".485, .5", "--mean") == (0.485, 0.5)
    with pytest.raises(InputError, match="--std: '1;2' is not a list of numbers"):
        parse.numbers("1;2", "--std")


def test_json_object() -> None:
    assert parse.json_object(None, "--arch-args") == {}
    assert parse.json_object('{"num_classes": 10}', "--arch-args") == {"num_classes": 10}
    with pytest.raises(InputError, match="is not JSON"):
        parse.json_object("{num_classes: 10}", "--arch-args")
    with pytest.raises(InputError, match="is not a JSON object"):
        parse.json_object("[1]", "--arch-args")


@pytest.mark.parametrize(
    ("macs", "params", "size", "target"),
    [
        ("0.5", None, None, BudgetTarget("macs", 0.5)),
        ("2G", None, None, BudgetTarget("macs", 2e9)),
        ("1.5e6", None, None, BudgetTarget("macs", 1.5e6)),
        (None, "300k", None, BudgetTarget("params", 3e5)),
        (None, "3 M", None, BudgetTarget("params", 3e6)),
        (None, None, "5MB", BudgetTarget("bytes", 5e6)),
        (None, None, "5MiB", BudgetTarget("bytes", 5 * 2**20)),
        (None, None, "100B", BudgetTarget("bytes", 100)),
    ],
)
def test_budget(macs: str | None, params: str | None, size: str | None, target: BudgetTarget) -> None:
    assert parse.budget(None, macs, params, size) == target


def test_budget_by_ratio_or_none() -> None:
    assert parse.budget(0.25, None, None, None) == BudgetTarget("ratio", 0.25)
    assert parse.budget(None, None, None, None) is None


@pytest.mark.parametrize("text", ["", "2Q", "fast", "5MB", "-1", "1.2.3", "e"])
def test_not_an_amount(text: str) -> None:
    with pytest.raises(InputError, match="is not an amount"):
        parse.budget(None, text, None, None)


@pytest.mark.parametrize(
    ("text", "value"),
    [("8ms", 8000), ("500us", 500), ("500 µs", 500), ("1.5s", 1.5e6), ("0.5", 0.5), (".25", 0.25), ("1e-1 MS", 100)],
)
def test_duration(text: str, value: float) -> None:
    assert parse.duration(text) == pytest.approx(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fast", "is not a time"),
        ("", "is not a time"),
        ("-8ms", "is not a time"),
        ("8ns", "is not a time"),
        ("1.2.3ms", "is not a time"),
        ("8", "has no unit"),
        ("0", "has no unit"),
        ("0.5us", "is not between 1us"),
        ("1e400s", "is not between 1us"),
    ],
)
def test_not_a_duration(text: str, message: str) -> None:
    with pytest.raises(InputError, match=f"--latency: .*{message}") as caught:
        parse.duration(text)
    assert "--latency 8ms" in caught.value.hint


def test_budgets_exclude_each_other() -> None:
    with pytest.raises(InputError, match="--ratio and --bytes are budgets"):
        parse.budget(0.5, None, None, "5MB")


def test_fractions_of_layers() -> None:
    assert parse.fraction_of("layer1.*=0.5") == ("layer1.*", 0.5)
    assert parse.fraction_of("a=b=0") == ("a=b", 0.0)
    for text in ("layer1", "=0.5", "layer1=half", "layer1=nan"):
        with pytest.raises(InputError, match="is not GLOB=FRACTION"):
            parse.fraction_of(text)


def test_widths_to_round_to() -> None:
    assert [parse.round_to(text) for text in ("16", "auto", "none", "Auto")] == [16, "auto", 1, "auto"]
    for text in ("", "8.5", "-8", "even"):
        with pytest.raises(InputError, match="is not a number"):
            parse.round_to(text)


def test_method_options() -> None:
    assert split("model.pt", "--bin", "3") == (["model.pt"], {"bin": "3"})
    assert split("--bin=3", "model.pt") == (["model.pt"], {"bin": "3"})
    assert split("--bin", "-3", "a", "b") == (["a", "b"], {"bin": "-3"})
    assert split("--pool-size", "4") == ([], {"pool_size": "4"})
    assert split("--exact", "model.pt") == (["model.pt"], {"exact": "on"})
    assert split("--no-exact") == ([], {"exact": "off"})
    assert split("--exact=off") == ([], {"exact": "off"})
    assert split("-5", "-") == (["-5", "-"], {})


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        (("--bim", "3"), "no option --bim, neither", "did you mean '--bin'?"),
        (("--rati=3",), "no option --rati, neither", "did you mean '--ratio'? `compress"),
        (("-x",), "no option -x, neither", "`compress methods m`"),
        (("--bin",), "--bin needs a value", "--bin INT: Width."),
        (("--bin", "--exact"), "--bin needs a value", "--bin INT: Width."),
        (("--bin", "1", "--bin=2"), "--bin is given twice", ""),
    ],
)
def test_method_options_refused(words: tuple[str, ...], message: str, hint: str) -> None:
    with pytest.raises(InputError) as caught:
        split(*words)
    assert str(caught.value).startswith(message)
    assert caught.value.hint.startswith(hint)
