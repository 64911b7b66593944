"""DISTS of images on VGG16 (Ding et al. 2020)."""

from __future__ import annotations

import os

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fmiqa.errors import WeightsError
from fmiqa.evaluation.peers.images import image_pair
from fmiqa.features.checkpoints import StateDict, fit_state, read_state
from fmiqa.features.extractor import FeatureExtractor
from fmiqa.features.networks import blank_network
from fmiqa.features.viewing import Viewing

__all__ = ["DISTS"]

_SHORT_SIDE = 256
_LAST_OF_BLOCKS = (1, 3, 6, 9, 12)  # convolutions of VGG16: conv1_2, conv2_2, conv3_3, conv4_3, conv5_3
_CONSTANT = 1e-6
_URL = "https://github.com/photosynthesis-team/piq/releases/download/v0.4.1/dists_weights.pt"


class DISTS(nn.Module):
    """Deep image structure and texture similarity; starts at 0, for equal images, and lower is better.

    K. Ding, K. Ma, S. Wang, E. P. Simoncelli, "Image quality assessment: Unifying structure and texture similarity",
    IEEE TPAMI 44(5), 2022. Of the RGB values and of VGG16's maps after the ReLU of the last convolution in each block,
    with means mx and my, variances vx and vy, and covariance c over positions: 1 less the mean over all maps of
    texture, (2 mx my + 1e-6) / (mx^2 + my^2 + 1e-6), and structure, (2 c + 1e-6) / (vx + vy + 1e-6), with the learned
    weights alpha and beta, which are divided by their sum. In place of maximum poolings, VGG16 has the root of the
    squared maps, smoothed by a 3x3 Hann window, at every second position.

    As with the authors, images whose shorter side is over 256 are resized to 256, here by `fmiqa.Viewing`. What a
    library does there matters: its antialiasing is that of the authors' Pillow, and piq has none.

    Args:
        weights: Of VGG16, as `fmiqa.FeatureExtractor` takes them.
        learned: alpha and beta, (1, 1475, 1, 1) each, as the authors and piq publish them: the path of a state dict, a
            state dict, or `"DEFAULT"`, fetched from piq's releases.

    Calls take test and reference, uint8 or float in [0, 1], (N, 3, H, W) each, or (1, 3, H, W) for the reference, and
    give (N,). The distance is symmetric.

    Raises:
        WeightsError: Weights are missing, misshapen, of another network, or cannot be fetched.
        InputError: In a call: the images are not of this form, their shapes differ or they are too small.

    Example:
        >>> import warnings; warnings.simplefilter("ignore")
        >>> learned = {name: torch.ones(1, 1475, 1, 1) for name in ("alpha", "beta")}
        >>> metric = DISTS(weights=None, learned=learned)
        >>> reference = torch.rand(1, 3, 32, 48, generator=torch.Generator().manual_seed(0))
        >>> near, far = metric(torch.cat((0.9 * reference, 0.5 * reference)), reference).tolist()
        >>> float(metric(reference, reference)) == 0 < near < far
        True
    """

    alpha: Tensor
    beta: Tensor

    def __init__(
        self,
        weights: str | os.PathLike[str] | StateDict | None = "DEFAULT",
        learned: str | os.PathLike[str] | StateDict | None = "DEFAULT",
    ) -> None:
        super().__init__()
        state = FeatureExtractor("vgg16", weights=weights).network.state_dict()
        network = blank_network("vgg16").get_submodule("features")
        for name, module in network.named_children():
            if isinstance(module, nn.MaxPool2d):
                setattr(network, name, _RootOfMeanSquares())
        convolutions = [name for name, module in network.named_children() if isinstance(module, nn.Conv2d)]
        layers = [convolutions[i] for i in _LAST_OF_BLOCKS]
        self.extractor = FeatureExtractor(
            network, weights={name.removeprefix("features."): value for name, value in state.items()}, layers=layers
        )
        given = _fetched() if learned is None or learned == "DEFAULT" else read_state(learned)
        maps = 3 + len(self.extractor.maps)
        expected = {name: torch.empty(1, maps, 1, 1, device="meta") for name in ("alpha", "beta")}
        alpha, beta = (value.flatten() for value in fit_state(_named(given), expected).values())
        self.register_buffer("alpha", alpha / (alpha.sum() + beta.sum()))
        self.register_buffer("beta", beta / (alpha.sum() + beta.sum()))

    def forward(self, test: Tensor, reference: Tensor) -> Tensor:
        """(N, 3, H, W) twice -> (N,)"""
        sides = image_pair("DISTS", test, reference)
        seen = Viewing(short_side=_SHORT_SIDE if min(test.shape[-2:]) > _SHORT_SIDE else None)
        stages = (self._stages(seen(side)) for side in sides)
        similarities = [_similarities(x, y) for x, y in zip(*stages, strict=True)]
        texture, structure = (torch.cat(kind, 1) for kind in zip(*similarities, strict=True))
        # alpha and beta sum to 1, so that this is 1 less the mean, and exactly 0 for equal images.
        return (self.alpha * (1 - texture) + self.beta * (1 - structure)).sum(1)

    def _stages(self, images: Tensor) -> list[Tensor]:
        images = images.to(self.extractor.dtype)
        return [images, *self.extractor(images).values()]


class _RootOfMeanSquares(nn.Module):
    """Pooling by the root of the mean square under a 3x3 Hann window: (N, C, H, W) -> (N, C, ceil(H/2), ceil(W/2))."""

    def forward(self, maps: Tensor) -> Tensor:
        # The window is a square of four ones, smoothed by another.
        smooth = F.avg_pool2d(F.avg_pool2d(F.pad(maps * maps, (1, 1, 1, 1)), 2, 1), 2, 2)
        return (smooth + 1e-12) ** 0.5


def _similarities(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Texture and structure of each map: (N, C, H, W), (N, C, H, W) -> (N, C) twice."""
    mean_x, mean_y = (side.mean((2, 3), keepdim=True) for side in (x, y))
    variances = ((x - mean_x).square() + (y - mean_y).square()).mean((2, 3))
    covariance = ((x - mean_x) * (y - mean_y)).mean((2, 3))
    means, squares = (mean_x * mean_y).flatten(1), (mean_x.square() + mean_y.square()).flatten(1)
    return (2 * means + _CONSTANT) / (squares + _CONSTANT), (2 * covariance + _CONSTANT) / (variances + _CONSTANT)


def _named(state: StateDict) -> StateDict:
    """Alpha and beta alone: the authors' file may hold more."""
    return {name: value for name, value in state.items() if name in ("alpha", "beta")}


def _fetched() -> StateDict:
    try:
        state: StateDict = torch.hub.load_state_dict_from_url(
            _URL, progress=False, map_location="cpu", weights_only=True
        )
    except Exception as error:  # URL, socket, proxy, disk: whichever, the remedy is the same
        raise WeightsError(
            f"the weights alpha and beta of DISTS could not be fetched ({error}); fetch {_URL} where there is a network"
        ) from error
    return state
