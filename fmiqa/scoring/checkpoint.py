"""Finished pieces of a long run, kept on disk, so that an interrupted run resumes."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from fmiqa._io import is_special, load_json, save_json
from fmiqa._result import Saved
from fmiqa._runtime.distributed import from_first
from fmiqa.errors import FileFormatError, ResumeError

__all__ = ["Checkpoint", "refuse_other"]

K = TypeVar("K", bound=Saved)


class Checkpoint:
    """A folder of finished pieces, and of run.json, which describes the run; or nothing, where nothing is to be kept.

    Args:
        folder: The folder; None to keep nothing.
    """

    def __init__(self, folder: str | os.PathLike[str] | None) -> None:
        self.folder = None if folder is None else Path(folder)

    @classmethod
    def beside(cls, save: str | os.PathLike[str] | None) -> Checkpoint:
        """The folder `<save>.parts` beside a result, if that is a regular file."""
        return cls(None if save is None or is_special(save) else f"{os.fspath(save)}.parts")

    def open(self, kind: str, description: Mapping[str, Any]) -> None:
        """Begin the folder, or resume a run of the same description.

        Args:
            kind: The kind of run.json.
            description: What finished pieces must share with this run.

        Raises:
            ResumeError: The folder holds pieces of a run with another description.
        """
        if self.folder is None:
            return
        run = self.folder / "run.json"
        if run.exists():
            refuse_other(self.folder, load_json(run, kind), description)
        else:
            save_json(run, kind, description)

    def path(self, name: str) -> Path | None:
        """Where a piece is kept."""
        return None if self.folder is None else self.folder / name

    def read(self, name: str, kind: type[K]) -> K | None:
        """A piece, if it is finished; one that is damaged is removed and counts as not finished."""
        path = self.path(name)
        if path is None or not path.exists():
            return None
        try:
            return kind.load(path)
        except FileFormatError:
            path.unlink()
            return None

    def write(self, name: str, piece: Saved) -> None:
        """Keep a piece, at once and completely."""
        path = self.path(name)
        if path is not None:
            piece.save(path)

    def take(self, name: str, kind: type[K], compute: Callable[[], K]) -> K:
        """A piece as it was kept, or else computed, and kept unless the computation has done so.

        In a process group the first process reads and writes, so that all do the same.
        """
        path = self.path(name)
        found = from_first(lambda: self.read(name, kind))
        if found is None:
            found = compute()
            from_first(lambda: None if path is None or path.exists() else found.save(path))
        return found

    def remove(self) -> None:
        """Remove the folder, when the result is saved."""
        if self.folder is not None:
            shutil.rmtree(self.folder)


def refuse_other(path: str | os.PathLike[str], before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise `ResumeError` where what was saved describes itself otherwise than this run.

    What it does not say, because an earlier version saved it, is not compared.
    """
    now = json.loads(json.dumps(now))
    differing = [f"other {k}: then {before[k]!r}, now {v!r}" for k, v in now.items() if k in before and before[k] != v]
    if differing:
        raise ResumeError(
            f"{os.fspath(path)} is of a run with other options than this one ({'; '.join(differing)}); call with the "
            "same options to resume it, save under another name, or delete it to start again"
        )
