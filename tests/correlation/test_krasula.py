from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch
from scipy import stats

from fmiqa.correlation import krasula
from fmiqa.correlation.krasula import pair_analysis
from fmiqa.errors import InputError


def problem(images: int = 24, metrics: int = 3, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Scores (M, N) of falling quality and with ties, targets and standard errors (N,)."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.randn(images, dtype=torch.float64, generator=generator)
    noise = torch.randn(metrics, images, dtype=torch.float64, generator=generator)
    scores = ((targets + torch.arange(1, metrics + 1).unsqueeze(-1) * 0.4 * noise) * 8).round() / 8
    return scores, targets, 0.1 + 0.3 * torch.rand(images, dtype=torch.float64, generator=generator)


def sorted_pairs(scores: np.ndarray, targets: np.ndarray, errors: np.ndarray) -> tuple[list[float], list[float]]:
    """Better-minus-worse differences of different pairs, and differences of similar pairs, pair by pair."""
    different, similar = [], []
    for i, j in combinations(range(len(targets)), 2):
        z = (targets[i] - targets[j]) / np.sqrt(errors[i] ** 2 + errors[j] ** 2)
        if abs(z) > stats.norm.ppf(0.975):
            different.append((scores[i] - scores[j]) * np.sign(z))
        else:
            similar.append(scores[i] - scores[j])
    return different, similar


def test_figures_equal_mann_whitney_over_all_pairs() -> None:
    scores, targets, errors = problem()
    found = pair_analysis(scores, targets, errors)
    for m, row in enumerate(scores.numpy()):
        different, similar = map(np.array, sorted_pairs(row, targets.numpy(), errors.numpy()))
        assert (found.different, found.similar) == (len(different), len(similar))
        u = stats.mannwhitneyu(abs(different), abs(similar)).statistic
        # Counts of halves over a product of integers: exact but for the last division.
        assert found.auc_different[m].item() == pytest.approx(u / len(different) / len(similar), rel=1e-12)
        u = stats.mannwhitneyu(different, -different).statistic
        assert found.auc_better[m].item() == pytest.approx(u / len(different) ** 2, rel=1e-12)
        assert found.correct[m].item() == pytest.approx((different > 0).mean(), rel=1e-12)
        assert found.threshold[m].item() == pytest.approx(np.percentile(abs(similar), 95), rel=1e-12)


def delong(first: tuple[np.ndarray, np.ndarray], second: tuple[np.ndarray, np.ndarray]) -> float:
    """p-value from the kernel matrices of DeLong et al. (1988), all pairs of a positive and a negative."""
    kernels = [(p[:, None] > n[None]) + 0.5 * (p[:, None] == n[None]) for p, n in (first, second)]
    areas = [kernel.mean() for kernel in kernels]
    of_positives, of_negatives = (np.cov([kernel.mean(axis) for kernel in kernels]) for axis in (1, 0))
    covariance = of_positives / kernels[0].shape[0] + of_negatives / kernels[0].shape[1]
    variance = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    return 2 * stats.norm.sf(abs(areas[0] - areas[1]) / np.sqrt(variance))


def test_p_values_equal_delong_by_kernel_matrices() -> None:
    scores, targets, errors = problem()
    found = pair_analysis(scores, targets, errors)
    pairs = [sorted_pairs(row, targets.numpy(), errors.numpy()) for row in scores.numpy()]
    pairs = [(np.array(different), np.array(similar)) for different, similar in pairs]
    for a, b in combinations(range(3), 2):
        expected = delong(*((abs(different), abs(similar)) for different, similar in (pairs[a], pairs[b])))
        assert found.p_different[a, b].item() == pytest.approx(expected, rel=1e-9)
        assert found.p_different[b, a] == found.p_different[a, b]
        expected = delong(*((different, -different) for different, _ in (pairs[a], pairs[b])))
        assert found.p_better[a, b].item() == pytest.approx(expected, rel=1e-9)
    assert found.p_better.diagonal().eq(1).all()


def test_perfect_opposite_and_random_metrics() -> None:
    _, targets, errors = problem(images=200)
    chance = torch.randn(200, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found = pair_analysis(torch.stack((targets, -targets, chance)), targets, errors)
    assert found.auc_better[:2].tolist() == [1, 0]
    assert found.correct[:2].tolist() == [1, 0]
    assert found.auc_different[0] == found.auc_different[1] > 0.9
    # Chance: 200 independent images give an area's standard error of some .03.
    assert found.auc_better[2].item() == pytest.approx(0.5, abs=0.12)
    assert found.auc_different[2].item() == pytest.approx(0.5, abs=0.12)


def test_only_differences_within_a_metric_count() -> None:
    scores, targets, errors = problem()
    found, scaled = pair_analysis(scores, targets, errors), pair_analysis(4 * scores + 8, targets, errors)
    assert torch.equal(found.auc_different, scaled.auc_different)
    assert torch.equal(found.auc_better, scaled.auc_better)
    torch.testing.assert_close(scaled.threshold, 4 * found.threshold)


def test_portions_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = problem()
    whole = pair_analysis(*inputs)
    monkeypatch.setattr(krasula, "_PORTION", 150)
    parts = pair_analysis(*inputs)
    for one, other in zip(whole, parts, strict=True):
        assert torch.as_tensor(one).equal(torch.as_tensor(other))


def test_one_metric_dtype_and_device(device: torch.device) -> None:
    scores, targets, errors = (part.float().to(device) for part in problem())
    several, single = pair_analysis(scores, targets, errors), pair_analysis(scores[1], targets, errors)
    assert single.auc_better.shape == single.p_better.shape == ()
    assert single.auc_better.dtype == torch.float32
    assert single.auc_better.device == scores.device
    assert single.auc_different == several.auc_different[1]
    assert single.threshold == several.threshold[1]


def test_nan_scores_leave_other_metrics_alone() -> None:
    scores, targets, errors = problem()
    broken = scores.clone()
    broken[1, 3] = torch.nan
    whole, found = pair_analysis(scores, targets, errors), pair_analysis(broken, targets, errors)
    kept = torch.tensor([0, 2])
    for name in ("auc_different", "auc_better", "correct", "threshold"):
        assert getattr(found, name)[1].isnan()
        assert torch.equal(getattr(found, name)[kept], getattr(whole, name)[kept])
    assert found.p_better[1].isnan().all()
    assert found.p_better[0, 2] == whole.p_better[0, 2]


def test_kinds_of_pairs_that_do_not_occur() -> None:
    scores, targets, errors = problem()
    exact = pair_analysis(scores, targets, torch.zeros_like(errors))
    assert exact.similar == 0
    assert exact.auc_different.isnan().all()
    assert exact.threshold.isnan().all()
    assert exact.auc_better.isfinite().all()
    vague = pair_analysis(scores, targets, errors + 100)
    assert vague.different == 0
    assert vague.auc_better.isnan().all()
    assert vague.correct.isnan().all()
    # Equal means are similar however exact they are.
    assert pair_analysis(scores, torch.ones_like(targets), torch.zeros_like(errors)).different == 0


def test_level_moves_pairs() -> None:
    scores, targets, errors = problem()
    counts = [pair_analysis(scores, targets, errors, level=level).different for level in (0.5, 0.95, 0.999)]
    assert counts[0] > counts[1] > counts[2]


def test_wrong_input_is_refused() -> None:
    scores, targets, errors = problem()
    bad = targets.clone()
    bad[0] = torch.nan
    with pytest.raises(InputError, match="targets hold NaN"):
        pair_analysis(scores, bad, errors)
    with pytest.raises(InputError, match="standard_errors"):
        pair_analysis(scores, targets, -errors)
    with pytest.raises(InputError, match=r"\(3, 24\), \(23,\)"):
        pair_analysis(scores, targets[1:], errors)
    with pytest.raises(InputError, match="level"):
        pair_analysis(scores, targets, errors, level=95)
