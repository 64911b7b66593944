"""LPIPS of images on AlexNet (Zhang et al. 2018)."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from fmiqa.errors import WeightsError
from fmiqa.evaluation.peers.images import image_pair
from fmiqa.features.checkpoints import StateDict, fit_state, read_state
from fmiqa.features.extractor import FeatureExtractor

__all__ = ["LPIPS"]


class LPIPS(nn.Module):
    """Learned perceptual image patch similarity; starts at 0, for equal images, and lower is better.

    R. Zhang, P. Isola, A. A. Efros, E. Shechtman, O. Wang, "The unreasonable effectiveness of deep features as a
    perceptual metric", CVPR 2018, version 0.1 on AlexNet: maps after the ReLU of the five convolutions, at each
    position divided by their norm over channels, + 1e-10; the squared difference of both sides, weighted by channel,
    summed over channels, averaged over positions and summed over layers. Images are not resized.

    Args:
        weights: Of AlexNet, as `fmiqa.FeatureExtractor` takes them.
        linear: The weights of channels, as the package `lpips` has them in `lpips/weights/v0.1/alex.pth`: its path, a
            state dict, or `"DEFAULT"`, the file of that package where it is installed.

    Calls take test and reference, uint8 or float in [0, 1], (N, 3, H, W) each, or (1, 3, H, W) for the reference, and
    give (N,), at least 0. The distance is symmetric.

    Raises:
        WeightsError: Weights are missing, misshapen, of another network, or cannot be fetched.
        InputError: In a call: the images are not of this form, their shapes differ or they are too small.

    Example:
        >>> import warnings; warnings.simplefilter("ignore")
        >>> channels = (64, 192, 384, 256, 256)
        >>> linear = {f"lin{i}.model.1.weight": torch.ones(1, c, 1, 1) / c for i, c in enumerate(channels)}
        >>> metric = LPIPS(weights=None, linear=linear)
        >>> reference = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
        >>> near, far = metric(torch.cat((0.9 * reference, 0.5 * reference)), reference).tolist()
        >>> float(metric(reference, reference)) == 0 < near < far
        True
    """

    def __init__(
        self,
        weights: str | os.PathLike[str] | StateDict | None = "DEFAULT",
        linear: str | os.PathLike[str] | StateDict | None = "DEFAULT",
    ) -> None:
        super().__init__()
        self.extractor = FeatureExtractor("alexnet", weights=weights)
        given = read_state(_of_package() if linear is None or linear == "DEFAULT" else linear)
        sizes = [len(maps) for maps in self.extractor.maps.channels.values()]
        names = [f"lin{i}.model.1.weight" for i in range(len(sizes))]
        expected = {name: torch.empty(1, size, 1, 1, device="meta") for name, size in zip(names, sizes, strict=True)}
        for layer, value in zip(self.extractor.layers, fit_state(given, expected).values(), strict=True):
            self.register_buffer(layer, value)

    def forward(self, test: Tensor, reference: Tensor) -> Tensor:
        """(N, 3, H, W) twice -> (N,)"""
        sides = (self.extractor(side) for side in image_pair("LPIPS", test, reference))
        x, y = ({layer: _directions(maps) for layer, maps in side.items()} for side in sides)
        distances = [
            (getattr(self, layer) * (x[layer] - y[layer]).square()).sum(1).mean((1, 2))
            for layer in self.extractor.layers
        ]
        return torch.stack(distances).sum(0)


def _directions(maps: Tensor) -> Tensor:
    """(N, C, H, W), of length 1 over channels, or 0 where all are 0."""
    # This norm has gradient 0 where all are 0; a square root would have NaN.
    directions: Tensor = maps / (torch.linalg.vector_norm(maps, dim=1, keepdim=True) + 1e-10)
    return directions


def _of_package() -> Path:
    found = find_spec("lpips")
    if found is None or not found.submodule_search_locations:
        raise WeightsError(
            "LPIPS needs its weights of channels, which are in the package lpips: install it (pip install lpips), or "
            "give its file lpips/weights/v0.1/alex.pth"
        )
    return Path(found.submodule_search_locations[0]) / "weights" / "v0.1" / "alex.pth"
