"""Histogram intersection against numpy's histograms."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fmiqa.measures import HistogramIntersection


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("data_range", [0.75, "reference", "pair", "layer"])
@pytest.mark.parametrize("bins", [2, 10, 64])
def test_against_numpy(device: torch.device, data_range: float | str, bins: int, signed: bool) -> None:
    noise = torch.randn(2, 4, 12, 15, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    noise = noise if signed else noise.relu()
    test, reference = 1.5 * noise[0] + 0.1, noise[1]
    measure = HistogramIntersection(data_range=data_range, bins=bins)  # type: ignore[arg-type]
    values = measure(test[None].to(device), reference[None].to(device))[0].tolist()
    for c, value in enumerate(values):
        x, y = test[c].numpy(), reference[c].numpy()
        limits = {"reference": abs(y).max(), "pair": max(abs(x).max(), abs(y).max()), "layer": reference.abs().max()}
        limit = float(limits.get(data_range, data_range))  # type: ignore[call-overload]
        low = -limit if signed else 0.0
        a, b = (np.histogram(np.clip(m, low, limit), bins, (low, limit))[0] for m in (x, y))
        assert value == pytest.approx(np.minimum(a, b).sum() / x.size)


def test_places_do_not_matter() -> None:
    maps = torch.rand(1, 2, 8, 8)
    assert torch.equal(HistogramIntersection()(maps.flip(-1, -2), maps), torch.ones(1, 2))
    assert torch.equal(HistogramIntersection()(maps + 10, maps * 0), torch.zeros(1, 2))
