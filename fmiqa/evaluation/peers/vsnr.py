"""Visual signal-to-noise ratio of images (Chandler and Hemami 2007)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from fmiqa.errors import InputError
from fmiqa.evaluation.peers.images import grey, image_pair

__all__ = ["Display", "vsnr"]

_LEVELS = 5
_MULTIPLE = 2**_LEVELS  # of sides that can be halved at every level
_EXTENDED = 128  # MeTriX MuX extends smaller sides to this
_SMALLEST = 44  # the least side that mirroring once extends that far

# The ratio of an image's contrast to that of a distortion which is just detectable in it is a0 f^(a2 ln f + a1), with
# the spatial frequency f in cycles per degree.
_A0, _A1, _A2 = 59.8, -0.1258, -0.1087
_HALVINGS = 52  # of the interval from 0 to 1, which leave one rounding error of float64

# The biorthogonal 9/7 wavelet as two pairs of lifting steps, and the gain with which its low-pass taps sum to sqrt(2).
_LIFTING = ((-1.586134342059924, -0.052980118572961), (0.882911075530934, 0.443506852043971))
_GAIN = 1.149604398860241


@dataclass(frozen=True)
class Display:
    """How grey values v from 0 to 255 are seen: luminance (black_level + gain * v)^gamma, and the viewing geometry.

    Args:
        black_level: At least 0.
        gain: Positive. The defaults of gain, black level and gamma are those of an sRGB display, in cd/m^2.
        gamma: At least 1.
        resolution: Pixels per inch.
        distance: From the eye to the display, in inches.

    Raises:
        InputError: A value is out of range.
    """

    black_level: float = 0.0
    gain: float = 0.02874
    gamma: float = 2.2
    resolution: float = 96.0
    distance: float = 19.1

    def __post_init__(self) -> None:
        positive = all(0 < v < math.inf for v in (self.gain, self.resolution, self.distance))
        if not (positive and 0 <= self.black_level < math.inf and 1 <= self.gamma < math.inf):
            raise InputError(
                f"gain, resolution and distance are positive, black_level is at least 0, gamma at least 1; got {self}"
            )

    def luminance(self, values: Tensor) -> Tensor:
        """Luminance of grey values; rounding errors below 0 count as 0."""
        return (self.black_level + self.gain * values.clamp(min=0)) ** self.gamma

    def slope(self, values: Tensor) -> Tensor:
        """Derivative of the luminance by the grey value."""
        return self.gain * self.gamma * (self.black_level + self.gain * values) ** (self.gamma - 1)

    @property
    def frequencies(self) -> list[float]:
        """Centre frequencies of the five levels of the wavelet transform in cycles per degree, the finest first."""
        pixels_per_degree = self.resolution * self.distance * math.tan(math.radians(1))
        return [pixels_per_degree / 2**level for level in range(1, _LEVELS + 1)]


_SRGB = Display()


def vsnr(
    test: Tensor, reference: Tensor, *, alpha: float = 0.04, display: Display = _SRGB, ceiling: float = 60.0
) -> Tensor:
    """Visual signal-to-noise ratio of grey values, in dB; higher is better.

    D. M. Chandler, S. S. Hemami, "VSNR: A wavelet-based visual signal-to-noise ratio for natural images", IEEE TIP
    16(9), 2007. The ratio is 20 log10(C / d), where C is the RMS contrast of the reference's luminance and
    d = alpha d_pc + (1 - alpha) d_gp / sqrt(2). The perceived contrast d_pc is the RMS contrast of the distortion. The
    disruption of global precedence d_gp is the distance between the distortion's contrasts at five scales of a 9/7
    wavelet transform and those of the least objectionable distortion of the same total contrast.

    In the paper the ratio is infinite where the distortion is below the threshold of detection. Here such images,
    among them equal ones, have the value of a ceiling as in `fmiqa.measures.PSNR`, and no value is above it. The
    visible distortions of TID2013-R stay below 49 dB. The distortion is centred on the mean grey value, so a change of
    the mean alone counts as invisible.

    What the paper leaves open is done as in the authors' MATLAB code and in the package MeTriX MuX: the grey value is
    0.299 R + 0.587 G + 0.114 B; a distortion, centred on the mean, is cut off at 0 and 255; sides that are not a
    multiple of 32, or under 128, are extended by mirroring at both ends. Three things differ: grey values are not
    rounded; the least objectionable distortion is found to full precision, not to 1 % of its contrast; and invisible
    distortions that change the mean luminance are not given a value by Weber's law. The first two change a ratio by
    up to 0.4 dB on TID2013-R, and by 0.03 dB in the median.

    VSNR belongs to images on a display at a distance. A feature map has no luminance and no visual angle, and few are
    large enough for five scales, so VSNR is not one of `fmiqa.measures`.

    Args:
        test: (N, 3, H, W), uint8 or float in [0, 1], with sides of at least 44.
        reference: (N, 3, H, W) or (1, 3, H, W), uint8 or float in [0, 1].
        alpha: Weight of the perceived contrast, from 0 to 1.
        display: Luminance of grey values, and the viewing geometry.
        ceiling: The greatest value, in dB.

    Returns:
        (N,), at most `ceiling`. Exchanging test and reference changes the value.

    Raises:
        InputError: The images are not of this form, their shapes differ or they are too small; an option is out of
            range; a reference is constant and its test image is not, so that there is no signal to compare with.

    Example:
        >>> reference = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
        >>> vsnr(torch.cat((reference, 0.9 * reference)), reference).round()
        tensor([60., 33.])
    """
    if not 0 <= alpha <= 1:
        raise InputError(f"alpha is from 0 to 1, got {alpha!r}")
    if not 0 < ceiling < math.inf:
        raise InputError(f"ceiling is a positive number of dB, got {ceiling!r}")
    x, y = (_extended(255 * grey(side)) for side in image_pair("VSNR", test, reference))
    mean = y.mean((-2, -1), keepdim=True)
    error = torch.clamp(x - y, -mean, 255 - mean)
    level = display.luminance(y).mean((-2, -1), keepdim=True)
    level = torch.where(level > 0, level, 1.0)  # a black reference has no contrast
    signal = _deviation(display.luminance(y) / level)
    noise = _deviation(display.luminance(mean + error) / level)
    per_grey_value = (display.slope(mean) / level).flatten(1)  # contrast of a difference of 1 from the mean
    signals, noises = (per_grey_value * _band_deviations(side) for side in (y, error))

    signal, signals = signal.expand_as(noise), signals.expand_as(noises)
    frequencies = signals.new_tensor(display.frequencies, dtype=torch.float64)
    threshold = _norm(signals / _tolerated(torch.zeros_like(noise), frequencies))
    visible = (noise > threshold) & ~_is_constant(error)
    if bool((visible & _is_constant(y)).any()):
        raise InputError("VSNR has no value where the reference is constant and the test image is not: no contrast")
    ratios = _ratio(signal[visible], noise[visible], signals[visible], noises[visible], alpha, frequencies)
    return torch.full_like(noise, ceiling).masked_scatter(visible, ratios.to(noise)).clamp(max=ceiling)


def _ratio(signal: Tensor, noise: Tensor, signals: Tensor, noises: Tensor, alpha: float, frequencies: Tensor) -> Tensor:
    """VSNR of visible distortions, from contrasts in total (N,) and at each scale (N, 5)."""
    least_objectionable = signals / _tolerated(_visibility(signals, noise, frequencies), frequencies)
    precedence = _norm(noises - least_objectionable)
    return 20 * (signal / (alpha * noise + (1 - alpha) / math.sqrt(2) * precedence)).log10()


def _tolerated(visibility: Tensor, frequencies: Tensor) -> Tensor:
    """(N, 5) ratio of the image's contrast to the least objectionable distortion's, at visibility (N,) and each scale.

    Visibility 0 is the threshold of detection, where the ratio is that measured with observers; at 1 it is 0.
    """
    v, log_f = visibility[:, None], frequencies.log()
    exponent = ((-1 - _A2) * v + _A2) * log_f + (1 - _A1) * v + _A1
    return _A0 * (1 - v) * (exponent * log_f).exp()


def _visibility(signals: Tensor, noise: Tensor, frequencies: Tensor) -> Tensor:
    """The visibility (N,) at which the least objectionable distortion has this total contrast."""
    with torch.no_grad():
        low, high = torch.zeros_like(noise, dtype=torch.float64), torch.ones_like(noise, dtype=torch.float64)
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            above = _norm(signals / _tolerated(middle, frequencies)) > noise
            low, high = torch.where(above, low, middle), torch.where(above, middle, high)
    # A Newton step with a constant slope: the value stays, and the gradient becomes that of the implicit function. The
    # contrast at each scale grows with visibility at a relative rate of at least 0.64, so the solution is unique.
    contrasts = signals / _tolerated(low, frequencies)
    log_f = frequencies.log()
    rates = 1 / (1 - low[:, None]) + (1 + _A2) * log_f.square() - (1 - _A1) * log_f
    slope = (contrasts.square() * rates).sum(-1) / _norm(contrasts)
    return low - (_norm(contrasts) - noise) / slope.detach()


def _extended(images: Tensor) -> Tensor:
    """(N, H, W) extended by mirroring to sides that the wavelet transform halves five times."""
    height, width = images.shape[-2:]
    if min(height, width) < _SMALLEST:
        raise InputError(f"VSNR needs images with sides of at least {_SMALLEST}, got {width}x{height}")
    padding: list[int] = []
    for side in (width, height):
        missing = max(_EXTENDED, math.ceil(side / _MULTIPLE) * _MULTIPLE) - side
        padding += [(missing + 1) // 2, missing // 2]
    return F.pad(images[:, None], padding, mode="reflect")[:, 0]


def _band_deviations(images: Tensor) -> Tensor:
    """(N, H, W) -> (N, 5): standard deviation at each scale, of three orientations together, the finest first."""
    found = []
    for level in range(1, _LEVELS + 1):
        low, high = _halved(images)
        (smooth, *details), corners = _halved(low.mT), _halved(high.mT)
        variance = torch.stack([band.var((-2, -1), correction=0) for band in (*details, *corners)]).sum(0)
        found.append(_root(variance) / 2**level)  # the transform doubles a contrast at each level
        images = smooth.mT
    return torch.stack(found, -1)


def _halved(signals: Tensor) -> tuple[Tensor, Tensor]:
    """Low-pass and high-pass halves of the rows, mirrored at their ends."""
    low, high = signals[..., ::2], signals[..., 1::2]
    for predict, update in _LIFTING:
        high = high + predict * (low + torch.cat((low[..., 1:], low[..., -1:]), -1))
        low = low + update * (high + torch.cat((high[..., :1], high[..., :-1]), -1))
    return _GAIN * low, high / _GAIN


def _deviation(values: Tensor) -> Tensor:
    """(N, H, W) -> (N,)"""
    return _root(values.var((-2, -1), correction=0))


def _root(variance: Tensor) -> Tensor:
    # The root's slope at 0 is infinite: 0 stands there for it.
    return torch.where(variance > 0, variance, 1.0).sqrt() * (variance > 0)


def _norm(contrasts: Tensor) -> Tensor:
    """(N, 5) -> (N,), with gradient 0 at 0."""
    norm: Tensor = torch.linalg.vector_norm(contrasts, dim=-1)
    return norm


def _is_constant(images: Tensor) -> Tensor:
    """(N, H, W) -> (N,)"""
    return images.amax((-2, -1)) == images.amin((-2, -1))
