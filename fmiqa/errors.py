"""The library's exceptions. Every message says what was given, what was expected and what to do."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["DatasetError", "FileFormatError", "FmiqaError", "InputError", "ResumeError", "WeightsError", "WorkerError"]


class FmiqaError(Exception):
    """Any error that fmiqa raises on purpose."""


class InputError(FmiqaError, ValueError):
    """An argument has the wrong shape, type, range or name."""


class WeightsError(FmiqaError, RuntimeError):
    """Network weights are missing, misshapen, of another network, or could not be fetched."""


class FileFormatError(FmiqaError, ValueError):
    """A saved file is damaged or is not what it was taken for."""


class ResumeError(FmiqaError, RuntimeError):
    """The finished parts on disk belong to a run with other options."""


class WorkerError(FmiqaError, RuntimeError):
    """Of several processes that work together, one ended or does not answer; the message names it."""


class DatasetError(FmiqaError, ValueError):
    """A data set is broken; `problems` lists every finding, not only the first.

    Args:
        summary: One line that names the data set.
        problems: One line a finding, each naming its file or row.
    """

    shown = 50

    def __init__(self, summary: str, problems: Sequence[str] = ()) -> None:
        self.problems = tuple(problems)
        lines = [summary, *(f"  - {problem}" for problem in self.problems[: self.shown])]
        if len(self.problems) > self.shown:
            lines.append(f"  ... and {len(self.problems) - self.shown} more (all are in .problems)")
        super().__init__("\n".join(lines))
