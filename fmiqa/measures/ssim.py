"""SSIM of feature maps (Wang et al. 2004), the reference side prepared once.

Feature maps are not images: they are unbounded, often constant, and may lie far from zero. So
`data_range` is part of the metric's definition, a dead map is alike with itself (1, not 0/0), and
float32 must not cancel away the small variance of flat places in E[x^2] - mu^2:

- One constant per reference map is taken off both sides first: the level of the map's flat places (see
  `fmiqa.measures.window`).
- The luminance term (2 a b + c1) / (a^2 + b^2 + c1) of the means a and b is computed as
  1 - (a - b)^2 / (a^2 + b^2 + c1), with a - b as the mean of x - y; and the contrast-structure term
  (2 cov + c2) / (var x + var y + c2) as 1 - var(x - y) / (var x + var y + c2). Both are the same, and exactly 1 where
  the maps are equal.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from fmiqa._checks import is_recording
from fmiqa._runtime.compiled import Fused, compiling, is_fusing
from fmiqa._runtime.precision import at_least_float32
from fmiqa.errors import InputError
from fmiqa.measures.base import (
    DataRange,
    check_data_range,
    check_maps,
    check_pair,
    check_prepared,
    limit_of,
    mean_similarity,
)
from fmiqa.measures.window import SMALLEST_WINDOW, blur, check_window, fitting_side, flat_level, gaussian_taps, moments

__all__ = ["SSIM", "PreparedReference"]

# Of a piece of maps: channels at least (on CPUs they lie side by side, and loops want them all), elements at most.
_PIECES = {"eager": (sys.maxsize, 2**21), "compiled": (sys.maxsize, 2**19), "gpu": (16, 2**26)}
_TOGETHER = 2**22  # elements of maps up to which compiled loops take all images in one call on CPUs
_TOGETHER_ON_GPUS = 2**28


class PreparedReference(NamedTuple):
    """The reference side of SSIM, for maps (N, C, H, W)."""

    shift: Tensor  # (N, C, 1, 1), taken off both sides before the moments
    maps: Tensor  # (N, C, H, W), shifted
    mean: Tensor  # (N, C, H', W'), windowed, of the shifted maps
    variance: Tensor  # (N, C, H', W'), windowed
    peak: Tensor | None  # (N, C or 1, 1, 1), where the data range depends on the maps

    def images(self, first: int, stop: int) -> PreparedReference:
        """The side of some images, where there is one for each; else the side of the one for all."""
        parts = [v if v is None or v.shape[0] == 1 else v[first:stop] for v in self]
        return PreparedReference(*parts)  # type: ignore[arg-type]

    def part(self, channels: slice, rows: slice, windows: slice) -> PreparedReference:
        """The side of a piece of the maps: some channels, some rows and the rows of windows on them."""
        peak = self.peak if self.peak is None or self.peak.shape[1] == 1 else self.peak[:, channels]
        mean, variance = (moment[:, channels, windows] for moment in (self.mean, self.variance))
        return PreparedReference(self.shift[:, channels], self.maps[:, channels, rows], mean, variance, peak)


@dataclass(frozen=True)
class SSIM:
    r"""Structural similarity of feature maps: the mean of the SSIM map over all full windows.

    At each window, with the Gaussian-weighted means, variances and covariance of the maps x and y (Wang, Bovik, Sheikh
    and Simoncelli, "Image quality assessment: from error visibility to structural similarity", IEEE TIP 13(4), 2004):

    .. math::

        \operatorname{SSIM}(x, y) = \frac{2 \mu_x \mu_y + C_1}{\mu_x^2 + \mu_y^2 + C_1} \cdot
        \frac{2 \sigma_{xy} + C_2}{\sigma_x^2 + \sigma_y^2 + C_2}, \quad C_1 = (k_1 L)^2, \quad C_2 = (k_2 L)^2

    Args:
        data_range: The L of both constants. A number; or `"reference"`, each
            reference map's largest magnitude; `"pair"`, the larger of both maps'; `"layer"`, the largest
            magnitude in the reference's layer. A largest magnitude of 0 (under 1e-12) counts as 1.
        window: Side of the Gaussian window, odd. A map smaller than this, with sides of at least 3, is
            seen through the largest odd window that fits it, with the same sigma; a smaller map is an error.
        sigma: Standard deviation of the window, in map positions.
        k1: Constant of the luminance term.
        k2: Constant of the contrast-structure term.

    Raises:
        InputError: Options out of range.

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
        check_window(self.window, self.sigma, self.k1, self.k2)

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
            (N, C), at most 1; 1 where the maps are equal. Maps in half precision are compared in float32.

        Raises:
            InputError: Shapes that do not go together, or maps with a side under 3.
        """
        return self.compare(test, self.prepare(reference))

    def prepare(self, reference: Tensor) -> PreparedReference:
        """The reference side, to be compared with any number of test images.

        Raises:
            InputError: Not (N, C, H, W), or maps with a side under 3.
        """
        taps = self._taps(reference)
        reference = at_least_float32(reference)
        peak = None
        if isinstance(self.data_range, str):
            peak = reference.abs().amax((1, 2, 3) if self.data_range == "layer" else (2, 3), keepdim=True)
        # The score does not depend on the shift, and so neither does its gradient.
        shift = flat_level(reference.detach(), self._constants(None if peak is None else peak.detach())[1])
        shifted = reference - shift
        mean, variance = self._moments_of(shifted, taps)
        return PreparedReference(shift, shifted, mean, variance, peak)

    def compare(self, test: Tensor, prepared: PreparedReference) -> Tensor:
        """Compare test maps (N, C, H, W) with prepared reference maps of N images or of one.

        Raises:
            InputError: Shapes that do not go together.
        """
        prepared, taps = self._of_pair(test, prepared), self._taps(test)
        test = at_least_float32(test)
        if is_fusing() and not test.is_cpu:
            return self._in_images(test, prepared, taps)
        if is_fusing() and test.numel() > _TOGETHER:
            each = (self._in_pieces(one, prepared.images(i, i + 1), taps) for i, one in enumerate(test.split(1)))
            return torch.cat(list(each))
        return self._in_pieces(test, prepared, taps)

    def local(self, test: Tensor, reference: Tensor) -> Tensor:
        """The SSIM map whose mean the score is: (N, C, H - window + 1, W - window + 1), windows from the corner on.

        Args:
            test: (N, C, H, W) float.
            reference: (N, C, H, W) or (1, C, H, W) float.

        Raises:
            InputError: See a call.
        """
        prepared, taps = self._of_pair(test, self.prepare(reference)), self._taps(test)
        test = at_least_float32(test)
        columns = _down.eager(test, prepared.shift, prepared.maps, taps)
        constants = self._constants(prepared.peak)
        return _alike.eager(columns, prepared.shift, prepared.mean, prepared.variance, *constants, taps, False)

    def _of_pair(self, test: Tensor, prepared: PreparedReference) -> PreparedReference:
        """The reference side beside these test maps, whose peaks may count too; checks that both go together."""
        check_prepared("SSIM", prepared, PreparedReference)
        check_maps("SSIM", test)
        check_pair("SSIM", test, prepared.maps.shape, prepared.maps)
        if self.data_range != "pair" or prepared.peak is None:
            return prepared
        return prepared._replace(peak=torch.maximum(prepared.peak, test.abs().amax((-2, -1), keepdim=True)))

    def _in_images(self, test: Tensor, reference: PreparedReference, taps: list[float]) -> Tensor:
        """Of whole layers, some images at a time: pieces of another size or of one image would be compiled as well."""
        most = max(1, _TOGETHER_ON_GPUS // test[0].numel())
        scores, start = [], 0
        for part in test.tensor_split(-(-len(test) // most)):
            side = reference.images(start, start + len(part))
            start += len(part)
            if len(part) > 1:
                scores.append(mean_similarity(self._compare(part, side, taps), -1))
            else:
                with compiling(False):
                    scores.append(self._in_pieces(part, side, taps))
        return torch.cat(scores)

    def _in_pieces(self, test: Tensor, reference: PreparedReference, taps: list[float]) -> Tensor:
        scores = []
        for channels, strips in _pieces(test, len(taps)):
            rows = [
                self._compare(test[:, channels, rows], reference.part(channels, rows, windows), taps)
                for rows, windows in strips
            ]
            scores.append(mean_similarity(torch.cat(rows, -1) if len(rows) > 1 else rows[0], -1))
        return torch.cat(scores, 1) if len(scores) > 1 else scores[0]

    def _moments_of(self, maps: Tensor, taps: list[float]) -> tuple[Tensor, Tensor]:
        """Windowed mean and variance of whole maps."""
        columns = []
        for channels, strips in _pieces(maps, len(taps)):
            parts = [moments(maps[:, channels, rows], taps) for rows, _ in strips]
            columns.append([torch.cat(p, 2) if len(p) > 1 else p[0] for p in zip(*parts, strict=True)])
        mean, variance = (torch.cat(p, 1) if len(p) > 1 else p[0] for p in zip(*columns, strict=True))
        return mean, variance

    def _compare(self, test: Tensor, reference: PreparedReference, taps: list[float]) -> Tensor:
        """(N, C, rows of windows) the mean of each row; of a piece of the maps."""
        columns = _down(test, reference.shift, reference.maps, taps)
        constants = self._constants(reference.peak)
        return _alike(columns, reference.shift, reference.mean, reference.variance, *constants, taps, True)

    def _constants(self, peak: Tensor | None) -> tuple[Tensor | float, Tensor | float]:
        """C1 and C2, for a number or for each map's largest magnitude."""
        if peak is None:
            limit: Tensor | float = float(self.data_range)
        else:
            limit = limit_of(peak)
        return (self.k1 * limit) ** 2, (self.k2 * limit) ** 2

    def _taps(self, maps: Tensor) -> list[float]:
        """The window's weights along one side, for maps of this size."""
        check_maps("SSIM", maps)
        side = fitting_side(self.window, maps)
        if side < SMALLEST_WINDOW:
            raise InputError(
                f"maps of {maps.shape[-1]}x{maps.shape[-2]} are too small for SSIM, which needs sides of "
                f"at least {SMALLEST_WINDOW}; give larger images, or leave the deepest layers out"
            )
        return gaussian_taps(side, self.sigma)


