"""DeepWSD and DeepJSD of images: distributions of deep features (Liao et al. 2022 and 2024)."""

from __future__ import annotations

import math
import os
from abc import abstractmethod
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fmiqa.evaluation.peers.images import image_pair
from fmiqa.features.checkpoints import StateDict
from fmiqa.features.extractor import FeatureExtractor

__all__ = ["DeepJSD", "DeepWSD"]

_LONG_SIDE = 256  # to about which images are averaged
_SIDE = 8  # maps are brought to multiples of this
_WINDOW = _SIDE**2  # values

# Convolutions whose maps, after the ReLU and side by side, are those after the features 1, 4, 7 and 12.
_STAGES = (("features.0",), *((f"features.{fire}.expand1x1", f"features.{fire}.expand3x3") for fire in (4, 7, 12)))


class _DeepDistance(nn.Module):
    """The mean distance of windows of RGB values and of SqueezeNet's maps; each subclass has a distance of its own."""

    def __init__(self, weights: str | os.PathLike[str] | StateDict | None = "DEFAULT") -> None:
        super().__init__()
        layers = [layer for stage in _STAGES for layer in stage]
        self.extractor = FeatureExtractor("squeezenet1_1", weights=weights, layers=layers)

    def forward(self, test: Tensor, reference: Tensor) -> Tensor:
        """(N, 3, H, W) twice -> (N,)"""
        sides = image_pair(type(self).__name__, test, reference)
        distances = [self._mean_distance(x, y.expand_as(x)) for x, y in zip(*map(self._windows, sides), strict=True)]
        return _compressed(torch.stack(distances).mean(0))

    @abstractmethod
    def distances(self, x: Tensor, y: Tensor) -> Tensor:
        """Distance of each window's distribution: (N, 64, K), (N, 64, K) -> (N, K), at least 0."""

    def _windows(self, images: Tensor) -> Iterator[Tensor]:
        """Each stage as windows: (N, 3, H, W) -> (N, 64, K)."""
        images = images.to(self.extractor.dtype)
        images = F.avg_pool2d(images, max(1, round(max(images.shape[-2:]) / _LONG_SIDE)))
        found = dict(self.extractor.features_of_normalized(images))
        for maps in (images, *(torch.cat([found[layer] for layer in stage], 1) for stage in _STAGES)):
            rows, columns = (max(1, round(side / _SIDE)) * _SIDE - side for side in maps.shape[-2:])
            # Values that follow each other in memory go to different windows: a window takes every K-th.
            yield F.pad(maps, (columns, 0, 0, rows)).reshape(len(maps), _WINDOW, -1)

    def _mean_distance(self, x: Tensor, y: Tensor) -> Tensor:
        distances = self.distances(x, y)
        shifted = distances + 10
        weights = 1 / ((-1 / shifted).exp().sqrt() * shifted.square())
        return (distances + weights * (x - y).square().sum(1)).mean(1)


