"""What a search by a fitted correlation takes from a store in one pass: a sample, and which maps are usable."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fmiqa._progress import progress_bar
from fmiqa.scoring.store import ScoreStore
from fmiqa.selection.options import Direction

__all__ = ["stored_consensus", "stratified", "survey"]


def stratified(scores: Tensor, size: int, *, seed: int = 0) -> Tensor:
    """(size,) positions of images drawn evenly along their scores (N,): one from each of as many groups of neighbours.

    Example:
        >>> stratified(torch.tensor([4.0, 1.0, 3.0, 2.0]), 2).tolist()
        [0, 3]
    """
    generator = torch.Generator().manual_seed(seed)
    ends = torch.arange(size + 1, device="cpu") * len(scores) // size
    widths = ends.diff()
    drawn = (torch.rand(size, generator=generator, dtype=torch.float64, device="cpu") * widths).long()
    return scores.argsort(stable=True)[ends[:-1] + drawn].sort().values


def survey(
    store: ScoreStore, fitted: Tensor, rows: Tensor, direction: Direction, progress: bool
) -> tuple[Tensor, Tensor]:
    """The scores (n, M) of a sample, and (M,) which maps are usable on all images, in one pass."""
    maps = len(store.maps)
    sample = torch.empty(maps, len(rows), dtype=store.dtype, device="cpu")
    low, high = (torch.full((maps,), bound, dtype=torch.float64, device="cpu") for bound in (math.inf, -math.inf))
    agreement = torch.zeros_like(low)
    centred = fitted - fitted.mean()
    shift: Tensor | None = None
    with progress_bar(show=progress, total=len(store), desc="reading", unit=" images") as bar:
        first = taken = 0
        for values in store.values_by_block():
            block = values.T.double()
            shift = block.mean(1, keepdim=True).nan_to_num(nan=0.0, posinf=0.0, neginf=0.0) if shift is None else shift
            last = first + len(values)
            least, most = block.aminmax(dim=1)
            low, high = torch.minimum(low, least), torch.maximum(high, most)
            agreement += block.sub_(shift) @ centred[first:last]
            own = rows[(rows >= first) & (rows < last)] - first
            sample[:, taken : taken + len(own)] = values.T[:, own]
            taken += len(own)
            first = last
            bar.update(len(values))
    usable = low.isfinite() & high.isfinite() & (high > low)
    return sample.T, usable & (agreement > 0 if direction == "rising" else True)


def stored_consensus(store: ScoreStore, progress: bool) -> Tensor:
    """(N,) float64: the mean of the maps whose scores are finite on all images.

    Where some are not, the images are gone through a second time without these.
    """
    used = torch.zeros(len(store.maps), dtype=torch.bool, device="cpu")
    finite = ~used
    means: list[Tensor] = []
    with progress_bar(show=progress, desc="reading", unit=" images") as bar:
        while not torch.equal(used, finite):
            used, means = finite.clone(), []
            for values in store.values_by_block():
                low, high = values.aminmax(dim=0)
                finite &= low.isfinite() & high.isfinite()
                own = values if used.all() else values[:, used]
                means.append(own.mean(1, dtype=torch.float64))
                bar.update(len(values))
    return torch.cat(means)
