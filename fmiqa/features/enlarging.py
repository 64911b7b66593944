"""Maps brought to the size of an image, each value where its position sees."""

from __future__ import annotations

import torch
from torch import Tensor

from fmiqa.errors import InputError
from fmiqa.features.extractor import FeatureExtractor
from fmiqa.features.receptive_field import Reach, reaches
from fmiqa.maps import MapIndex

__all__ = ["enlarged", "seen_by"]


def seen_by(extractor: FeatureExtractor, maps: MapIndex) -> dict[str, Reach | None]:
    """What the maps of each layer see; None where the network does not tell."""
    try:
        return dict(reaches(extractor, maps))
    except InputError:
        return dict.fromkeys(maps.channels)


def enlarged(
    maps: Tensor,
    size: tuple[int, int],
    seen: Reach | None,
    image: tuple[int, int],
    *,
    margins: tuple[float, float] = (0.0, 0.0),
) -> Tensor:
    """Bilinear between the centres of what positions see, as NetDissect does it; held beyond the outermost.

    Args:
        maps: (..., h, w).
        size: Height and width wanted.
        seen: By a position; None lays the borders of maps and image on one another.
        image: Height and width of the image as the network sees it.
        margins: Rows and columns of the map that are missing before the first given, and as many after the last.

    Returns:
        (..., *size).

    Example:
        >>> row = torch.tensor([[0.0, 1.0]])  # positions that see pixels 0 to 3 and 4 to 7
        >>> enlarged(row, (1, 8), Reach(4, 0, 3), (1, 8))
        tensor([[0.0000, 0.0000, 0.1250, 0.3750, 0.6250, 0.8750, 1.0000, 1.0000]])
    """
    down, across = (_between(maps, maps.shape[axis], size[axis], seen, image[axis], margins[axis]) for axis in (-2, -1))
    return down @ maps @ across.T


def _between(maps: Tensor, count: int, wanted: int, seen: Reach | None, image: int, margin: float) -> Tensor:
    """(wanted, count) weights of a map's rows in those of the result."""
    step = image / (count + 2 * margin) if seen is None else seen.stride
    centre = step / 2 - 0.5 if seen is None else (seen.low + seen.high) / 2
    pixels = (torch.arange(wanted, dtype=torch.float64, device="cpu") + 0.5) * (image / wanted) - 0.5
    at = ((pixels - centre) / step - margin).clamp(0, count - 1)
    before = at.long().clamp(max=max(count - 2, 0))
    weights = torch.zeros(wanted, count, dtype=torch.float64, device="cpu")
    share = (at - before)[:, None]
    weights.scatter_(1, before[:, None], 1 - share)
    weights.scatter_add_(1, (before[:, None] + 1).clamp(max=count - 1), share)
    return weights.to(maps)
