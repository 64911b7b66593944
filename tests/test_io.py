"""Files are whole or absent, and say what they hold."""

from __future__ import annotations

import builtins
import errno
import os
import re
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fmiqa import FileFormatError, InputError
from fmiqa._io import (
    check_output,
    check_output_folder,
    is_special,
    load_json,
    load_tensors,
    printable,
    save_json,
    save_tensors,
    write_whole,
)


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


@pytest.fixture
def read_only(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Makes a folder read-only, also for the administrator, to whom permissions do not apply."""

    def make(folder: Path) -> None:
        opened = builtins.open

        def refusing(file: object, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
            if mode != "rb" and isinstance(file, str | os.PathLike) and Path(file).parent == folder:
                raise OSError(errno.EROFS, os.strerror(errno.EROFS), file)
            return opened(file, mode, *args, **kwargs)

        monkeypatch.setattr(builtins, "open", refusing)

    return make


def impossible(folder: Path) -> dict[str, str]:
    """Paths that no file can be written to, with what is said of each."""
    (folder / "folder").mkdir()
    (folder / "file").write_text("here before")
    (folder / "round").symlink_to("round")
    (folder / "to folder").symlink_to("folder")
    (folder / "below file").symlink_to("file/x")
    long = "x" * 300
    return {
        "": "'' cannot be written: the name is empty",
        f"{folder}/folder": "folder cannot be written: it is a folder",
        f"{folder}/to folder": "to folder cannot be written: it is a folder",
        f"{folder}/new/": "new/ cannot be written: it is a folder's name",
        f"{folder}/file/x": "file/x cannot be written: .*file is not a folder",
        f"{folder}/file/new/x": "file/new/x cannot be written: .*file is not a folder",
        f"{folder}/below file": "below file cannot be written: .*file is not a folder",
        f"{folder}/round": "round cannot be written",
        f"{folder}/{long}": "x cannot be written: File name too long",
        f"{folder}/new/{long}": "x cannot be written: File name too long",
        f"{folder}/{long}/x": "x/x cannot be written: File name too long",
        f"{folder}/nu\0ll": "cannot be written: .*null",
    }


def test_what_is_impossible_is_found_before_the_work_and_under_its_name(tmp_path: Path) -> None:
    paths = impossible(tmp_path)
    before = sorted(os.listdir(tmp_path))
    for path, words in paths.items():
        with pytest.raises(InputError, match=words) as refused:
            check_output(path)
        assert ".fmiqa" not in str(refused.value)
        if "\0" not in path:
            with pytest.raises(OSError, match=f"'{re.escape(path)}'$"):
                write_whole(path, b"new")
    assert set(os.listdir(tmp_path)) <= {*before, "new"}  # a folder is made before a name in it is found too long
    assert (tmp_path / "file").read_text() == "here before"


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no /proc here")
def test_a_place_where_nothing_can_be_made_is_found() -> None:
    for path in ("/proc/result.json", "/proc/new/result.json"):
        with pytest.raises(InputError, match=f"{path} cannot be written"):
            check_output(path)
    with pytest.raises(InputError, match="/proc/new cannot be written"):
        check_output_folder("/proc/new")


def test_a_read_only_folder_is_found(tmp_path: Path, read_only: Callable[[Path], None]) -> None:
    (tmp_path / "there").write_text("here before")
    read_only(tmp_path)
    for name in ("x", "there", "new/x"):
        with pytest.raises(InputError, match=f"{name} cannot be written: Read-only file system"):
            check_output(tmp_path / name)
    with pytest.raises(InputError, match="new cannot be written: Read-only file system"):
        check_output_folder(tmp_path / "new")
    with pytest.raises(OSError, match=r"Read-only file system: '.*/there'"):
        write_whole(tmp_path / "there", b"new")
    assert (tmp_path / "there").read_text() == "here before"


def test_a_file_without_permission_to_write_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x").touch()
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    with pytest.raises(InputError, match="x cannot be written: Permission denied"):
        check_output(tmp_path / "x")


def test_a_check_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "there").write_text("here before")
    for name in ("x", "there", "new/folder/x", "y" * 255):
        check_output(tmp_path / name)
    check_output_folder(tmp_path / "new")
    check_output_folder(tmp_path)
    assert os.listdir(tmp_path) == ["there"]
    assert (tmp_path / "there").read_text() == "here before"
    write_whole(tmp_path / ("y" * 255), b"the longest name")


def test_what_is_kept_beside_a_file_is_checked_with_it(tmp_path: Path) -> None:
    (tmp_path / "x.parts").touch()
    with pytest.raises(InputError, match=r"x cannot be written: .*x\.parts is not a folder"):
        check_output(tmp_path / "x", beside=".parts/run.json")
    with pytest.raises(InputError, match="File name too long"):
        check_output(tmp_path / ("y" * 255), beside=".parts/run.json")


def test_impossible_folders_are_found(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path, words in {
        "": "'' cannot be written: the name is empty",
        f"{tmp_path}/file": "file cannot be written: .*file is not a folder",
        f"{tmp_path}/file/x": "file/x cannot be written: .*file is not a folder",
    }.items():
        with pytest.raises(InputError, match=words):
            check_output_folder(path)


def test_a_link_stays_a_link_and_its_target_is_written(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("old")
    (tmp_path / "link").symlink_to("target")
    (tmp_path / "second").symlink_to("link")
    (tmp_path / "dangling").symlink_to("new/target")
    for name, target in (("link", "target"), ("second", "target"), ("dangling", "new/target")):
        check_output(tmp_path / name)
        write_whole(tmp_path / name, name.encode())
        assert (tmp_path / name).is_symlink()
        assert not (tmp_path / target).is_symlink()
        assert (tmp_path / target).read_text() == name


def test_other_names_of_a_replaced_file_keep_what_they_had(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("old")
    os.link(tmp_path / "x", tmp_path / "other")
    write_whole(tmp_path / "x", b"new")
    assert (tmp_path / "other").read_text() == "old"


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o755])
def test_a_replaced_file_keeps_its_permissions(mode: int, tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    (tmp_path / "x").chmod(mode)
    write_whole(tmp_path / "x", b"new")
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == mode


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_a_new_file_follows_the_umask(mask: int, tmp_path: Path) -> None:
    before = os.umask(mask)
    try:
        write_whole(tmp_path / "x", b"new")
        assert os.umask(mask) == mask
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o666 & ~mask


def test_a_named_pipe_is_written_to(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    check_output(pipe, beside=".parts/run.json")
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    write_whole(pipe, b"result")
    reader.join(30)
    assert read == [b"result"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert os.listdir(tmp_path) == ["pipe"]


def test_devices_are_written_to(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/dev/null")
    for path in ("/dev/null", tmp_path / "link"):
        assert is_special(path)
        check_output(path, beside=".parts/run.json")
        write_whole(path, b"result")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    assert (tmp_path / "link").is_symlink()
    assert not Path("/dev/null.parts").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_is_named_with_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OSError, match="No space left on device: '/dev/full'") as full:
        write_whole("/dev/full", b"result")
    assert full.value.errno == errno.ENOSPC

    def failing(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (tmp_path / "x").write_text("old")
    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(OSError, match=r"No space left on device: '.*/x'"):
        write_whole(tmp_path / "x", b"new")
    assert (tmp_path / "x").read_text() == "old"
    assert os.listdir(tmp_path) == ["x"]


@pytest.mark.skipif(not Path("/dev/fd").exists(), reason="no /dev/fd here")
def test_an_open_file_is_written_to_where_it_stands(tmp_path: Path) -> None:
    code = """
from fmiqa._io import write_whole
print("before")
write_whole("/dev/stdout", b"result\\n")
write_whole("/dev/fd/1", b"again\\n")
print("after")
"""
    expected = b"before\nresult\nagain\nafter\n"
    with open(tmp_path / "out", "wb") as file:
        subprocess.run([sys.executable, "-c", code], stdout=file, check=True)
    assert (tmp_path / "out").read_bytes() == expected
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True).stdout == expected


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_names_that_are_not_unicode_are_read_and_written(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9.safetensors")
    check_output(path)
    save_tensors(path, "thing 1", {"a": torch.arange(3)}, {"name": path.name})
    tensors, header = load_tensors(path, "thing 1")
    assert tensors["a"].tolist() == [0, 1, 2]
    assert header["name"] == path.name
    assert printable(path.name) == "caf\\udce9.safetensors"
    with pytest.raises(FileFormatError, match="no file"):
        load_tensors(tmp_path / os.fsdecode(b"n\xe9"), "thing 1")