class DeepWSD(_DeepDistance):
    """Wasserstein distances of SqueezeNet's features; starts at 0, for equal images, and lower is better.

    X. Liao, B. Chen, H. Zhu, S. Wang, M. Zhou, S. Kwong, "DeepWSD: Projecting degradations in perceptual space to
    Wasserstein distance in deep feature space", ACM Multimedia 2022, in the form of the authors' public code for
    SqueezeNet 1.1 (X. Liao, X. Wei, M. Zhou, Z. Li, S. Kwong, "Image quality assessment: Measuring perceptual
    degradation via distribution measures in deep feature spaces", IEEE TIP 33, 2024):

    - Images are averaged over blocks of f x f pixels, f = max(1, round(longer side / 256)), and enter the network
      without normalisation.
    - Stages are the RGB values and the maps after the features 1, 4, 7 and 12. Their sides are brought to the nearest
      multiple of 8 by zeros, or by cutting, at the left and at the bottom.
    - The memory of a stage, C x H x W, is read as 64 rows of K = C H W / 64 values. Each column is a window: of 64
      maps at one position where C is a multiple of 64, of several positions otherwise.
    - In a window, a value v is a mass v^2 / (S + 1e-6) at its place from 0 to 63, where S is the sum of the stage. The
      distance w of two windows is the integral of the squared difference of their quantile functions, p = 2 without
      the root. Masses are not made equal: beyond the total of one window its quantile is 63.
    - To w is added the sum of the squared differences of the values, times 1 / (sqrt(exp(-1 / (w + 10))) (w + 10)^2).
    - With d, the mean over windows and then over stages, the metric is log(1 + d)^(1/4).

    The code gives NaN where a map has a side of at most 4; here such a side is extended to 8. The slope is infinite
    at 0; the gradient of equal images is 0.

    Args:
        weights: Of SqueezeNet 1.1, as `fmiqa.FeatureExtractor` takes them: `"DEFAULT"` (torchvision's), the path of a
            state dict (`features.*` are enough), a state dict, or None for seeded random ones.

    Calls take test and reference, uint8 or float in [0, 1], (N, 3, H, W) each, or (1, 3, H, W) for the reference, and
    give (N,), at least 0. The distance is symmetric.

    Raises:
        WeightsError: Weights are missing, misshapen, of another network, or cannot be fetched.
        InputError: In a call: the images are not of this form, their shapes differ or they are too small.

    Example:
        >>> import warnings; warnings.simplefilter("ignore")
        >>> metric = DeepWSD(weights=None)
        >>> reference = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
        >>> near, far = metric(torch.cat((0.9 * reference, 0.5 * reference)), reference).tolist()
        >>> float(metric(reference, reference)) == 0 < near < far
        True
    """

    def distances(self, x: Tensor, y: Tensor) -> Tensor:
        """See `_DeepDistance`."""
        totals = [(side.square() / (side.sum((1, 2), keepdim=True) + 1e-6)).mT.cumsum(-1) for side in (x, y)]
        levels = torch.cat(totals, -1).sort(-1).values
        at = levels.detach()
        own, other = (torch.searchsorted(side.detach().contiguous(), at).clamp(max=_WINDOW - 1) for side in totals)
        return (F.pad(levels, (1, 0)).diff() * (own - other).square()).sum(-1)


class DeepJSD(_DeepDistance):
    """Jensen-Shannon divergences of SqueezeNet's features; starts at 0, for equal images, and lower is better.

    X. Liao, X. Wei, M. Zhou, Z. Li, S. Kwong, "Image quality assessment: Measuring perceptual degradation via
    distribution measures in deep feature spaces", IEEE TIP 33, 2024: `DeepWSD` with another distance of two windows.
    With p and q, their softmax over the 64 values, and m = (p + q) / 2, it is (KL(p || m) + KL(q || m)) / 2, from 0 to
    log 2. The authors' public code takes SqueezeNet 1.0 for this metric; here both run on 1.1.

    Args:
        weights: See `DeepWSD`; calls are as there.

    Raises:
        WeightsError: Weights are missing, misshapen, of another network, or cannot be fetched.
        InputError: In a call: the images are not of this form, their shapes differ or they are too small.

    Example:
        >>> import warnings; warnings.simplefilter("ignore")
        >>> metric = DeepJSD(weights=None)
        >>> reference = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
        >>> near, far = metric(torch.cat((0.9 * reference, 0.5 * reference)), reference).tolist()
        >>> float(metric(reference, reference)) == 0 < near < far
        True
    """

    def distances(self, x: Tensor, y: Tensor) -> Tensor:
        """See `_DeepDistance`."""
        log_p, log_q = x.log_softmax(1), y.log_softmax(1)
        log_m = torch.logaddexp(log_p, log_q) - math.log(2)
        divergence = (log_p.exp() * (log_p - log_m) + log_q.exp() * (log_q - log_m)).sum(1) / 2
        return divergence.clamp(min=0)  # rounding errors


def _compressed(distance: Tensor) -> Tensor:
    """log(1 + d)^(1/4), whose slope at 0 is infinite: 0 stands there for it."""
    return torch.where(distance > 0, distance, 1.0).log1p() ** 0.25 * (distance > 0)
