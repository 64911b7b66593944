"""Gradient-magnitude similarity against scipy.ndimage, piq and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

from fmiqa.measures import GMS, GMSD


@pytest.fixture
def maps() -> tuple[Tensor, Tensor]:
    noise = torch.randn(2, 1, 4, 19, 23, generator=torch.Generator().manual_seed(0))
    return (noise[0] + 0.3 * noise[1]).relu(), noise[0].relu()


def direct(test: Tensor, reference: Tensor, limit: float) -> np.ndarray:
    """(C, H, W) twice -> (C, H - 2, W - 2) in float64, by scipy's Prewitt filters."""
    found = []
    for pair in zip(test.cpu().double().numpy(), reference.cpu().double().numpy(), strict=True):
        a, b = (np.hypot(ndimage.prewitt(m, 0), ndimage.prewitt(m, 1))[1:-1, 1:-1] / 3 for m in pair)
        c = 0.0026 * limit**2
        found.append((2 * a * b + c) / (a**2 + b**2 + c))
    return np.array(found)


@pytest.mark.parametrize(("limit", "offset"), [(1.0, 0.0), (255.0, 0.0), (1.0, 1000.0)])
def test_against_scipy(maps: tuple[Tensor, Tensor], device: torch.device, limit: float, offset: float) -> None:
    test, reference = (side.to(device) + offset for side in maps)
    expected = direct(test[0], reference[0], limit)
    similarity = GMS(data_range=limit).local(test, reference)[0].cpu().numpy()
    np.testing.assert_allclose(similarity, expected, atol=2e-6)
    values = GMS(data_range=limit)(test, reference)[0].cpu().numpy()
    np.testing.assert_allclose(values, expected.mean((1, 2)), atol=1e-6)
    deviations = GMSD(data_range=limit)(test, reference)[0].cpu().numpy()
    np.testing.assert_allclose(deviations, expected.std((1, 2)), atol=1e-6)


def test_deviation_of_images_against_piq(device: torch.device) -> None:
    peer = pytest.importorskip("piq")
    noise = torch.rand(2, 3, 1, 10, 12, generator=torch.Generator().manual_seed(1)).to(device)
    x, y = (F.interpolate(side, (240, 320), mode="bicubic").clamp(0, 1).double() for side in noise)
    # piq halves images and pads with zeros; so do we here, once by hand and once with a rim that both see.
    small = [F.pad(F.avg_pool2d(side, 2), (1, 1, 1, 1)) for side in (x, y)]
    expected = peer.gmsd(x, y, data_range=1.0, reduction="none", t=0.0026)
    torch.testing.assert_close(GMSD()(*small)[:, 0], expected, rtol=0, atol=1e-6)  # piq's filter is in float32


def test_ramps_in_closed_form() -> None:
    ramp = torch.arange(9.0).expand(1, 1, 7, 9)  # a gradient of 2 everywhere: Prewitt's differences span two positions
    a, b, c = 2.0, 1.0, 0.0026
    expected = (2 * a * b + c) / (a**2 + b**2 + c)
    assert GMS()(ramp, ramp / 2).item() == pytest.approx(expected, abs=1e-6)
    assert GMS()(ramp, ramp.flip(-1)).item() == 1  # magnitudes have no direction
    assert GMSD()(ramp, ramp / 2).item() == pytest.approx(0, abs=1e-6)
