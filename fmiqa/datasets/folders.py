"""Folders listed once and searched without regard to letter case: data sets come in every spelling."""

from __future__ import annotations

from pathlib import Path

__all__ = ["Folder"]


class Folder:
    """The entries of one folder, found by name in any letter case.

    Args:
        path: the folder; one that is missing has no entries.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp())
        >>> _ = (path / "I01.BMP").write_bytes(b"")
        >>> folder = Folder(path)
        >>> folder.find("i01.bmp").name
        'I01.BMP'
        >>> folder.find("i02.bmp") is None
        True
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._entries: dict[str, list[Path]] = {}
        for entry in sorted(path.iterdir()) if path.is_dir() else []:
            self._entries.setdefault(entry.name.lower(), []).append(entry)

    def find(self, name: str) -> Path | None:
        """The entry of that name, the first where several differ in letter case only (see `clashes`)."""
        return self._entries.get(name.lower(), [None])[0]

    def clashes(self, name: str) -> list[str]:
        """A line to report if several entries bear that name in different letter case."""
        spellings = [entry.name for entry in self._entries.get(name.lower(), [])]
        if len(spellings) < 2:
            return []
        return [f"{self.path} holds {' and '.join(spellings)}, which differ in letter case only; keep one"]

    @property
    def names(self) -> list[str]:
        """All names, in lower case, sorted."""
        return sorted(self._entries)
