"""Histogram intersection over a spatial pyramid against a loop."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fmiqa import InputError
from fmiqa.measures import PyramidIntersection, get_measure


@pytest.mark.parametrize("levels", [1, 2, 3])
def test_against_a_loop(device: torch.device, levels: int) -> None:
    noise = torch.randn(2, 5, 12, 20, generator=torch.Generator().manual_seed(0))
    noise[:, :, :3, :5] = -1  # a region that is empty in both,
    noise[0, :, 9:, 15:] = -1  # and one in the test maps alone
    x, y = noise.clamp(min=0).double().numpy()
    values = []
    for k in range(levels):
        h, w = 12 // 2**k, 20 // 2**k
        for i in range(2**k):
            for j in range(2**k):
                a, b = (m[:, i * h : (i + 1) * h, j * w : (j + 1) * w].sum((1, 2)) for m in (x, y))
                if a.any() and b.any():
                    values.append((np.minimum(a / a.sum(), b / b.sum()).sum(), k))
                else:
                    values.append((float(not a.any() and not b.any()), k))
    expected = np.mean([np.mean([v for v, level in values if level == k]) for k in range(levels)])
    found = PyramidIntersection(levels)(noise[:1].to(device), noise[1:].to(device))
    assert found.shape == (1, 5)
    np.testing.assert_allclose(found.cpu().numpy(), expected, atol=1e-6)


def test_equal_layers_are_alike_and_dead_ones_have_a_value(device: torch.device) -> None:
    measure = PyramidIntersection()
    maps = torch.rand(2, 3, 7, 9, device=device)
    for layer in (maps, 0 * maps, -maps, 1e-20 * maps):
        assert torch.equal(measure(layer, layer.clone()), torch.ones(2, 3, device=device))
    assert torch.equal(measure(0 * maps, maps[:1]), torch.zeros(2, 3, device=device))


def test_more_noise_is_worse_and_one_reference_serves_many() -> None:
    generator = torch.Generator().manual_seed(1)
    reference, noise = torch.rand(2, 1, 6, 16, 16, generator=generator)
    test = torch.cat([(reference + strength * (noise - 0.5)).relu() for strength in (0.1, 0.4, 1.0)])
    values = PyramidIntersection()(test, reference)
    assert bool((values.diff(dim=0) < 0).all())
    torch.testing.assert_close(values, PyramidIntersection()(test, reference.expand_as(test)), rtol=0, atol=1e-6)


def test_gradients() -> None:
    generator = torch.Generator().manual_seed(2)
    test, reference = (torch.rand(1, 3, 5, 6, dtype=torch.float64, generator=generator) for _ in range(2))
    assert torch.autograd.gradcheck(PyramidIntersection(), (test.requires_grad_(), reference.requires_grad_()))


def test_options_and_errors() -> None:
    measure = PyramidIntersection(levels=2)
    assert get_measure(measure.options()) == measure
    assert measure.whole_layers
    with pytest.raises(InputError, match="levels is a whole number from 1"):
        PyramidIntersection(0)
    with pytest.raises(InputError, match="float maps"):
        measure(torch.rand(3, 4, 4), torch.rand(3, 4, 4))
    with pytest.raises(InputError, match="maps of one shape"):
        measure(torch.rand(1, 3, 4, 4), torch.rand(1, 3, 4, 5))
