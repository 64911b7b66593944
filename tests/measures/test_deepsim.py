"""DeepSim's SSIM against a loop over padded windows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from fmiqa.measures import DeepSimSSIM


def direct(test: Tensor, reference: Tensor) -> np.ndarray:
    """(C, H, W) twice -> (C, H, W) of float64: zeros around each map, the window on every position."""
    side = np.arange(11) - 5
    window = np.exp(-(side[:, None] ** 2 + side[None, :] ** 2) / (2 * 1.5**2))
    window /= window.sum()
    found = []
    for x, y in zip(test.cpu().double().numpy(), reference.cpu().double().numpy(), strict=True):
        limit = max(np.abs(x).max(), np.abs(y).max(), 1.0)
        c1, c2 = (0.01 * limit) ** 2, (0.03 * limit) ** 2
        similarity = np.empty_like(x)
        a, b = np.pad(x, 5), np.pad(y, 5)
        for i in range(x.shape[0]):
            for j in range(x.shape[1]):
                p, q = a[i : i + 11, j : j + 11], b[i : i + 11, j : j + 11]
                m, n = (window * p).sum(), (window * q).sum()
                u, v, w = ((window * r).sum() for r in ((p - m) ** 2, (q - n) ** 2, (p - m) * (q - n)))
                similarity[i, j] = (2 * m * n + c1) / (m * m + n * n + c1) * (2 * w + c2) / (u + v + c2)
        found.append(similarity)
    return np.array(found)


@pytest.mark.parametrize(("height", "width"), [(14, 17), (5, 6), (1, 1)])
@pytest.mark.parametrize(("scale", "level"), [(0.1, 0.0), (10.0, 0.0), (1.0, 100.0)])
def test_against_a_loop(device: torch.device, height: int, width: int, scale: float, level: float) -> None:
    noise = torch.randn(2, 2, height, width, generator=torch.Generator().manual_seed(0)).to(device)
    test, reference = (scale * side + level for side in (noise[0] + 0.4 * noise[1], noise[0]))
    expected = direct(test, reference)
    # Far from zero, at mean 100 and deviation 1, float32's moments are good to 1e-4 of a score; seen: 3e-5.
    tolerance = 1e-4 if level else 2e-6
    values = DeepSimSSIM()(test[None], reference[None])[0].cpu().numpy()
    np.testing.assert_allclose(values, expected.mean((1, 2)), rtol=0, atol=tolerance)
    count = -(-height * width // 10)
    lowest = np.sort(expected.reshape(2, -1))[:, :count].mean(1)
    values = DeepSimSSIM("lowest")(test[None], reference[None])[0].cpu().numpy()
    np.testing.assert_allclose(values, lowest, rtol=0, atol=tolerance)


def test_all_of_the_map_is_its_mean() -> None:
    test, reference = torch.rand(2, 1, 3, 9, 9, generator=torch.Generator().manual_seed(1))
    whole = DeepSimSSIM("lowest", fraction=1.0)(test, reference)
    torch.testing.assert_close(whole, DeepSimSSIM()(test, reference), rtol=0, atol=1e-6)
