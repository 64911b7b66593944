"""How the scores of a set of maps become one score."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor

from fmiqa._checks import check_tensor, is_positive, known_values
from fmiqa.errors import InputError
from fmiqa.maps import MapIndex

__all__ = ["Pool", "check_pool", "loss_shares", "pool_scores", "pool_shares", "raised"]

Pool = Literal["mean", "layer_geometric"]
"""`mean`: over all maps of the set. `layer_geometric`: the mean over the maps of a layer, then the
geometric mean over layers (Amirshahi et al. 2018)."""


def check_pool(pool: str) -> None:
    """Raise `InputError` unless `pool` is one of `Pool`."""
    if not isinstance(pool, str) or pool not in get_args(Pool):
        raise InputError(f"pool must be one of {', '.join(get_args(Pool))}, got {pool!r}")


def pool_scores(
    values: Tensor,
    maps: MapIndex,
    *,
    pool: Pool = "mean",
    weights: Tensor | None = None,
    power: float = 1.0,
) -> Tensor:
    r"""Combine map scores: with `"mean"`, the mean of the M scores, weighted where there are weights.

    .. math::

        Q = \frac{\sum_m w_m \operatorname{sign}(q_m) |q_m|^p}{\sum_m w_m}

    Args:
        values: (..., M), a column for each of `maps`.
        maps: The M maps; only their layers matter, and only to `layer_geometric`.
        pool: See `Pool`. Under `layer_geometric` a layer whose mean is negative gives NaN: signed
            maps (before the ReLU) can do so.
        weights: (M,), not negative: a weighted mean under `mean`.
        power: The power p that each score is first raised to, keeping its sign. The curve rises from 0 to 1; a power
            above 1 spreads out high quality.

    Returns:
        (...), one score an image; 1 where every map's score is 1. The gradient is finite wherever the score is: where
        its true value is infinite, at scores of 0 under a power below 1 and at a layer mean of 0 under
        `layer_geometric`, it is 0.

    Raises:
        InputError: Values that are not a floating-point tensor, weights that are not a tensor, another number of
            columns or weights than of maps, an unknown pooling, weights that are negative, infinite or all 0 or given
            with `layer_geometric`, a power that is not positive.

    Example:
        >>> maps = MapIndex(["conv1:0", "conv1:1", "conv2:0"])
        >>> pool_scores(torch.tensor([0.8, 1.0, 0.4]), maps, pool="layer_geometric")
        tensor(0.6000)
        >>> pool_scores(torch.tensor([0.8, 1.0, 0.4]), maps, weights=torch.tensor([3.0, 0.0, 1.0]))
        tensor(0.7000)
    """
    check_pool(pool)
    maps = maps if isinstance(maps, MapIndex) else MapIndex(maps)
    check_tensor(values, "values (..., M)")
    if not values.is_floating_point():
        raise InputError(f"values must be floating-point scores, got {values.dtype}; convert them with .float()")
    if not values.ndim or values.shape[-1] != len(maps) or not len(maps):
        raise InputError(f"values {tuple(values.shape)} need one column for each of {len(maps)} maps")
    values = raised(values, power)
    if weights is not None:
        share = _shares(weights, len(maps), pool).to(values)
        return (values * share).sum(-1)
    if pool == "mean":
        return values.mean(-1)
    means = torch.stack([values[..., columns].mean(-1) for columns in _by_layer(maps)], -1)
    vanishing = _vanishing(means)
    smooth = torch.where(vanishing, 1.0, means).log().mean(-1).exp()
    return torch.where(vanishing.any(-1), means.detach().log().mean(-1).exp(), smooth)


def pool_shares(maps: MapIndex, *, pool: Pool = "mean", weights: Tensor | None = None) -> Tensor:
    """What share of a small loss falls on each map: how `pool_scores` weighs the maps where their scores are near 1.

    Args:
        maps: The M maps.
        pool: See `Pool`. Under `layer_geometric` each layer has the same share.
        weights: (M,) as of `pool_scores`.

    Returns:
        (M,) float64, of sum 1.

    Raises:
        InputError: See `pool_scores`.

    Example:
        >>> pool_shares(MapIndex(["conv1:0", "conv1:1", "conv2:0"]), pool="layer_geometric")
        tensor([0.2500, 0.2500, 0.5000], dtype=torch.float64)
    """
    check_pool(pool)
    if weights is not None:
        return _shares(weights, len(maps), pool).double()
    channels = maps.channels
    sizes = [len(maps) if pool == "mean" else len(channels) * len(channels[m.place]) for m in maps]
    return 1 / torch.tensor(sizes, dtype=torch.float64, device="cpu")


def loss_shares(
    values: Tensor,
    maps: MapIndex,
    *,
    pool: Pool = "mean",
    weights: Tensor | None = None,
    power: float = 1.0,
) -> Tensor:
    """What share of the loss 1 - q of a pooled score q each map takes.

    With r_i = sign(q_i) |q_i|^power of the map scores q_i:

    - `pool="mean"`: 1 - q is the sum of w_i (1 - r_i), with weights w_i of sum 1, and the share of map i is
      w_i (1 - r_i) / (1 - q).
    - `pool="layer_geometric"`: log q is the mean over layers l of log m_l, with m_l the mean of r_i over a layer. The
      share of a layer is log m_l / (sum over layers k of log m_k), and that of a map within its layer is
      (1 - r_i) / (sum over the layer of 1 - r_j).

    Both are integrated gradients, of q and of log q, from scores of 1 along a straight line of the r_i.

    Args:
        values: (..., M), at most 1, a column for each of `maps`.
        maps: The M maps.
        pool: See `Pool`.
        weights: (M,) as of `pool_scores`.
        power: As of `pool_scores`.

    Returns:
        (..., M) float64, at least 0, of sum 1, or all 0 where nothing is lost. Where layers have a mean of 0 under
        `layer_geometric`, these share the loss equally; a negative mean gives NaN, as in `pool_scores`.

    Raises:
        InputError: See `pool_scores`.

    Example:
        >>> loss_shares(torch.tensor([0.9, 0.7, 1.0]), MapIndex(["conv1:0", "conv1:1", "conv2:0"]), power=1.0)
        tensor([0.2500, 0.7500, 0.0000], dtype=torch.float64)
    """
    pool_scores(values, maps, pool=pool, weights=weights, power=power)  # checks them
    lost = (1 - raised(values.double(), power)).clamp(min=0)
    if pool == "mean":
        return _normed(lost * pool_shares(maps, weights=weights).to(lost))
    layers = _by_layer(maps)
    lost_by_layer = torch.stack([-torch.log1p(-lost[..., columns].mean(-1)) for columns in layers], -1)
    gone = lost_by_layer.isinf()
    lost_by_layer = torch.where(gone.any(-1, keepdim=True), gone.to(lost), lost_by_layer)
    shares = torch.empty_like(lost)
    for columns, share in zip(layers, _normed(lost_by_layer).unbind(-1), strict=True):
        shares[..., columns] = share[..., None] * _normed(lost[..., columns])
    return shares


def raised(values: Tensor, power: float) -> Tensor:
    """sign(q) |q|^power of map scores."""
    if not is_positive(power):
        raise InputError(f"power must be a positive number, got {power!r}")
    if power == 1:
        return values
    vanishing = _vanishing(values)
    smooth = torch.where(vanishing, 1.0, values)
    return torch.where(vanishing, _raised(values.detach(), power), _raised(smooth, power))


def _by_layer(maps: MapIndex) -> list[list[int]]:
    """The columns of each layer."""
    columns: dict[str, list[int]] = {}
    for i, m in enumerate(maps):
        columns.setdefault(m.place, []).append(i)
    return list(columns.values())


def _normed(parts: Tensor) -> Tensor:
    """Parts as shares of their sum, all 0 where there is none."""
    whole = parts.sum(-1, keepdim=True)
    return parts / torch.where(whole == 0, 1.0, whole)


def _raised(values: Tensor, power: float) -> Tensor:
    return values.sign() * values.abs().pow(power)


def _vanishing(values: Tensor) -> Tensor:
    """Where a root's slope is infinite, or has no floating-point number: at 0 and among subnormal numbers."""
    return values.abs() < torch.finfo(values.dtype).tiny


def _shares(weights: Tensor, maps: int, pool: str) -> Tensor:
    if pool != "mean":
        raise InputError(f"weights go with pool='mean', got pool={pool!r}")
    check_tensor(weights, "weights (M,)")
    given = known_values(weights)
    usable = given is None or bool(((given >= 0) & (given < math.inf)).all() & (given > 0).any())
    if weights.shape != (maps,) or not usable:
        raise InputError(f"weights must be {maps} finite numbers of at least 0, not all 0, got {weights}")
    return weights / weights.sum()
