"""How the scores of a set of maps become one score."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from fmiqa.errors import InputError
from fmiqa.maps import MapIndex

__all__ = ["Pool", "check_pool", "pool_scores"]

Pool = Literal["mean", "layer_geometric"]
"""`mean`: over all maps of the set. `layer_geometric`: the mean over the maps of a layer, then the
geometric mean over layers (Amirshahi et al. 2018)."""


def check_pool(pool: str) -> None:
    """Raise `InputError` unless `pool` is one of `Pool`."""
    if pool not in get_args(Pool):
        raise InputError(f"pool is one of {', '.join(get_args(Pool))}, got {pool!r}")


def pool_scores(values: Tensor, maps: MapIndex, *, pool: Pool = "mean") -> Tensor:
    """Combine map scores.

    Args:
        values: (..., M), a column for each of `maps`.
        maps: the M maps; only their layers matter, and only to `layer_geometric`.
        pool: see `Pool`. Under `layer_geometric` a layer whose mean is negative gives NaN: signed
            maps (before the ReLU) can do so.

    Returns:
        (...), one score an image.

    Raises:
        InputError: another number of columns than of maps, or an unknown pooling.

    Example:
        >>> maps = MapIndex(["conv1:0", "conv1:1", "conv2:0"])
        >>> pool_scores(torch.tensor([0.8, 1.0, 0.4]), maps, pool="layer_geometric")
        tensor(0.6000)
    """
    check_pool(pool)
    if values.shape[-1] != len(maps) or not len(maps):
        raise InputError(f"values {tuple(values.shape)} need one column for each of {len(maps)} maps")
    if pool == "mean":
        return values.mean(-1)
    by_layer: dict[str, list[int]] = {}
    for i, m in enumerate(maps):
        by_layer.setdefault(m.layer, []).append(i)
    means = torch.stack([values[..., columns].mean(-1) for columns in by_layer.values()], -1)
    return means.log().mean(-1).exp()
