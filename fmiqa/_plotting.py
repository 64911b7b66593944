"""What the library's plots share: figures, files, and a palette that colour-blind readers can tell apart.

Pictures are drawn to files without a display, whatever the environment variable MPLBACKEND says.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from fmiqa._io import is_special, write_whole
from fmiqa.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

__all__ = [
    "BLUE",
    "GREEN",
    "GREY",
    "ORANGE",
    "SKY",
    "axes",
    "check_picture",
    "load_matplotlib",
    "new_figure",
    "save_figure",
    "shown_figure",
    "whole_numbers",
]

# Okabe & Ito's colours.
BLUE, ORANGE, GREEN, SKY, GREY = "#0072B2", "#D55E00", "#009E73", "#56B4E9", "#555555"


def load_matplotlib() -> None:
    """Import matplotlib.

    Where MPLBACKEND names a backend that is not installed here (a notebook exports that of its kernel to the commands
    that it runs), matplotlib cannot be imported, not even later. Its backend is therefore set after the import, and
    stays matplotlib's default where there is no such backend.

    Raises:
        InputError: Matplotlib is not installed.
    """
    if sys.modules.get("matplotlib") is not None:
        return
    backend = os.environ.pop("MPLBACKEND", None)
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise InputError(f"pictures need the package matplotlib: pip install 'fmiqa[plot]' ({error})") from error
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend
    if backend:
        with contextlib.suppress(ValueError):
            mpl.rcParams["backend"] = backend


def new_figure(width: float, height: float) -> Figure:
    """A figure of that size in inches, which no backend shows.

    Raises:
        InputError: Matplotlib is not installed.
    """
    load_matplotlib()
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def axes(ax: Axes | None, width: float = 6.4, height: float = 4.0) -> Axes:
    """The given axes, or those of a new figure of that size in inches, see `shown_figure`.

    Raises:
        InputError: Matplotlib is not installed.
    """
    return shown_figure(width, height).subplots() if ax is None else ax


def shown_figure(width: float, height: float) -> Figure:
    """A figure of that size in inches: pyplot's, which notebooks show, or one to be saved where its backend fails.

    Raises:
        InputError: Matplotlib is not installed.
    """
    load_matplotlib()
    try:
        import matplotlib.pyplot as plt

        return plt.figure(figsize=(width, height), layout="constrained")
    except Exception:  # every backend has its own for a missing display or package
        return new_figure(width, height)


def check_picture(path: str | os.PathLike[str]) -> None:
    """Find out before long work whether a picture can be drawn in the format that a path's ending names.

    Raises:
        InputError: The format is unknown or cannot be drawn here; matplotlib is not installed.
    """
    figure, kind = new_figure(1, 1), _format(path)
    known = figure.canvas.get_supported_filetypes()
    if kind not in known:
        raise InputError(f"no picture format {kind!r} ({os.fspath(path)}); known are {', '.join(sorted(known))}")
    figure.text(0, 0, "fmiqa")
    _drawn(figure, path)


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a figure in the format that the path's ending names (PNG to a pipe or device without one).

    Raises:
        InputError: It cannot be drawn.
        OSError: The file cannot be written.
    """
    write_whole(path, _drawn(figure, path))


def whole_numbers(axis: Axis) -> None:
    """Label an axis at whole numbers only."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(integer=True))


def _drawn(figure: Figure, path: str | os.PathLike[str]) -> bytes:
    content = io.BytesIO()
    try:
        figure.savefig(content, format=_format(path), dpi=150)
    except Exception as error:  # every format has its own, for LaTeX or a codec that is missing
        raise InputError(f"{os.fspath(path)} cannot be drawn: {error}") from error
    return content.getvalue()


def _format(path: str | os.PathLike[str]) -> str:
    suffix = Path(path).suffix.lower().removeprefix(".")
    return suffix if suffix or not is_special(path) else "png"
