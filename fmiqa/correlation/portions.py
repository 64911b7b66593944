"""Rows in portions that a CPU computes in one thread, one after another.

PyTorch divides an elementwise operation among threads where it has 32,768 elements or more. With about that many, a
second thread gains nothing, and each operation ends by waiting for all threads: where other processes have the cores,
a fit of thousands of operations takes ten times as long. So the operations on points run on fewer elements at a time,
which stay in the processor's cache, too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from fmiqa._runtime.compiled import is_fusing

__all__ = ["by_portions", "rows_at_once"]

T = TypeVar("T", Tensor, tuple[Tensor, ...])

_POINTS = {"eager": 2**15 - 1, "compiled": 2**19, "gpu": 2**24}


def rows_at_once(points: int, device: torch.device) -> int:
    """The number of rows of so many elements that are computed together on a device, at least 1."""
    kind = "gpu" if device.type != "cpu" else "compiled" if is_fusing() else "eager"
    return max(1, _POINTS[kind] // max(1, points))


def by_portions(function: Callable[..., T], *rows: Tensor, points: int | None = None, dim: int = 0) -> T:
    """A function of rows, on portions of them.

    Args:
        function: Takes tensors of rows, and gives a tensor of rows or a tuple of them.
        rows: (R, ...) each, or (1, ...) for one row that all share; the first has all R.
        points: Elements of a row in the largest operation; those of the first tensor by default.
        dim: Where what the function gives has its rows.

    Returns:
        What the function gives for all rows.

    Example:
        >>> by_portions(lambda x, y: x * y, torch.ones(3, 2**15), torch.full((1, 2**15), 2.0)).sum()
        tensor(196608.)
    """
    first = rows[0]
    size = rows_at_once(first[0].numel() if points is None else points, first.device) if len(first) else 1
    if len(first) <= size:
        return function(*rows)
    parts = [
        function(*(v if len(v) == 1 else v[start : start + size] for v in rows)) for start in range(0, len(first), size)
    ]
    if isinstance(parts[0], Tensor):
        return torch.cat(parts, dim)
    whole = tuple(torch.cat(part, dim) for part in zip(*parts, strict=True))
    return type(parts[0])._make(whole) if hasattr(parts[0], "_make") else whole
