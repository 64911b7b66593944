"""Images for the tests of peers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from fmiqa import FeatureExtractor


@pytest.fixture(scope="session")
def picture() -> Callable[..., Tensor]:
    """Makes images (1, 3, H, W) in float64 with structure at several scales and with all values from 0 to 1."""

    def make(height: int = 96, width: int = 128, seed: int = 0) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        image = torch.zeros(1, 3, height, width, dtype=torch.float64)
        for cells in (3, 8, 24, 60):
            noise = torch.randn(1, 3, cells, cells, generator=generator, dtype=torch.float64)
            image += F.interpolate(noise, (height, width), mode="bicubic") / cells**0.5
        return (image - image.amin()) / (image.amax() - image.amin())

    return make


@pytest.fixture(scope="session")
def noisy() -> Callable[..., Tensor]:
    """Adds the same noise with a given strength, and cuts off what leaves the range."""

    def add(image: Tensor, strength: float, seed: int = 1) -> Tensor:
        noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        return (image + strength * noise.to(image)).clamp(0, 1)

    return add


@pytest.fixture(scope="session")
def own_weights() -> dict[str, dict[str, Tensor]]:
    """Random weights for the peers that have any, by what they are of; of networks without their classifiers."""
    with pytest.warns(UserWarning, match="random weights"):
        found = {
            name: dict(FeatureExtractor(name, weights=None, seed=3).network.state_dict())
            for name in ("squeezenet1_1", "alexnet", "vgg16")
        }
    generator = torch.Generator().manual_seed(4)
    found["dists"] = {name: torch.rand(1, 1475, 1, 1, generator=generator) for name in ("alpha", "beta")}
    found["lpips"] = {
        f"lin{i}.model.1.weight": torch.rand(1, channels, 1, 1, generator=generator) / channels
        for i, channels in enumerate((64, 192, 384, 256, 256))
    }
    return found
