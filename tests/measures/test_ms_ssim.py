"""Multi-scale SSIM against pytorch-msssim, SSIM and closed forms."""

from __future__ import annotations

from importlib import import_module

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from fmiqa.measures import MSSSIM, SSIM

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)


def textured(height: int, width: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    reference = F.interpolate(torch.rand(2, 3, 11, 12, generator=generator), (height, width), mode="bilinear")
    return reference + 0.1 * torch.randn(reference.shape, generator=generator), reference


@pytest.mark.parametrize(("height", "width", "scales"), [(176, 192, 5), (88, 96, 4), (48, 96, 3), (24, 28, 2)])
def test_against_pytorch_msssim(device: torch.device, height: int, width: int, scales: int) -> None:
    peer = pytest.importorskip("pytorch_msssim")
    parts = import_module("pytorch_msssim.ssim")
    test, reference = (side.to(device) for side in textured(height, width))
    x, y = (side.double().flatten(0, 1)[:, None] for side in (test, reference))
    total = sum(WEIGHTS[:scales])
    weights = [w / total for w in WEIGHTS[:scales]]
    # The peer has no way to fewer scales on small images but its parts.
    taps = torch.exp(-((torch.arange(11, dtype=torch.float64) - 5) ** 2) / (2 * 1.5**2))  # the peer's are float32
    window = (taps / taps.sum()).expand(1, 1, 1, 11).to(x)
    expected = torch.ones(6, dtype=torch.float64, device=device)
    for i, weight in enumerate(weights):
        similarity, contrast = (v[:, 0] for v in parts._ssim(x, y, data_range=1.0, win=window))
        expected = expected * (similarity if i == scales - 1 else contrast).relu() ** weight
        x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
    assert MSSSIM().scales(height, width) == scales
    values = MSSSIM()(test.double(), reference.double()).flatten()
    torch.testing.assert_close(values, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(MSSSIM()(test, reference).double().flatten(), expected, rtol=0, atol=5e-6)
    if scales == 5:
        options = {"data_range": 1.0, "size_average": False, "weights": weights, "win": window.expand(3, 1, 1, 11)}
        whole = peer.ms_ssim(test.double(), reference.double(), **options)
        torch.testing.assert_close(values.view(2, 3).mean(1), whole, rtol=0, atol=1e-7)  # its weights are float32


@pytest.mark.parametrize(("height", "width"), [(21, 30), (11, 11), (7, 9), (3, 3)])
def test_maps_with_room_for_one_scale_have_their_ssim(height: int, width: int) -> None:
    test, reference = textured(height, width)
    assert MSSSIM().scales(height, width) == 1
    torch.testing.assert_close(MSSSIM()(test, reference), SSIM()(test, reference).clamp(min=0), rtol=0, atol=1e-6)


def test_scales_of_alexnet() -> None:
    sizes = [(95, 127), (47, 63), (23, 31), (23, 31), (23, 31)]  # of a 512x384 image
    assert [MSSSIM().scales(*size) for size in sizes] == [4, 3, 2, 2, 2]
    assert MSSSIM().scales(176, 176) == 5
    assert MSSSIM().scales(175, 1000) == 4


def test_opposed_structures_count_as_nothing() -> None:
    _, reference = textured(48, 48)
    mean = reference.mean((2, 3), keepdim=True)
    assert torch.equal(MSSSIM()(2 * mean - reference, reference), torch.zeros(2, 3))


@pytest.mark.parametrize("level", [10.0, 1000.0])
def test_maps_far_from_zero(device: torch.device, level: float) -> None:
    test, reference = ((side + level).to(device) for side in textured(48, 52))
    exact = MSSSIM()(test.double(), reference.double())
    torch.testing.assert_close(MSSSIM()(test, reference).double(), exact, rtol=0, atol=5e-6)  # seen: 1e-6
