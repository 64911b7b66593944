"""Gradients of the measures: finite wherever the value is, and right at ordinary maps."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from piq_measures import piq_measures
from torch import Tensor

from fmiqa import SSIM
from fmiqa.measures import (
    GMS,
    GMSD,
    MEASURES,
    MSSSIM,
    PSNR,
    DeepSimSSIM,
    HistogramIntersection,
)

OWN: list[Any] = [
    *(kind() for name, kind in MEASURES.items() if name not in ("m-svd", "histogram", "piq")),
    SSIM(data_range="reference"),
    SSIM(data_range="pair"),
    SSIM(data_range="layer"),
    MSSSIM(data_range="pair"),
    PSNR(data_range="pair"),
    GMS(data_range="reference"),
    GMSD(data_range="pair"),
    DeepSimSSIM("lowest"),
]
CLASSICAL = piq_measures("VIF", "FSIM", "HaarPSI", "GMSD", "DSS", "SR-SIM")
SIDE = 44  # room for every measure here, and three scales of MS-SSIM's


def rand(seed: int, dtype: torch.dtype) -> Tensor:
    return torch.rand(1, 2, SIDE, SIDE, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def spot(dtype: torch.dtype) -> Tensor:
    maps = torch.zeros(1, 2, SIDE, SIDE, dtype=dtype)
    maps[..., 7, 9] = 1
    return maps


PAIRS: dict[str, Callable[[torch.dtype], tuple[Tensor, Tensor]]] = {
    "equal": lambda d: (rand(0, d), rand(0, d)),
    "equal, signed": lambda d: (rand(0, d) - 0.5, rand(0, d) - 0.5),
    "dead": lambda d: (0 * rand(0, d), 0 * rand(0, d)),
    "constant": lambda d: (torch.ones_like(rand(0, d)), torch.ones_like(rand(0, d))),
    "two levels": lambda d: (torch.ones_like(rand(0, d)), 2 * torch.ones_like(rand(0, d))),
    "dead test": lambda d: (0 * rand(0, d), rand(0, d)),
    "dead reference": lambda d: (rand(0, d), 0 * rand(0, d)),
    "constant test": lambda d: (torch.ones_like(rand(0, d)), rand(0, d)),
    "constant reference": lambda d: (rand(0, d), torch.ones_like(rand(0, d))),
    "opposed": lambda d: (1 - rand(0, d), rand(0, d)),
    "spot": lambda d: (spot(d), spot(d)),
    "spot lost": lambda d: (0 * spot(d), spot(d)),
    "binary": lambda d: ((rand(0, d) > 0.5).to(d), (rand(1, d) > 0.5).to(d)),
    "scaled": lambda d: (3 * rand(0, d), rand(0, d)),
    **{
        f"of size {size:g}": (lambda s: lambda d: (rand(0, d) * s, rand(1, d) * s))(size)
        for size in (1e-42, 1e-30, 1e-20, 1e-13, 1e-10, 1e-6, 1e6, 1e15)
    },
    **{
        f"constant, of size {size:g}": (lambda s: lambda d: (rand(0, d) * 0 + s, rand(0, d) * 0 + 3 * s))(size)
        for size in (1e-42, 1e-30, 1e-13, 1e-8, 1e15)
    },
}


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("measure", [*OWN, *CLASSICAL], ids=lambda measure: measure.name)
def test_the_gradient_is_finite_wherever_the_value_is(measure: Any, pair: str) -> None:
    for dtype in (torch.float32, torch.float64):
        test, reference = (side.requires_grad_() for side in PAIRS[pair](dtype))
        values = measure(test, reference)
        assert values.isfinite().all()
        for gradient in torch.autograd.grad(values.sum(), (test, reference)):
            assert gradient.isfinite().all()


@pytest.mark.parametrize("measure", OWN, ids=lambda measure: measure.name)
def test_gradients_at_ordinary_maps(measure: Any) -> None:
    generator = torch.Generator().manual_seed(3)
    test, reference = (
        torch.rand(1, 2, 7, 8, dtype=torch.float64, generator=generator).requires_grad_() for _ in range(2)
    )
    assert torch.autograd.gradcheck(measure, (test, reference))


@pytest.mark.parametrize("measure", OWN, ids=lambda measure: measure.name)
def test_second_derivatives_are_finite_at_ordinary_maps(measure: Any) -> None:
    generator = torch.Generator().manual_seed(3)
    test = torch.rand(1, 2, 7, 8, dtype=torch.float64, generator=generator).requires_grad_()
    reference = torch.rand(1, 2, 7, 8, dtype=torch.float64, generator=generator)
    (gradient,) = torch.autograd.grad(measure(test, reference).sum(), test, create_graph=True)
    if gradient.requires_grad:  # that of the pyramid's intersection is constant between kinks
        (second,) = torch.autograd.grad(gradient.square().sum(), test)
        assert second.isfinite().all()


@pytest.mark.parametrize("measure", OWN, ids=lambda measure: measure.name)
def test_maps_of_nan_have_a_value_of_nan(measure: Any) -> None:
    """Never the best or the worst value, which would hide them in a mean."""
    maps = rand(0, torch.float32)
    broken = maps.clone()
    broken[:, 0] = math.nan
    whole = measure.whole_layers
    for test, reference in ((broken, maps), (maps, broken)):
        values = measure(test, reference)
        assert values[:, 0].isnan().all()
        assert whole or values[:, 1].isfinite().all()


def test_histograms_say_that_they_have_no_gradient() -> None:
    maps = rand(0, torch.float32).requires_grad_()
    assert not HistogramIntersection()(maps, maps).requires_grad
