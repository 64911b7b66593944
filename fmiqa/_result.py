"""What all results share: one way to save and load them, and one way to show them as tables."""

from __future__ import annotations

import os
from html import escape
from typing import TYPE_CHECKING, Any, ClassVar

from fmiqa.errors import FileFormatError, FmiqaError

if TYPE_CHECKING:
    from torch import Tensor
    from typing_extensions import Self

__all__ = ["Result", "Rows", "Saved"]

Rows = list[tuple[str, ...]]
"""A table as text, its header first."""


class Saved:
    """The base of whatever can be saved to a file and loaded again.

    A subclass names its `kind` and says what a file holds: `to_dict`, `tensors` and `from_dict`. How files are written
    is imported only when it is asked for.
    """

    kind: ClassVar[str]
    """What a saved file says that it holds, with the format's version, such as `"fmiqa selection 1"`."""
    older_kinds: ClassVar[tuple[str, ...]] = ()
    """Kinds of files of earlier versions that `from_dict` also understands."""
    binary: ClassVar[bool] = False
    """Whether a file holds tensors with a JSON header (safetensors), and not JSON alone."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        raise NotImplementedError

    def tensors(self) -> dict[str, Tensor]:
        """The tensors that a binary file holds beside `to_dict`, by name."""
        return {}

    @classmethod
    def from_dict(cls, content: dict[str, Any], tensors: dict[str, Tensor]) -> Self:
        """The result again, from what `to_dict` and `tensors` gave."""
        raise NotImplementedError

    def save(self, path: str | os.PathLike[str]) -> None:
        """Save to one file, which is written whole or not at all."""
        from fmiqa._io import save_json, save_tensors

        if self.binary:
            save_tensors(path, self.kind, self.tensors(), self.to_dict())
        else:
            save_json(path, self.kind, self.to_dict())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Load what `save` saved.

        Raises:
            FileFormatError: The file is missing, damaged, or holds something else.
        """
        from fmiqa._io import load_json, load_tensors

        if cls.binary:
            tensors, content = load_tensors(path, cls.kind)
        else:
            tensors, content = {}, load_json(path, cls.kind, *cls.older_kinds)
        try:
            return cls.from_dict(content, tensors)
        except (AttributeError, KeyError, TypeError, ValueError, FmiqaError) as error:
            raise FileFormatError(f"{path} is damaged: it is not a complete {cls.kind} ({error!r})") from error


class Result(Saved):
    """The base of results, which are also shown as tables."""

    def tables(self) -> dict[str, Rows]:
        """The figures as rows of text, by caption; a caption may be empty."""
        raise NotImplementedError

    @property
    def notes(self) -> tuple[str, ...]:
        """How to read the tables."""
        return ()

    def to_markdown(self) -> str:
        """Tables and notes as Markdown."""
        from fmiqa._tables import markdown_table

        headings = {f"## {caption}\n\n" if caption else "": rows for caption, rows in self.tables().items()}
        parts = [heading + markdown_table(rows) for heading, rows in headings.items()]
        notes = "\n".join(f"- {note}" for note in self.notes)
        return "\n\n".join([*parts, *filter(None, [notes])]) + "\n"

    def __str__(self) -> str:
        from fmiqa._tables import text_table

        parts = [f"{caption}\n{text_table(rows)}".lstrip("\n") for caption, rows in self.tables().items()]
        return "\n\n".join([*parts, *filter(None, ["\n".join(self.notes)])])

    def _repr_html_(self) -> str:
        from fmiqa._tables import html_table

        tables = [html_table(rows, caption) for caption, rows in self.tables().items()]
        return "".join([*tables, *(f"<p>{escape(note)}</p>" for note in self.notes)])
