"""The quick search of the logistic against the thorough one, and its weights against repeated points."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import fmiqa
from fmiqa.correlation.curves import best_curves
from fmiqa.correlation.logistic import STEEPNESS
from fmiqa.correlation.problems import Problems, weighted_pearson


def share(x: Tensor, y: Tensor, weights: Tensor | None = None, *, thorough: bool = False) -> Tensor:
    """(P,) R^2, NaN where there is no information."""
    rows = Problems.of(x, y, weights)
    found = best_curves(rows, "with_line", steepest=STEEPNESS, thorough=thorough).best().share[:, 0]
    return torch.where(rows.known, rows.r.square() + found, torch.nan)


def quick_share(x: Tensor, y: Tensor, weights: Tensor | None = None) -> Tensor:
    return share(x, y, weights)


def thorough_share(x: Tensor, y: Tensor, weights: Tensor | None = None) -> Tensor:
    return share(x, y, weights, thorough=True)


def problems(count: int = 24, points: int = 300, strength: float = 1.0) -> tuple[Tensor, Tensor]:
    """Scores as map scores are: bounded, saturating, noisy, some on tiny or shifted scales."""
    generator = torch.Generator().manual_seed(0)
    y = torch.rand(points, generator=generator, dtype=torch.float64) * 7
    slope = 0.3 + 2 * torch.rand(count, 1, generator=generator, dtype=torch.float64)
    centre = 7 * torch.rand(count, 1, generator=generator, dtype=torch.float64)
    noise = torch.randn(count, points, generator=generator, dtype=torch.float64)
    x = torch.sigmoid(slope * (y - centre) + strength * noise)
    x[::4] = 1e-6 * x[::4]
    x[1::4] = 1e3 + x[1::4]
    return x, y


def test_never_above_the_thorough_fit_and_hardly_below() -> None:
    x, y = problems()
    quick, best = quick_share(x, y[None]).sqrt(), fmiqa.plcc(x, y)
    # Both are local optima, and a thorough climb stops within 1e-6 of one.
    assert bool((quick <= best + 1e-6).all())
    assert float((best - quick).max()) < 5e-3  # another optimum, bent by a few of 300 noisy points
    assert float((best - quick).median()) < 1e-5


def test_the_thorough_share_is_that_of_the_reported_fit() -> None:
    x, y = problems()
    # The reported one is of the residuals of the curve that its parameters draw, rounded at an offset of 1e3.
    torch.testing.assert_close(thorough_share(x, y[None]).sqrt(), fmiqa.plcc(x, y), atol=1e-9, rtol=0)


def test_above_the_straight_line() -> None:
    x, y = problems()
    assert bool((quick_share(x, y[None]).sqrt() >= fmiqa.plcc(x, y, fit=None).abs() - 1e-12).all())


@pytest.mark.parametrize("function", [quick_share, thorough_share, weighted_pearson])
def test_weights_are_repetitions(function) -> None:
    x, y = problems(8, 120)
    counts = torch.arange(120) % 4
    images = torch.arange(120).repeat_interleave(counts)
    weighted = function(x, y[None], counts[None].double())
    # Only the order of the sums differs. float32 moves the quick search by 1e-7 a step, and a climb that has not come
    # to rest in its few steps carries that on.
    atol = 1e-4 if function is quick_share else 1e-6 if function is thorough_share else 1e-12
    torch.testing.assert_close(weighted, function(x[:, images], y[None, images]), atol=atol, rtol=0)


def test_rows_do_not_influence_each_other() -> None:
    x, y = problems(12, 200)
    x[3] = 0.25
    x[7, 5] = torch.nan
    found = quick_share(x, y[None])
    assert bool(found[[3, 7]].isnan().all())
    for row in (0, 4, 11):
        torch.testing.assert_close(found[row : row + 1], quick_share(x[row : row + 1], y[None]), atol=1e-10, rtol=0)


def test_same_on_device(device: torch.device) -> None:
    x, y = problems(8, 200)
    torch.testing.assert_close(
        quick_share(x.to(device), y[None].to(device)).cpu(), quick_share(x, y[None]), atol=1e-6, rtol=0
    )
