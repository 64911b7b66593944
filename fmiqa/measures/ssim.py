"""SSIM of feature maps (Wang et al. 2004), the reference side prepared once.

Feature maps are not images: they are unbounded, often constant, and may lie far from zero. So
`data_range` is part of the metric's definition, a dead map is alike with itself (1, not 0/0), and
float32 must not cancel away the small variance of flat places in E[x^2] - mu^2:

- One constant per reference map is taken off both sides first: the level of the map's flat places. Its
  mean would not do: most of a map after a ReLU is exactly 0, and taking a mean of 5 off put errors of
  5e-4 into whole scores of real AlexNet and VGG maps.
- The contrast-structure term (2 cov + c2) / (var x + var y + c2) is computed as
  1 - var(x - y) / (var x + var y + c2), which is the same and exactly 1 where the maps are equal.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from fmiqa.errors import InputError
from fmiqa.fusing import Fused, is_fusing
from fmiqa.measures.base import DataRange, check_data_range, limit_of
from fmiqa.precision import strict_float32

__all__ = ["SSIM", "PreparedReference"]

_SMALLEST_WINDOW = 3
# Map elements taken at once: what stays in a CPU's cache (compiled loops hold less), or fills a GPU.
_PIECES = {"eager": 2**20, "compiled": 2**22, "gpu": 2**26}
_LEVEL_PIECE = 2**18  # of a CPU; the flat level's weights take one pass after the other
_LARGE = 2**20  # elements of an image's maps from which on they are compared in lanes
_BAND = 31  # columns of windows that compiled loops take at once; odd, or rows of a power of 2 share cache lines
_VECTOR = 16  # channels side by side in a vector register, or in two


class PreparedReference(NamedTuple):
    """The reference side of SSIM, for maps (N, C, H, W)."""

    shift: Tensor  # (N, C, 1, 1), taken off both sides before the moments
    maps: Tensor  # (N, C, H, W), shifted
    mean: Tensor  # (N, C, H', W'), windowed, of the shifted maps
    variance: Tensor  # (N, C, H', W'), windowed
    peak: Tensor | None  # (N, C or 1, 1, 1), where the data range depends on the maps

    def part(self, images: slice, columns: slice = slice(None), windows: slice = slice(None)) -> PreparedReference:
        """The side of some images (or of the one for all), some columns and the columns of windows on them."""

        def own(v: Tensor) -> Tensor:
            return v if v.shape[0] == 1 else v[images]

        mean, variance = (own(moment)[..., windows] for moment in (self.mean, self.variance))
        peak = None if self.peak is None else own(self.peak)
        return PreparedReference(own(self.shift), own(self.maps)[..., columns], mean, variance, peak)


@dataclass(frozen=True)
class SSIM:
    """Structural similarity of feature maps: the mean of the SSIM map over all full windows.

    Args:
        data_range: the L of C1 = (k1 L)^2 and C2 = (k2 L)^2. A number; or `"reference"`, each
            reference map's largest magnitude; `"pair"`, the larger of both maps'; `"layer"`, the largest
            magnitude in the reference's layer. A largest magnitude of 0 (under 1e-12) counts as 1.
        window: side of the Gaussian window, odd. A map smaller than this, with sides of at least 3, is
            seen through the largest odd window that fits it, with the same sigma; a smaller map is an error.
        sigma: standard deviation of the window, in map positions.
        k1: of the luminance term.
        k2: of the contrast-structure term.

    Raises:
        InputError: options out of range.

    Example:
        >>> reference = torch.rand(1, 4, 20, 30)
        >>> SSIM()(reference.expand(2, -1, -1, -1), reference).shape
        torch.Size([2, 4])
        >>> bool((SSIM()(reference, reference) - 1).abs().max() < 1e-6)
        True
    """

    data_range: DataRange = 1.0
    window: int = 11
    sigma: float = 1.5
    k1: float = 0.01
    k2: float = 0.03

    name: ClassVar[str] = "ssim"
    higher_is_better: ClassVar[bool] = True
    value_range: ClassVar[tuple[float, float]] = (-1.0, 1.0)

    def __post_init__(self) -> None:
        check_data_range(self.data_range)
        if self.window < _SMALLEST_WINDOW or self.window % 2 == 0:
            raise InputError(f"window is odd and at least {_SMALLEST_WINDOW}, got {self.window}")
        if not (self.sigma > 0 and self.k1 > 0 and self.k2 > 0):
            raise InputError(f"sigma, k1 and k2 are positive, got {self.sigma}, {self.k1}, {self.k2}")

    @property
    def whole_layers(self) -> bool:
        """Whether a map's value depends on the layer's other maps."""
        return self.data_range == "layer"

    @property
    def tile_window(self) -> int | None:
        """Side of the windows whose mean the score is; None where it also depends on the whole map."""
        return None if isinstance(self.data_range, str) else self.window

    def options(self) -> dict[str, Any]:
        """The settings that define the measure."""
        return {"name": self.name, **asdict(self)}

    def __call__(self, test: Tensor, reference: Tensor) -> Tensor:
        """SSIM of each pair of maps.

        Args:
            test: (N, C, H, W) float.
            reference: (N, C, H, W) or (1, C, H, W) float.

        Returns:
            (N, C), at most 1; 1 where the maps are equal.

        Raises:
            InputError: shapes that do not go together, or maps with a side under 3.
        """
        return self.compare(test, self.prepare(reference))

    def prepare(self, reference: Tensor) -> PreparedReference:
        """The reference side, to be compared with any number of test images.

        Raises:
            InputError: not (N, C, H, W), or maps with a side under 3.
        """
        taps = self._taps(reference)
        peak = None
        if isinstance(self.data_range, str):
            peak = reference.abs().amax((1, 2, 3) if self.data_range == "layer" else (2, 3), keepdim=True)
        shift = _flat_level(reference.detach(), self._constants(peak)[1])  # the score does not depend on it
        shifted = reference - shift
        mean, variance = self._moments_of(shifted, taps)
        return PreparedReference(shift, shifted, mean, variance, peak)

    def compare(self, test: Tensor, prepared: PreparedReference) -> Tensor:
        """Compare test maps (N, C, H, W) with prepared reference maps of N images or of one.

        Raises:
            InputError: shapes that do not go together.
        """
        shape = prepared.maps.shape
        if test.shape[1:] != shape[1:] or shape[0] not in (1, test.shape[0]):
            raise InputError(
                f"SSIM compares maps of one shape: test {tuple(test.shape)}, reference {tuple(shape)} "
                "(the reference may be one image for all)"
            )
        taps = self._taps(test)
        prepared = self._of_pair(test, prepared)
        large = test[0].numel() > _LARGE and test.shape[2] >= len(taps) + 3 and test.shape[3] > len(taps)
        if test.is_cpu and large and _across_lanes.is_compiled():
            return torch.stack([self._in_lanes(x, prepared.part(slice(i, i + 1)), taps) for i, x in enumerate(test)])
        scores = []
        for images, bands in _pieces(test, len(taps)):
            parts = [(test[images, ..., columns], prepared.part(images, columns, w)) for columns, w in bands]
            sums = [self._alike(part, reference, taps, summed=True).sum(-1) for part, reference in parts]
            scores.append(torch.stack(sums).sum(0) if len(sums) > 1 else sums[0])
        total = torch.cat(scores) if len(scores) > 1 else scores[0]
        return total / (prepared.mean.shape[-2] * prepared.mean.shape[-1])

    def local(self, test: Tensor, reference: Tensor) -> Tensor:
        """The SSIM map whose mean the score is: (N, C, H - window + 1, W - window + 1), windows from the corner on.

        Args:
            test: (N, C, H, W) float.
            reference: (N, C, H, W) or (1, C, H, W) float.
        """
        return self._alike(test, self._of_pair(test, self.prepare(reference)), self._taps(test), summed=False)

    def _of_pair(self, test: Tensor, prepared: PreparedReference) -> PreparedReference:
        """The reference side beside these test maps, whose peaks may count too."""
        if self.data_range != "pair" or prepared.peak is None:
            return prepared
        return prepared._replace(peak=torch.maximum(prepared.peak, test.abs().amax((-2, -1), keepdim=True)))

    def _alike(self, test: Tensor, reference: PreparedReference, taps: list[float], *, summed: bool) -> Tensor:
        """(N, C, H', W') the SSIM of each window, or (N, C, H') its sum along rows, of a piece of the maps."""
        columns = _across(test, reference.shift, reference.maps, taps)
        constants = self._constants(reference.peak)
        return _alike(columns, reference.shift, reference.mean, reference.variance, *constants, taps, summed)

    def _in_lanes(self, test: Tensor, reference: PreparedReference, taps: list[float]) -> Tensor:
        """(C,) the scores of one image's maps (C, H, W), a band of columns at a time, by compiled loops."""
        rows, columns = reference.mean.shape[-2:]
        x, y, mean, variance = (_lanes(v) for v in (test, reference.maps[0], reference.mean[0], reference.variance[0]))
        lane, further = x.shape[1] // test.shape[2], len(taps) - 1
        band = min(_BAND, -(-columns // 2))  # never all of a row, which would be compiled for
        c1, c2 = (test.new_tensor(c) if isinstance(c, float) else c for c in self._constants(reference.peak))
        constant = [  # the same in every column, laid out for a band
            v if v.ndim == 0 else _lanes(v[0].expand(len(test), 1, 1))[0].repeat(band, 1)
            for v in (reference.shift, c1, c2)
        ]
        weights, both, last = test.new_tensor(taps), test.new_ones(2), test.new_tensor([0.0, 1.0])
        total = test.new_zeros(len(test))
        for start in range(0, columns * lane, band * lane):
            size = min(band * lane, columns * lane - start)
            own = [v if v.ndim == 0 else v[:size] for v in constant]
            seen, windows = slice(start, start + size + further * lane), slice(start, start + size)
            sums = _across_lanes(x[:, seen], y[:, seen], own[0], weights, lane)
            there = [mean[:, windows], variance[:, windows]]
            even = [v[: rows - rows % 2] for v in there]
            alike = _alike_lanes(sums, even, own, weights, both).sum(0)
            if rows % 2:  # of the last two rows the first has been counted
                under = tuple(v[-len(taps) - 3 :] for v in sums)
                alike = alike + _alike_lanes(under, [v[-4:] for v in there], own, weights, last)[-1]
            total = total + alike.view(-1, len(test)).sum(0)
        return total / (rows * columns)

    def _moments_of(self, maps: Tensor, taps: list[float]) -> tuple[Tensor, Tensor]:
        """Windowed mean and variance of whole maps."""
        found = []
        for images, bands in _pieces(maps, len(taps)):
            parts = [_moments(maps[images, ..., columns], taps) for columns, _ in bands]
            found.append([torch.cat(p, 3) if len(p) > 1 else p[0] for p in zip(*parts, strict=True)])
        mean, variance = (torch.cat(p) if len(p) > 1 else p[0] for p in zip(*found, strict=True))
        return mean, variance

    def _constants(self, peak: Tensor | None) -> tuple[Tensor | float, Tensor | float]:
        """C1 and C2, for a number or for each map's largest magnitude."""
        if peak is None:
            limit: Tensor | float = float(self.data_range)
        else:
            limit = limit_of(peak)
        return (self.k1 * limit) ** 2, (self.k2 * limit) ** 2

    def _taps(self, maps: Tensor) -> list[float]:
        """The window's weights along one side, for maps of this size."""
        if maps.ndim != 4 or not maps.is_floating_point():
            raise InputError(f"SSIM compares float maps (N, C, H, W), got {tuple(maps.shape)} of {maps.dtype}")
        side = min(self.window, *maps.shape[-2:])
        side -= side % 2 == 0
        if side < _SMALLEST_WINDOW:
            raise InputError(
                f"maps of {maps.shape[-1]}x{maps.shape[-2]} are too small for SSIM, which needs sides of "
                f"at least {_SMALLEST_WINDOW}; give larger images, or leave the deepest layers out"
            )
        weights = [math.exp(-((k - side // 2) ** 2) / (2 * self.sigma**2)) for k in range(side)]
        return [w / sum(weights) for w in weights]


@Fused
def _across(test: Tensor, shift: Tensor, maps: Tensor, taps: list[float]) -> tuple[Tensor, Tensor, Tensor]:
    """Rows under the window: of the shifted test maps, of their squares, of their squared difference."""
    x = test - shift
    return _blur(x, taps, -1), _blur(x * x, taps, -1), _blur((x - maps).square(), taps, -1)


@Fused
def _alike(
    rows: tuple[Tensor, Tensor, Tensor],
    shift: Tensor,
    mean_y: Tensor,
    variance_y: Tensor,
    c1: Tensor | float,
    c2: Tensor | float,
    taps: list[float],
    summed: bool,
) -> Tensor:
    """(N, C, H', W') luminance times contrast-structure, or (N, C, H') its sum along rows."""
    alike = _formula([_blur(row, taps, -2) for row in rows], mean_y, variance_y, shift, c1, c2)
    return alike.sum(-1) if summed else alike


def _formula(
    moments_x: Sequence[Tensor],
    mean_y: Tensor,
    variance_y: Tensor,
    shift: Tensor,
    c1: Tensor | float,
    c2: Tensor | float,
) -> Tensor:
    """SSIM of windows from means and mean squares of the test maps and of the difference."""
    mean_x, power_x, power = moments_x
    unlike = (power - (mean_x - mean_y).square()).clamp(min=0)
    variance_x = (power_x - mean_x * mean_x).clamp(min=0)
    a, b = mean_x + shift, mean_y + shift
    luminance = (2 * a * b + c1) / (a * a + b * b + c1)
    structure = 1 - unlike / (variance_x + variance_y + c2)
    return luminance * structure


# The same loops as CPUs run them fastest on large maps. Channels lie side by side, so that a row of all maps is one
# line of numbers, (H, W * lane, vector) with lane * vector channels; the window's next column lies `lane` further on.


def _lanes(maps: Tensor) -> Tensor:
    """(C, H, W) -> (H, W * lane, vector), without a copy where channels lie last."""
    c, h, w = maps.shape
    vector = _VECTOR if c % _VECTOR == 0 else 1
    return maps.permute(1, 2, 0).reshape(h, w * c // vector, vector)


@Fused
def _across_lanes(test: Tensor, maps: Tensor, shift: Tensor, taps: Tensor, lane: int) -> tuple[Tensor, Tensor, Tensor]:
    """As `_across`, of lanes."""
    _know_vector(test)
    size = test.shape[1] - (taps.shape[0] - 1) * lane
    x = [test.narrow(1, k * lane, size) - shift for k in range(taps.shape[0])]
    unlike = [v - maps.narrow(1, k * lane, size) for k, v in enumerate(x)]
    return _weighted(x, taps), _weighted([v * v for v in x], taps), _weighted([v * v for v in unlike], taps)


@Fused
def _alike_lanes(
    rows: Sequence[Tensor], moments_y: list[Tensor], constant: list[Tensor], taps: Tensor, counted: Tensor
) -> Tensor:
    """As `_alike`, of lanes, summed over each two rows of windows, which share all but two of the rows under them.

    `constant` are the shift, c1 and c2, `counted` the weight of the first row of each two and of the second.
    """
    _know_vector(moments_y[0])
    window, pairs = taps.shape[0], moments_y[0].shape[0] // 2

    def every_other(v: Tensor, count: int) -> list[Tensor]:
        return [v[k : k + 2 * pairs - 1 : 2] for k in range(count)]

    under = [every_other(v, window + 1) for v in rows]
    (mean_1, mean_2), (variance_1, variance_2) = (every_other(v, 2) for v in moments_y)
    moments_1, moments_2 = ([_weighted(v[k : k + window], taps) for v in under] for k in (0, 1))
    one = _formula(moments_1, mean_1, variance_1, *constant)
    two = _formula(moments_2, mean_2, variance_2, *constant)
    return one * counted[0] + two * counted[1]


def _know_vector(lanes: Tensor) -> None:
    """Let the compiler know that there is no rest of a vector; sizes are variables to it."""
    if lanes.shape[-1] == _VECTOR:
        return


def _weighted(slices: list[Tensor], taps: Tensor) -> Tensor:
    """The window's sum of its slices, symmetric taps paired."""
    half = len(slices) // 2
    total = slices[half] * taps[half]
    for k in range(half):
        total = total + (slices[k] + slices[-1 - k]) * taps[k]
    return total


def _flat_level(maps: Tensor, c2: Tensor | float) -> Tensor:
    """The mean value of each map, flat places counting most: (N, C, H, W) -> (N, C, 1, 1).

    A window's rounding error is about its distance from the level, squared, over its variance and c2.
    """
    n, c, h, w = maps.shape
    rows = max(1, _LEVEL_PIECE // (n * c * w)) if maps.is_cpu else h
    over, under = maps.new_zeros(n, c, 1, 1), maps.new_zeros(n, c, 1, 1)
    for part in maps.split(rows, 2):
        left = part[..., :-1]
        weight = ((part[..., 1:] - left).square() + c2).reciprocal()
        over += (weight * left).sum((-2, -1), keepdim=True)
        under += weight.sum((-2, -1), keepdim=True)
    return over / under


def _moments(x: Tensor, taps: list[float]) -> tuple[Tensor, Tensor]:
    mean, power = (_blur(_blur(v, taps, -2), taps, -1) for v in (x, x * x))
    return mean, (power - mean * mean).clamp(min=0)


def _blur(x: Tensor, taps: list[float], axis: int) -> Tensor:
    """Window along one side of (N, C, H, W), full windows only."""
    if x.is_cpu and not torch.compiler.is_compiling():
        # A depthwise convolution: the fastest eager form on CPUs.
        side = [1, 1]
        side[axis] = len(taps)
        weight = x.new_tensor(taps).expand(x.shape[1], 1, -1).reshape(-1, 1, *side)
        with strict_float32("cpu"):
            return F.conv2d(x, weight, groups=x.shape[1])
    # Shifted slices, symmetric taps paired: no reduced-precision convolution on GPUs, one loop when compiled.
    n, half = x.shape[axis] - len(taps) + 1, len(taps) // 2
    y = x.narrow(axis, half, n) * taps[half]
    for k in range(half):
        y = y + (x.narrow(axis, k, n) + x.narrow(axis, len(taps) - 1 - k, n)) * taps[k]
    return y


def _pieces(maps: Tensor, window: int) -> Iterator[tuple[slice, list[tuple[slice, slice]]]]:
    """Pieces of maps small enough that their half-dozen moments stay in cache, or fill a GPU.

    Some images at a time, or of one image bands of columns: each with the columns of windows on them.
    """
    n, c, h, w = maps.shape
    budget = _PIECES["gpu" if not maps.is_cpu else "compiled" if is_fusing() else "eager"]
    images = max(1, budget // (c * h * w))
    windows = w - window + 1
    band = windows if images * c * h * w <= budget else max(window, budget // (c * h) - window + 1)
    bands = -(-windows // band)
    band = -(-windows // bands)  # of one width
    columns = [
        (slice(k, min(w, k + band + window - 1)), slice(k, min(windows, k + band))) for k in range(0, windows, band)
    ]
    return ((slice(k, min(n, k + images)), columns) for k in range(0, n, images))
