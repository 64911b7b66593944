"""Progress bars, which never end the work that they are shown for."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable
from typing import Any, TextIO

__all__ = ["progress_bar"]


def progress_bar(items: Iterable[Any] | None = None, *, show: bool, **options: Any) -> Any:
    """A tqdm bar on standard error, if there is one.

    Args:
        items: What to go through; None for a bar that is moved by `update`.
        show: Whether to show it.
        options: Those of tqdm: `total`, `initial`, `desc`, `unit`.
    """
    from tqdm import tqdm

    if not show or sys.stderr is None:
        return tqdm(items, disable=True, **options)
    return tqdm(items, file=_Forgiving(sys.stderr), **options)


class _Forgiving:
    """A stream that may be closed, full, or unable to encode a text."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
