"""Files that hold no model, and places where there is none: each has one clear error."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from compress.checkpoint import load_model
from compress.errors import InputError


def empty(path: Path) -> None:
    path.write_bytes(b"")


def jpeg(path: Path) -> None:
    path.write_bytes(b"\xff\xd8\xff\xe0\x00\x10JFIF" + bytes(100))


def web_page(path: Path) -> None:
    path.write_text("<!DOCTYPE html><html>not found</html>", encoding="utf-8")


def lfs_pointer(path: Path) -> None:
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", encoding="utf-8")


def truncated_zip(path: Path) -> None:
    torch.save({"w": torch.zeros(1000)}, path)
    path.write_bytes(path.read_bytes()[:2000])


def truncated_legacy(path: Path) -> None:
    torch.save({"w": torch.zeros(1000)}, path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[:2000])


def broken_header(path: Path) -> None:
    path.write_bytes((20).to_bytes(8, "little") + b'{"weight": oh dear!}' + bytes(16))


def huge_header(path: Path) -> None:
    path.write_bytes((1 << 40).to_bytes(8, "little") + b"{}")


def plain_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps([1, 2]))


def torchscript(path: Path) -> None:
    import zipfile

    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/data.pkl", b"")
        archive.writestr("model/constants.pkl", b"")


def torchscript_of_something(path: Path) -> None:
    import zipfile

    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/data.pkl", b"cos\nsystem\n(S'true'\ntR.")
        archive.writestr("model/constants.pkl", b"")


def a_list(path: Path) -> None:
    torch.save([torch.zeros(2)], path)


def a_tensor(path: Path) -> None:
    torch.save(torch.zeros(2), path)


def nothing(path: Path) -> None:
    torch.save({}, path)


def an_optimizer(path: Path) -> None:
    torch.save(torch.optim.Adam([torch.zeros(2, requires_grad=True)]).state_dict(), path)


def an_optimizer_by_name(path: Path) -> None:
    moments = {"exp_avg": torch.zeros(2), "exp_avg_sq": torch.zeros(2), "step": torch.ones(())}
    torch.save({"optimizer_state_dict": {"state": {"fc.weight": moments}}, "epoch": 3}, path)


def an_index_of_nothing(path: Path) -> None:
    path.write_text("{}", encoding="utf-8")


def no_weights(path: Path) -> None:
    torch.save({"epoch": 3, "lr": 0.1}, path)


def several(path: Path) -> None:
    torch.save({"a": {"w": torch.zeros(1)}, "b": {"w": torch.zeros(1)}}, path)


def nothing_fits(path: Path) -> None:
    torch.save({"odd.weight": torch.zeros(7, 3)}, path)


WRONG: dict[Callable[[Path], None], str] = {
    empty: "is empty", jpeg: "JPEG image", web_page: "web page", lfs_pointer: "LFS pointer",
    truncated_zip: "truncated or damaged", truncated_legacy: "truncated or damaged",
    broken_header: "not a readable safetensors", huge_header: "header claims", plain_pickle: "plain pickle",
    torchscript: "truncated or damaged", torchscript_of_something: "names os.system", a_list: "holds a list",
    a_tensor: "holds a Tensor", nothing: "empty dict", an_optimizer: "state of an optimizer and no weights",
    an_optimizer_by_name: "state of an optimizer and no weights", no_weights: "'epoch', 'lr'",
    an_index_of_nothing: "begins with",
    several: "'a', 'b'", nothing_fits: r"odd.weight \(7, 3\)",
}  # fmt: skip


@pytest.mark.parametrize("make", WRONG, ids=lambda make: make.__name__)
def test_wrong_files(make: Callable[[Path], None], tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    make(path)
    with pytest.raises(InputError, match=WRONG[make]) as caught:
        load_model(path)
    assert caught.value.hint
    assert caught.value.exit_code == 2


def test_missing_file_names_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "digits.pt").write_bytes(b"x")
    with pytest.raises(InputError, match="no such file") as caught:
        load_model(tmp_path / "digit.pt")
    assert "digits.pt" in caught.value.hint


def test_a_directory_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no bundle"):
        load_model(tmp_path)


def test_a_directory_with_somebody_elses_safetensors(tmp_path: Path) -> None:
    save_file({"w": torch.zeros(2)}, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match="not a bundle"):
        load_model(tmp_path)


def test_permission_denied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(b"secret")

    def deny(*args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", deny)  # chmod would not stop a test that runs as root
    with pytest.raises(InputError, match="permission denied"):
        load_model(path)
