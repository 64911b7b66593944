"""Finished parts of a long run, kept on disk so that a stopped run goes on."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from fmiqa._io import is_special, load_json, load_tensors, save_json, save_tensors
from fmiqa._result import Saved
from fmiqa._runtime.distributed import from_first
from fmiqa.errors import FileFormatError, ResumeError

__all__ = ["Kept", "Parts", "open_folder", "refuse_other"]

_PART = "fmiqa score matrix part 1"
_RUN = "fmiqa score matrix run 1"


def open_folder(folder: Path, kind: str, description: Mapping[str, Any]) -> None:
    """Begin a folder of finished parts, or go on with one that says it is of the same run.

    Args:
        folder: of the parts, and of run.json, which describes the run.
        kind: of run.json.
        description: what finished parts must share with this run.

    Raises:
        ResumeError: they do not.
    """
    run = folder / "run.json"
    if run.exists():
        refuse_other(folder, load_json(run, kind), description)
    else:
        save_json(run, kind, description)


def refuse_other(path: str | os.PathLike[str], before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise `ResumeError` where what was saved describes itself otherwise than this run.

    What it does not say, since an earlier version saved it, is not compared.
    """
    now = json.loads(json.dumps(now))
    differing = [f"other {k}: then {before[k]!r}, now {v!r}" for k, v in now.items() if k in before and before[k] != v]
    if differing:
        raise ResumeError(
            f"{os.fspath(path)} is of a run with other options than this one ({'; '.join(differing)}); call with the "
            "same to go on, save under another name, or delete that to start anew"
        )


K = TypeVar("K", bound=Saved)


class Kept:
    """Finished steps of a run, each a file of a folder if there is one.

    Args:
        folder: of the steps; begun, or gone on with.
        kind: of run.json, see `open_folder`.
        description: what finished steps must share with this run.

    Raises:
        ResumeError: they do not.
    """

    def __init__(self, folder: str | os.PathLike[str] | None, kind: str, description: Mapping[str, Any]) -> None:
        self._folder = None if folder is None else Path(folder)
        if folder is not None:
            from_first(lambda: open_folder(Path(folder), kind, description))

    def path(self, name: str) -> Path | None:
        """Where a step is kept."""
        return None if self._folder is None else self._folder / name

    def take(self, name: str, kind: type[K], compute: Callable[[], K]) -> K:
        """A step as it was kept, or computed; a damaged file counts as not finished."""
        path = self.path(name)
        if path is None:
            return compute()
        found = from_first(lambda: _whole(kind, path))
        if found is None:
            found = compute()
            from_first(lambda: None if path.exists() else found.save(path))  # some save what they compute themselves
        return found


def _whole(kind: type[K], path: Path) -> K | None:
    """What was saved there, if it is whole; what is damaged makes room."""
    try:
        return kind.load(path) if path.exists() else None
    except FileFormatError:
        path.unlink()
        return None


class Parts:
    """Finished parts of a run: on disk beside the result if that is a regular file, in memory otherwise."""

    def __init__(self, save: str | os.PathLike[str] | None, plan: list[list[int]]) -> None:
        self.done: dict[int, dict[str, Any]] = {}
        self._plan = plan
        self._folder = None if save is None or is_special(save) else Path(f"{os.fspath(save)}.parts")

    def take_up(self, description: dict[str, Any]) -> None:
        """Open the folder and read the parts in it: for one process, before any adds a part.

        Args:
            description: what finished parts must share with this run.

        Raises:
            ResumeError: they do not.
        """
        if self._folder is None:
            return
        open_folder(self._folder, _RUN, description)
        for number, rows in enumerate(self._plan):
            part = self._read(number, rows, description["maps"])
            if part is not None:
                self.done[number] = part

    def refuse_other_items(self, look_again: Callable[[list[int]], Iterable[tuple[int, str | None, str]]]) -> None:
        """Compare the items of finished parts with those there are now.

        Args:
            look_again: rows -> of some of them the row, the name (None: not looked at) and the digest.

        Raises:
            ResumeError: an item has another name, or is another image or score under the same name.
        """
        for number, part in self.done.items():
            digests = part.get("digests")  # none in parts of version 0.1
            for row, name, digest in look_again(part["rows"]):
                place = part["rows"].index(row)
                before = part["names"][place]
                if name not in (None, before):
                    difference = f"item {row} was {before!r} in part {number}, now it is {name!r}"
                elif digests and digests[place] != digest:
                    difference = f"item {row}, {before!r}, has changed since part {number} was finished"
                else:
                    continue
                raise ResumeError(
                    f"{self._folder} holds finished parts of other images ({difference}); "
                    "save under another name, or delete that folder"
                )

    def _read(self, number: int, rows: list[int], maps: int) -> dict[str, Any] | None:
        """A finished part; a damaged one counts as not finished."""
        if not self._path(number).exists():
            return None
        try:
            tensors, header = load_tensors(self._path(number), _PART)
        except FileFormatError:
            return None
        whole = all(len(header.get(key, ())) == len(rows) for key in ("targets", "groups", "names", "distortions"))
        if not whole or "values" not in tensors or tensors["values"].shape != (len(rows), maps):
            return None
        return {"rows": rows, "values": tensors["values"], **header}

    def _path(self, number: int) -> Path:
        assert self._folder is not None
        return self._folder / f"part-{number:06d}.safetensors"

    def add(self, number: int, part: dict[str, Any]) -> None:
        """Keep a part, on disk at once if there is a folder."""
        if self._folder is not None:
            header = {k: v for k, v in part.items() if k not in ("rows", "values")}
            save_tensors(self._path(number), _PART, {"values": part["values"]}, header)
        self.done[number] = part

    def all(self) -> list[dict[str, Any]]:
        """The finished parts in order."""
        return [self.done[number] for number in sorted(self.done)]

    def remove(self) -> None:
        """Remove the folder, when the whole result is saved."""
        if self._folder is not None:
            shutil.rmtree(self._folder)
