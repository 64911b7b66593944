"""Files are whole or absent, and say what they hold."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
import torch

from fmiqa import FileFormatError
from fmiqa.io import load_json, load_tensors, save_json, save_tensors, write_whole


def test_tensors_and_header_come_back(tmp_path: Path) -> None:
    tensors = {
        "a": torch.rand(3, 4).t(),  # not contiguous
        "b": torch.tensor(3, dtype=torch.int64),
        "c": torch.rand(2, requires_grad=True).half(),
    }
    header = {"names": ["ä", "b:1"], "options": {"x": None, "y": 0.1}}
    save_tensors(tmp_path / "new/folder/x.safetensors", "thing 1", tensors, header)
    loaded, read = load_tensors(tmp_path / "new/folder/x.safetensors", "thing 1")
    assert read == header
    assert loaded.keys() == tensors.keys()
    for name, value in tensors.items():
        assert torch.equal(loaded[name], value)
        assert loaded[name].dtype == value.dtype


def test_json_comes_back(tmp_path: Path) -> None:
    save_json(tmp_path / "x.json", "thing 1", {"a": [1, 2.5], "b": None})
    assert load_json(tmp_path / "x.json", "thing 1") == {"a": [1, 2.5], "b": None}


@pytest.mark.parametrize("load", [load_json, load_tensors])
def test_wrong_files_are_named(tmp_path: Path, load: object) -> None:
    reader = load_json if load is load_json else load_tensors
    with pytest.raises(FileFormatError, match=r"no file .*x; expected a saved thing 1"):
        reader(tmp_path / "x", "thing 1")
    with pytest.raises(FileFormatError, match="damaged or not a saved thing 1"):
        reader(tmp_path, "thing 1")
    (tmp_path / "noise").write_bytes(bytes(range(256)))
    with pytest.raises(FileFormatError, match="noise is damaged or not a saved thing 1"):
        reader(tmp_path / "noise", "thing 1")
    (tmp_path / "empty").touch()
    with pytest.raises(FileFormatError, match="empty is damaged"):
        reader(tmp_path / "empty", "thing 1")


def test_another_kind_is_refused(tmp_path: Path) -> None:
    save_json(tmp_path / "x.json", "thing 1", {})
    save_tensors(tmp_path / "x.safetensors", "thing 1", {"a": torch.zeros(1)}, {})
    with pytest.raises(FileFormatError, match="holds thing 1, expected thing 2"):
        load_json(tmp_path / "x.json", "thing 2")
    with pytest.raises(FileFormatError, match="holds thing 1, expected thing 2"):
        load_tensors(tmp_path / "x.safetensors", "thing 2")
    (tmp_path / "list.json").write_text("[1]")
    with pytest.raises(FileFormatError, match="something else"):
        load_json(tmp_path / "list.json", "thing 1")


@pytest.mark.parametrize("length", [0, 4, 40, -1])
def test_cut_tensor_files_are_refused(tmp_path: Path, length: int) -> None:
    path = tmp_path / "x.safetensors"
    save_tensors(path, "thing 1", {"a": torch.rand(100)}, {})
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(FileFormatError, match="damaged"):
        load_tensors(path, "thing 1")


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x"
    write_whole(path, b"old")

    def interrupted(handle: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_whole(path, b"new and longer")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["x"]


def test_files_get_the_permissions_of_ordinary_files(tmp_path: Path) -> None:
    write_whole(tmp_path / "x", b"")
    (tmp_path / "y").touch()
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == stat.S_IMODE((tmp_path / "y").stat().st_mode)
