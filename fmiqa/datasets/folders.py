"""Folders listed once and searched without regard to letter case: data sets come in every spelling."""

from __future__ import annotations

import os
from collections.abc import Hashable
from pathlib import Path

__all__ = ["Folder", "file_key"]


def file_key(path: str | os.PathLike[str]) -> Hashable:
    """Equal for all paths to one file: through links, "..", and other letter case where the file system ignores it.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp())
        >>> _ = (path / "a.png").write_bytes(b""), (path / "link.png").symlink_to(path / "a.png")
        >>> file_key(path / "link.png") == file_key(path / "a.png") != file_key(path)
        True
    """
    try:
        status = os.stat(path)
    except OSError:  # there is no such file: only its name can be compared
        return os.path.realpath(path)
    return status.st_dev, status.st_ino


class Folder:
    """The entries of one folder and of those below it, found by name in any letter case.

    Args:
        path: The folder; one that is missing has no entries.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp())
        >>> (path / "Images").mkdir()
        >>> _ = (path / "Images" / "I01.BMP").write_bytes(b"")
        >>> folder = Folder(path)
        >>> folder.find("images/i01.bmp").name, folder.folder("images").names
        ('I01.BMP', ['i01.bmp'])
        >>> folder.find("images/i02.bmp") is None
        True
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._entries: dict[str, list[Path]] = {}
        self._folders: dict[str, Folder] = {}
        for entry in sorted(path.iterdir()) if path.is_dir() else []:
            self._entries.setdefault(entry.name.lower(), []).append(entry)

    def find(self, name: str) -> Path | None:
        """The entry of that name, the first where several differ in letter case only (see `clashes`)."""
        first, _, rest = name.partition("/")
        if rest:
            return self.folder(first).find(rest)
        return self._entries.get(name.lower(), [None])[0]

    def at(self, name: str) -> Path:
        """The entry of that name, or where it would be."""
        return self.find(name) or self.path / name

    def folder(self, name: str) -> Folder:
        """The folder of that name; without entries if there is none."""
        first, _, rest = name.lower().partition("/")
        if first not in self._folders:
            self._folders[first] = Folder(self.at(first))
        return self._folders[first].folder(rest) if rest else self._folders[first]

    def clashes(self, name: str) -> list[str]:
        """A line to report if several entries bear that name in different letter case."""
        first, _, rest = name.partition("/")
        if rest and not self.clashes(first):
            return self.folder(first).clashes(rest)
        spellings = [entry.name for entry in self._entries.get(first.lower(), [])]
        if len(spellings) < 2:
            return []
        return [f"{self.path} holds {' and '.join(spellings)}, which differ in letter case only; keep one"]

    @property
    def names(self) -> list[str]:
        """All names, in lower case, sorted."""
        return sorted(self._entries)