@partial(Fused, one_loop=True, sized=True)
def _down(test: Tensor, shift: Tensor, maps: Tensor, taps: list[float]) -> tuple[Tensor, Tensor, Tensor]:
    """Columns under the window: of the difference of both maps, of its square, of the shifted test maps' square."""
    shifted = test - shift
    power_x = blur(shifted.square(), taps, -2)
    difference = shifted - maps
    return blur(difference, taps, -2), blur(difference.square(), taps, -2), power_x


@partial(Fused, one_loop=True, sized=True)
def _alike(
    columns: tuple[Tensor, Tensor, Tensor],
    shift: Tensor,
    mean_y: Tensor,
    variance_y: Tensor,
    c1: Tensor | float,
    c2: Tensor | float,
    taps: list[float],
    rows: bool,
) -> Tensor:
    """(N, C, H', W') luminance times contrast-structure, or of `rows` of windows the mean, (N, C, H').

    Both are 1 less a quotient that is exactly 0 where the maps are equal, however sums are rounded or fused.
    """
    mean, power, power_x = (blur(column, taps, -1) for column in columns)
    mean_x = mean_y + mean
    variances = torch.addcmul(power_x, mean_x, mean_x, value=-1).clamp(min=0) + (variance_y + c2)
    structure = torch.addcmul(power, mean, mean, value=-1).clamp(min=0) / variances
    a, b = mean_x + shift, mean_y + shift
    luminance = mean.square() / torch.addcmul(b.square() + c1, a, a)
    lost = torch.addcmul(luminance + structure, luminance, structure, value=-1)
    return 1 - (lost.mean(-1) if rows else lost)


def _pieces(maps: Tensor, window: int) -> Iterator[tuple[slice, list[tuple[slice, slice]]]]:
    """Pieces of maps small enough that their half-dozen moments stay in cache, or fill a GPU.

    Some channels at a time, and of large maps some rows: each with the strips of rows, and the windows on them.
    """
    everything = slice(None)
    if is_recording():
        return iter([(everything, [(everything, everything)])])
    n, c, h, w = maps.shape
    fewest, budget = _PIECES["gpu" if not maps.is_cpu else "compiled" if is_fusing() else "eager"]
    channels = min(c, max(fewest, budget // (n * h * w)))
    windows = h - window + 1
    rows = min(windows, max(2 * window, budget // (n * channels * w)))
    starts = range(0, windows, rows)
    strips = [(slice(k, min(h, k + rows + window - 1)), slice(k, min(windows, k + rows))) for k in starts]
    return ((slice(k, min(c, k + channels)), strips) for k in range(0, c, channels))
