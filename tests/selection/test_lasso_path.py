"""Non-negative lasso against its optimality conditions and scipy."""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import nnls

from fmiqa.selection.lasso import nonnegative_path


def problem() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(80, 12, generator=generator, dtype=torch.float64)
    x[:, 5] = 0.9 * x[:, 4] + 0.1 * x[:, 5]  # two nearly equal columns
    x[:, 11] = 0.3  # a dead one
    y = x[:, 0] + 2 * x[:, 4] - x[:, 7] + 0.1 * torch.randn(80, generator=generator, dtype=torch.float64)
    counts = torch.ones(2, 80, dtype=torch.float64)
    counts[1, 60:] = 0
    return x, y, counts


def test_without_penalty_equals_nonnegative_least_squares() -> None:
    x, y, counts = problem()
    found = nonnegative_path(x, y, counts, [0.1, 0.01, 0.0], sweeps=5000, tolerance=1e-10)
    for b, rows in enumerate((slice(None), slice(0, 60))):
        centred = (x[rows] - x[rows].mean(0)).numpy()
        expected, _ = nnls(centred, (y[rows] - y[rows].mean()).numpy())
        # The dead column is rounding to nnls; here it has no weight.
        np.testing.assert_allclose(found.weights[b, -1, :11].numpy(), expected[:11], atol=1e-6)
        assert found.weights[b, -1, 11] == 0


def test_optimality_conditions_hold_under_penalty() -> None:
    x, y, counts = problem()
    strength = 0.05
    found = nonnegative_path(x, y, counts, [strength], sweeps=5000, tolerance=1e-10)
    weights, intercept = found.weights[0, 0], found.intercepts[0, 0]
    scale = torch.where(x.std(0, correction=0) > 1e-7, x.std(0, correction=0), 1.0)
    residual = (y - intercept - x @ weights) / y.std(correction=0)
    pull = ((x - x.mean(0)) / scale * residual[:, None]).mean(0)
    chosen = weights > 0
    assert bool(chosen.any())
    torch.testing.assert_close(pull[chosen], torch.full_like(pull[chosen], strength), atol=1e-8, rtol=0)
    assert bool((pull[~chosen] <= strength + 1e-8).all())
    assert not chosen[11]


def test_problems_with_targets_of_their_own_are_those_solved_alone() -> None:
    x, y, counts = problem()
    targets = torch.stack([y, y.square() + x[:, 3]])
    strengths = [0.2, 0.05]
    found = nonnegative_path(x, targets, counts, strengths, sweeps=5000, tolerance=1e-10)
    for b in range(2):
        alone = nonnegative_path(x, targets[b], counts[b : b + 1], strengths, sweeps=5000, tolerance=1e-10)
        # Each stops within 1e-10 of a minimum in standardised weights; two nearly equal columns make it flat.
        torch.testing.assert_close(found.weights[b], alone.weights[0], atol=1e-7, rtol=0)
        torch.testing.assert_close(found.intercepts[b], alone.intercepts[0], atol=1e-7, rtol=0)
    shared = nonnegative_path(x, y.expand(2, -1), counts, strengths)
    assert torch.equal(shared.weights, nonnegative_path(x, y, counts, strengths).weights)


def test_how_much_images_count_in_all_does_not_matter() -> None:
    x, y, counts = problem()
    found = nonnegative_path(x, y, counts / 7, [0.1])
    # Counts are divided by their sum, in float64.
    torch.testing.assert_close(found.weights, nonnegative_path(x, y, counts, [0.1]).weights, atol=1e-9, rtol=0)
