"""Checks and pairing of scores `x` and subjective scores `y` for every function of this package."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from fmiqa._checks import check_tensor, is_batched, is_traced
from fmiqa._runtime.compiled import Fused
from fmiqa.errors import InputError

__all__ = ["Pairs", "computing_dtype", "pair", "result_dtype"]


class Pairs(NamedTuple):
    """Broadcast problems as rows of two matrices, so that a shared `y` is stored once.

    `x` is (A, N) and `y` is (B, N) in the computing dtype; problem p pairs row `x_row[p]` with row
    `y_row[p]`; `shape` holds the broadcast leading dimensions and `dtype` is what results are given in.
    """

    x: Tensor
    y: Tensor
    x_row: Tensor
    y_row: Tensor
    shape: torch.Size
    dtype: torch.dtype

    def informative(self) -> Tensor:
        """(P,) whether both columns of a problem are finite and not constant."""
        return _informative(self.x)[self.x_row] & _informative(self.y)[self.y_row]

    def by_chunks(self, function: Callable[[Tensor, Tensor], Tensor], size: int) -> Tensor:
        """What a function gives for rows of x and of y, portion by portion; NaN for problems not `informative`.

        All problems are computed, whatever they hold, so that a GPU is not waited for. A matrix of a single row is
        given as it is, (1, N), and not repeated.

        Args:
            function: From rows of x and of y, (size, N) or (1, N) each, to (size,) or (size, K).
            size: The number of problems of a portion.

        Returns:
            (P,) or (P, K).

        Raises:
            InputError: torch.func.vmap or torch.jit.trace is at work.
        """
        good = self.informative()
        if is_traced() or is_batched(good):
            raise InputError(
                "rank correlations and logistic fits cannot run under torch.jit.trace or torch.func.vmap; they are "
                "batched over leading dimensions already: pass scores of shape (..., N)"
            )
        parts = zip(self.x_row.split(max(1, size)), self.y_row.split(max(1, size)), strict=True)
        found = torch.cat([function(_rows(self.x, x_row), _rows(self.y, y_row)) for x_row, y_row in parts])
        return torch.where(good.view(-1, *[1] * (found.ndim - 1)), found, torch.nan)

    def unflatten(self, values: Tensor) -> Tensor:
        """(P, ...) back to the broadcast leading dimensions, in the result dtype."""
        return values.reshape(self.shape + values.shape[1:]).to(self.dtype)


def pair(x: Tensor, y: Tensor, *, minimum: int, what: str, dtype: torch.dtype | None = None) -> Pairs:
    """Check `x` (..., N) and `y` (..., N) and lay them out as rows.

    Args:
        x: Scores, leading dimensions broadcast against those of `y`.
        y: Subjective scores.
        minimum: The smallest N that `what` can be computed from.
        what: What is to be computed, for the messages.
        dtype: The computing dtype; by default float64, or float32 where the device of `x` has no other.

    Raises:
        InputError: Not tensors of real numbers, of two devices, of different N, too few points, or leading
            dimensions that do not broadcast.
    """
    for name, value in (("x", x), ("y", y)):
        check_tensor(value, f"{what}: {name}")
        if value.ndim == 0:
            raise InputError(f"{what}: {name} must have shape (..., N), got a scalar")
    dtype = computing_dtype(x) if dtype is None else dtype
    if not isinstance(dtype, torch.dtype) or dtype not in (torch.float32, torch.float64):
        raise InputError(f"{what}: dtype must be torch.float64 or torch.float32, got {dtype}")
    if x.device != y.device:
        raise InputError(f"{what}: x is on {x.device}, y on {y.device}; move them to one device")
    shapes = f"x of shape {tuple(x.shape)} and y of shape {tuple(y.shape)}"
    if x.shape[-1] != y.shape[-1]:
        raise InputError(f"{what}: the last dimension (points) must be the same, got {shapes}")
    if x.shape[-1] < minimum:
        raise InputError(f"{what} needs at least {minimum} points, got {shapes}")
    try:
        shape = torch.broadcast_tensors(x[..., 0], y[..., 0])[0].shape  # torch.broadcast_shapes imports sympy: .5 s
    except RuntimeError:
        raise InputError(f"{what}: leading dimensions do not broadcast, got {shapes}") from None
    return Pairs(
        x.reshape(-1, x.shape[-1]).to(dtype),
        y.reshape(-1, y.shape[-1]).to(dtype),
        _row_numbers(x, shape),
        _row_numbers(y, shape),
        shape,
        result_dtype(x, y),
    )


def computing_dtype(values: Tensor) -> torch.dtype:
    """float64, or float32 on devices without it."""
    return torch.float32 if values.device.type == "mps" else torch.float64


def result_dtype(x: Tensor, y: Tensor) -> torch.dtype:
    """The floating dtype of the two; torch's default one where both are integers."""
    dtype = torch.promote_types(x.dtype, y.dtype)
    return dtype if dtype.is_floating_point else torch.get_default_dtype()


def _row_numbers(value: Tensor, shape: torch.Size) -> Tensor:
    leading = value.shape[:-1]
    return torch.arange(leading.numel(), device=value.device).reshape(leading).expand(shape).reshape(-1)


def _rows(matrix: Tensor, numbers: Tensor) -> Tensor:
    return matrix if len(matrix) == 1 else matrix[numbers]


def _informative(matrix: Tensor) -> Tensor:
    if matrix.numel() == 0:
        return torch.zeros(len(matrix), dtype=torch.bool, device=matrix.device)
    return _varies(matrix)


@Fused
def _varies(matrix: Tensor) -> Tensor:
    low, high = matrix.aminmax(dim=-1)
    return low.isfinite() & high.isfinite() & (high > low)
