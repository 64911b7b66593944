"""Files written whole or not at all: tensors with a JSON header (safetensors), and plain JSON."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import stat
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from fmiqa.errors import FileFormatError, InputError

__all__ = [
    "check_output",
    "check_output_folder",
    "is_special",
    "load_json",
    "load_tensors",
    "printable",
    "readable",
    "save_json",
    "save_tensors",
    "write_whole",
]

_NO_NAME = "the name is empty"
_MOST_LINKS = 40  # in a row, as in Linux


def write_whole(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file so that a reader, or a kill at any moment, never sees half of it.

    A symbolic link stays one: its target is written. A file that is replaced keeps its permissions. What is not a
    regular file (a named pipe, a device, `/dev/stdout`) is written to and never replaced. Missing folders are made.

    Raises:
        OSError: Naming the path as it was given.
    """
    name = os.fspath(path)
    try:
        found = _existing(name)
        if is_special(name):
            _write_through(name, content)
        else:
            _replace(os.path.realpath(name), content, None if found is None else stat.S_IMODE(found.st_mode))
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), name) from error


def check_output(path: str | os.PathLike[str], *, beside: str = "") -> None:
    """Find out before long work whether a file can be written. Nothing is left behind, and no folder is made.

    Args:
        path: The file to be written at the end.
        beside: The ending, added to `path`, of a file that is kept during the work, such as `".parts/run.json"`.

    Raises:
        InputError: The path names a folder or nothing, lies below a file or in a place that cannot be written to, or
            its name is too long.
    """
    name = os.fspath(path)
    try:
        found = _existing(name)
        if found is not None and not os.access(name, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        if not is_special(name):
            for file in dict.fromkeys([name, name + beside]):
                _check_place(os.path.realpath(file))
    except (OSError, ValueError) as error:  # ValueError: a null character
        raise _unwritable(name, error) from error


def check_output_folder(path: str | os.PathLike[str]) -> None:
    """The same for a folder that files are to be written to.

    Raises:
        InputError: It cannot be made, or not be written to.
    """
    name = os.fspath(path)
    try:
        if not name:
            raise FileNotFoundError(errno.ENOENT, _NO_NAME)
        _check_place(os.path.join(os.path.realpath(name), "file"))
    except (OSError, ValueError) as error:
        raise _unwritable(name, error) from error


def is_special(path: str | os.PathLike[str]) -> bool:
    """Whether a path names what is written to and not replaced: a named pipe, a device, an open file descriptor."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)) or _descriptor(os.fspath(path)) is not None


def printable(text: str) -> str:
    """A text in which what is not Unicode, such as some bytes of a file's name, is written as an escape.

    Example:
        >>> printable("caf\\udce9")
        'caf\\\\udce9'
    """
    return text.encode("utf-8", "backslashreplace").decode()


def _existing(name: str) -> os.stat_result | None:
    """What lies at a path, or None where a new file could come to be."""
    if not name:
        raise FileNotFoundError(errno.ENOENT, _NO_NAME)
    if name.endswith(tuple(filter(None, (os.sep, os.altsep)))):
        raise IsADirectoryError(errno.EISDIR, "it is a folder's name")
    try:
        found = os.stat(name)
    except FileNotFoundError:
        return None
    except NotADirectoryError:
        _check_place(os.path.realpath(name))  # which names the file that is taken for a folder
        raise
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, "it is a folder")
    return found


def _check_place(target: str) -> None:
    """Raise `OSError` unless a file can be made at this absolute path, in folders that are there or can be made."""
    folder, name = os.path.split(target)
    names = [name]
    while not os.path.isdir(folder):
        if os.path.lexists(folder):
            raise NotADirectoryError(errno.ENOTDIR, f"{folder} is not a folder")
        folder, name = os.path.split(folder)
        names.append(name)
    for name in names:
        with contextlib.suppress(FileNotFoundError):
            os.lstat(os.path.join(folder, name))  # fails where a name is too long
    draft = _draft(folder)
    try:
        with open(draft, "xb"):
            pass
    finally:
        Path(draft).unlink(missing_ok=True)


def _replace(target: str, content: bytes, mode: int | None) -> None:
    """Write a new file beside the target and move it there, with these permissions or those of a new file."""
    folder = os.path.dirname(target)
    os.makedirs(folder, exist_ok=True)
    draft = _draft(folder)
    try:
        with open(draft, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if mode is not None:
            with contextlib.suppress(OSError):  # file systems without permissions
                os.chmod(draft, mode)
        os.replace(draft, target)
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise


def _write_through(name: str, content: bytes) -> None:
    """Write to what is there. An open descriptor is written to as it is, since opening it again would start over."""
    descriptor = _descriptor(name)
    if descriptor is None:
        with open(name, "wb") as file:
            file.write(content)
        return
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()  # what was printed before comes before
    with open(descriptor, "wb", closefd=False) as file:
        file.write(content)


def _descriptor(name: str) -> int | None:
    """The number of the open file that a path such as /dev/stdout or /dev/fd/3 stands for."""
    own = os.path.realpath("/dev/fd")
    for _ in range(_MOST_LINKS):
        folder, last = os.path.split(name)
        if last.isdecimal() and os.path.realpath(folder) == own:
            return int(last)
        if not os.path.islink(name):
            return None
        name = os.path.join(folder, os.readlink(name))
    return None


def _draft(folder: str) -> str:
    """A new name, of a length that is possible wherever files are."""
    return os.path.join(folder, f".fmiqa-{secrets.token_hex(8)}")


def _unwritable(name: str, error: OSError | ValueError) -> InputError:
    reason = getattr(error, "strerror", None) or str(error)
    return InputError(f"{name or repr(name)} cannot be written: {reason}")


def save_tensors(
    path: str | os.PathLike[str], kind: str, tensors: Mapping[str, Tensor], header: Mapping[str, Any]
) -> None:
    """Save tensors and a JSON header in one safetensors file that says what it holds (`kind`)."""
    flat: dict[str, Tensor] = {}
    stored: set[int] = set()
    for name, tensor in tensors.items():
        value = tensor.detach().cpu().contiguous()
        memory = value.untyped_storage().data_ptr()
        flat[name] = value.clone() if memory in stored else value  # safetensors refuses tensors that share memory
        stored.add(memory)
    write_whole(path, save(flat, {"kind": kind, "header": json.dumps(header)}))


@contextlib.contextmanager
def readable(path: str | os.PathLike[str]) -> Iterator[str]:
    """A name of an existing file for libraries whose file names must be Unicode.

    Raises:
        OSError: There is no such file.
    """
    name = os.fspath(path)
    if printable(name) == name:
        yield name
        return
    with open(name, "rb") as file:
        yield f"/dev/fd/{file.fileno()}"


def load_tensors(path: str | os.PathLike[str], kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `save_tensors` saved under the same `kind`.

    Raises:
        FileFormatError: The file is missing, damaged, or holds something else.
    """
    try:
        # Older versions of safetensors load onto the default device, whatever device they are told.
        with readable(path) as name, torch.device("cpu"), safe_open(name, framework="pt") as file:
            metadata = file.metadata() or {}
            _expect(path, kind, metadata.get("kind"))
            return {name: file.get_tensor(name) for name in file.keys()}, json.loads(metadata["header"])  # noqa: SIM118
    except FileNotFoundError as error:
        raise FileFormatError(f"no file {path}; expected a saved {kind}") from error
    except (SafetensorError, OSError, KeyError, json.JSONDecodeError) as error:
        raise FileFormatError(f"{path} is damaged or not a saved {kind}: {error}") from error


def save_json(path: str | os.PathLike[str], kind: str, content: Mapping[str, Any]) -> None:
    """Save a mapping as readable JSON that says what it holds (`kind`)."""
    write_whole(path, (json.dumps({"kind": kind, **content}, indent=1) + "\n").encode())


def load_json(path: str | os.PathLike[str], kind: str, *older: str) -> dict[str, Any]:
    """What `save_json` saved under the same `kind`, or one of the older kinds.

    Raises:
        FileFormatError: The file is missing, damaged, or holds something else.
    """
    try:
        content = json.loads(Path(path).read_text())
    except FileNotFoundError as error:
        raise FileFormatError(f"no file {path}; expected a saved {kind}") from error
    except (UnicodeDecodeError, json.JSONDecodeError, OSError) as error:
        raise FileFormatError(f"{path} is damaged or not a saved {kind}: {error}") from error
    found = content.pop("kind", None) if isinstance(content, dict) else None
    _expect(path, kind, kind if found in older else found)
    return content  # type: ignore[no-any-return]


def _expect(path: str | os.PathLike[str], kind: str, found: str | None) -> None:
    if found != kind:
        raise FileFormatError(f"{path} holds {found or 'something else'}, expected {kind}")
