"""MSE, PSNR and the correlation coefficient against numpy, scipy and scikit-image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import pearsonr
from torch import Tensor

from fmiqa.measures import MSE, PSNR, Correlation


@pytest.fixture
def maps() -> tuple[Tensor, Tensor]:
    noise = torch.randn(2, 1, 4, 13, 17, generator=torch.Generator().manual_seed(0))
    return (noise[0] + 0.3 * noise[1]).relu(), noise[0].relu()


def test_mse(maps: tuple[Tensor, Tensor], device: torch.device) -> None:
    test, reference = maps
    expected = ((test.double() - reference.double()).numpy() ** 2).mean((2, 3))
    values = MSE()(test.to(device), reference.to(device)).cpu().numpy()
    np.testing.assert_allclose(values, expected, rtol=1e-5)


def test_mse_and_psnr_against_scikit_image(maps: tuple[Tensor, Tensor]) -> None:
    peer = pytest.importorskip("skimage.metrics")
    test, reference = (side.double() for side in maps)
    for c in range(test.shape[1]):
        x, y = test[0, c].numpy(), reference[0, c].numpy()
        assert MSE()(test, reference)[0, c].item() == pytest.approx(peer.mean_squared_error(y, x))
        expected = peer.peak_signal_noise_ratio(y, x, data_range=y.max())
        assert PSNR(data_range="reference")(test, reference)[0, c].item() == pytest.approx(expected)


def test_psnr_in_closed_form(device: torch.device) -> None:
    reference = torch.zeros(1, 1, 8, 8, device=device)
    for error, limit, expected in ((0.1, 1.0, 20.0), (1.0, 255.0, 48.1308), (10.0, 1.0, -20.0), (1e-5, 1.0, 60.0)):
        assert PSNR(data_range=limit)(reference + error, reference).item() == pytest.approx(expected, abs=1e-3)
    assert PSNR(ceiling=100.0)(reference, reference).item() == pytest.approx(100.0)


def test_correlation(maps: tuple[Tensor, Tensor], device: torch.device) -> None:
    test, reference = maps
    for scale, offset in ((1.0, 0.0), (1e-20, 0.0), (1e15, 0.0), (1.0, 1000.0), (-2.0, -50.0)):
        x, y = (scale * test + offset).to(device), reference.to(device)
        values = Correlation()(x, y)[0].cpu()
        for c, value in enumerate(values):
            expected = pearsonr(x[0, c].cpu().double().flatten(), y[0, c].cpu().double().flatten()).statistic
            assert value.item() == pytest.approx(expected, abs=5e-6)  # seen: 3e-7


def test_correlation_of_constant_maps(maps: tuple[Tensor, Tensor], device: torch.device) -> None:
    reference = maps[1].to(device)
    flat = torch.full_like(reference, 0.1)  # whose mean is not 0.1 in float32
    assert torch.equal(Correlation()(flat, 0 * flat - 7.3), torch.ones(1, 4, device=device))
    assert torch.equal(Correlation()(flat, reference), torch.zeros(1, 4, device=device))
    assert torch.equal(Correlation()(reference, flat), torch.zeros(1, 4, device=device))
