"""Scores of images whose maps do not fit in memory: tile by tile, and exactly.

Convolutions and poolings are local, and so are the windows of a measure such as SSIM. A tile of the images, with as
much around it as its windows can see through the network, gives the same maps there as the whole images; the mean over
all windows is put together from those of the tiles. Tiles begin where all strides do.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from fmiqa._runtime.precision import strict_float32
from fmiqa.errors import InputError
from fmiqa.features.receptive_field import reaches

if TYPE_CHECKING:
    from fmiqa.scoring.scorer import MapScorer

__all__ = ["Tiling"]

# Maps of the largest layer that are alive at once: of two images, those made and made from, and moments; with room for
# what convolutions hold beside.
_HELD = 9


class _Span(NamedTuple):
    """One tile along one side: the windows that count, by layer, and the pixels they need."""

    start: int
    stop: int
    windows: dict[str, tuple[int, int]]  # of the whole map


class Tiling:
    """A way to score one image pair in tiles.

    Args:
        scorer: Network, maps and measure.
        height: Height of the images as the network sees them.
        width: Width of the images as the network sees them.
        memory: Number of bytes that a tile may take.

    Raises:
        InputError: The network or measure does not work in tiles, or the budget holds not even small ones.
    """

    def __init__(self, scorer: MapScorer, height: int, width: int, memory: int) -> None:
        window = getattr(scorer.measure, "tile_window", None)
        if window is None:
            raise InputError(f"{scorer.measure} needs whole maps, so that images cannot be scored in tiles")
        self._scorer = scorer
        self._window: int = window
        try:
            self._reach = reaches(scorer.extractor, scorer.asked)
        except InputError as error:
            raise InputError(f"images this large cannot be scored in tiles: {error}") from error
        self._shapes = scorer.extractor.layer_shapes(height, width, scorer.asked)
        self._step = max(r.stride for r in self._reach.values())
        item = max(4, scorer.extractor.dtype.itemsize)  # maps are compared in float32 at least
        side = self._side(max(height, width), memory / (_HELD * item))
        self._rows = list(self._spans(height, side, 1))
        self._columns = list(self._spans(width, side, 2))

    def __call__(self, test: Tensor, reference: Tensor) -> Tensor:
        """(1, M) as the scorer gives, of test and reference image (1, 3, H, W)."""
        with strict_float32(self._scorer.extractor.device):
            return self._whole(test, reference)

    def _whole(self, test: Tensor, reference: Tensor) -> Tensor:
        extractor = self._scorer.extractor
        images = [extractor.normalize(image) for image in (test, reference)]
        totals = {
            layer: torch.zeros(1, shape[0], dtype=torch.float64, device="cpu") for layer, shape in self._shapes.items()
        }
        for rows in self._rows:
            for columns in self._columns:
                crops = [i[..., rows.start : rows.stop, columns.start : columns.stop] for i in images]
                walks = [extractor.features_of_normalized(crop, self._scorer.asked) for crop in crops]
                for (layer, x), (_, y) in zip(*walks, strict=True):
                    (top, bottom), (left, right) = rows.windows[layer], columns.windows[layer]
                    count = (bottom - top) * (right - left)
                    if count <= 0:
                        continue
                    seen = (
                        self._local(layer, rows.start, top, bottom),
                        self._local(layer, columns.start, left, right),
                    )
                    x, y = (maps[..., seen[0], seen[1]] for maps in (x, y))
                    totals[layer] += count * self._score(layer, x, y)
        parts = []
        for layer, (_, h, w) in self._shapes.items():
            parts.append(totals[layer] / ((h - self._window + 1) * (w - self._window + 1)))
        return self._scorer.ordered(torch.cat(parts, 1))

    def _score(self, layer: str, test: Tensor, reference: Tensor) -> Tensor:
        scores = self._scorer.compare(layer, test, self._scorer.prepare_maps(layer, reference))
        return scores.double().cpu()

    def _local(self, layer: str, start: int, first: int, last: int) -> slice:
        """The positions in a tile's map that windows of the whole map cover."""
        shift = start // self._reach[layer].stride
        return slice(first - shift, last + self._window - 1 - shift)

    def _spans(self, length: int, side: int, axis: int) -> Iterator[_Span]:
        for first in range(0, length, side):
            last = min(first + side, length)
            windows: dict[str, tuple[int, int]] = {}
            start, stop = first, 0
            for layer, reach in self._reach.items():
                count = self._shapes[layer][axis] - self._window + 1
                if count < 1:
                    raise InputError(f"layer {layer}: its maps are too small for tiles of windows of {self._window}")
                begin = min(count, -(-first // reach.stride))
                end = count if last == length else min(count, -(-last // reach.stride))
                windows[layer] = (begin, end)
                start = min(start, first + reach.low)
                stop = max(stop, (end + self._window - 2) * reach.stride + reach.high + 1)
            start = max(0, start) // self._step * self._step
            yield _Span(start, length if last == length else min(length, stop), windows)

    def _side(self, longest: int, elements: float) -> int:
        """The largest side of a tile, a multiple of the step, whose largest layer has at most so many elements."""
        around = max(self._window * r.stride + r.high - r.low + self._step for r in self._reach.values())
        side = -(-longest // self._step) * self._step
        while side > self._step:
            if self._largest(min(side + around, longest)) <= elements:
                return side
            side = side * 7 // 8 // self._step * self._step
        least = self._largest(min(2 * self._step + around, longest))
        if least >= self._largest(longest):
            return longest  # no tile is smaller than the image
        raise InputError(
            "memory is too small for this network's maps, even in tiles; give at least "
            f"{least / elements:.1f} times as much, or leave the deepest layers out"
        )

    def _largest(self, side: int) -> float:
        return max(self._shapes[layer][0] * (side / r.stride + 1) ** 2 for layer, r in self._reach.items())
