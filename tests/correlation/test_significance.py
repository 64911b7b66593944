from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats

from fmiqa.correlation.significance import (
    holm,
    meng_test,
    residual_f_test,
    williams_test,
    zou_interval,
)
from fmiqa.errors import InputError

# Meng's z for n = 50 and r_ab = 0, .1, ..., .8, as printed by K. May and J. B. Hittner, A note on statistics
# for comparing dependent correlations, Psychological Reports 80, 1997.
MAY_HITTNER = {
    (0.5, 0.2): [1.62, 1.70, 1.80, 1.91, 2.06, 2.24, 2.50, 2.87, 3.50],
    (0.7, 0.4): [2.03, 2.10, 2.20, 2.32, 2.47, 2.66, 2.94, 3.35, 4.05],
}


def tensors(*values: float) -> list[torch.Tensor]:
    return [torch.tensor(value, dtype=torch.float64) for value in values]


def possible_correlations() -> torch.Tensor:
    """(3, 200) r_ay, r_by, r_ab of three random variables on 8 points each."""
    variables = torch.randn(200, 3, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    variables[:, 1] += variables[:, 0]
    matrices = torch.stack([torch.corrcoef(v) for v in variables])
    return torch.stack((matrices[:, 0, 2], matrices[:, 1, 2], matrices[:, 0, 1]))


def normal_samples(trials: int, n: int, ab: float, ay: float, by: float) -> torch.Tensor:
    """(3, trials) sample correlations r_ay, r_by, r_ab of n Gaussian points."""
    covariance = torch.tensor([[1, ab, ay], [ab, 1, by], [ay, by, 1]], dtype=torch.float64)
    noise = torch.randn(trials, 3, n, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    centred = torch.linalg.cholesky(covariance) @ noise
    centred = centred - centred.mean(-1, keepdim=True)
    unit = centred / centred.norm(dim=-1, keepdim=True)
    r = unit @ unit.mT
    return torch.stack((r[:, 0, 2], r[:, 1, 2], r[:, 0, 1]))


def test_williams_published_figures() -> None:
    """N. C. Silver, J. B. Hittner, M. May, A Fortran 77 program for comparing dependent correlations, 2006."""
    test = williams_test(*tensors(0.3, 0.4, 0.5), 100)
    assert test.statistic.item() == pytest.approx(-1.0767, abs=5e-5)  # as many digits as are printed
    assert test.p_value.item() == pytest.approx(0.2843, abs=5e-5)


def test_meng_published_figures() -> None:
    """The example of Meng, Rosenthal and Rubin (1992), and Silver, Hittner and May's (2006)."""
    test = meng_test(*tensors(0.63, -0.03, -0.19), 15)
    assert test.statistic.item() == pytest.approx(1.68, abs=5e-3)
    assert test.p_value.item() / 2 == pytest.approx(0.047, abs=5e-4)
    test = meng_test(*tensors(0.3, 0.4, 0.5), 100)
    assert test.statistic.item() == pytest.approx(-1.0707, abs=5e-5)
    assert test.p_value.item() == pytest.approx(0.2843, abs=5e-5)


@pytest.mark.parametrize("pair", MAY_HITTNER)
def test_meng_published_table(pair: tuple[float, float]) -> None:
    between = torch.arange(9, dtype=torch.float64) / 10
    z = meng_test(torch.tensor(pair[0]).double(), torch.tensor(pair[1]).double(), between, 50).statistic
    # Two printed digits; for r_ab = .5 the table has 2.24 where 2.2451 is exact.
    assert z.numpy() == pytest.approx(MAY_HITTNER[pair], abs=5.2e-3)


def test_zou_published_example() -> None:
    """Zou (2007), overlapping correlations of 66 persons."""
    low, high = zou_interval(*tensors(0.396, 0.179, 0.088), 66)
    assert low.item() == pytest.approx(-0.093, abs=5e-4)
    assert high.item() == pytest.approx(0.517, abs=5e-4)


def test_williams_equals_the_determinant_formula() -> None:
    n = 37
    r = possible_correlations()
    expected = []
    for ay, by, ab in r.T.numpy():
        determinant = np.linalg.det([[1, ay, by], [ay, 1, ab], [by, ab, 1]])
        below = 2 * (n - 1) / (n - 3) * determinant + (ay + by) ** 2 / 4 * (1 - ab) ** 3
        expected.append((ay - by) * np.sqrt((n - 1) * (1 + ab) / below))
    test = williams_test(*r, n)
    # Both take a determinant near 0 as a difference of numbers near 1: some digits of float64 are lost.
    assert test.statistic.numpy() == pytest.approx(np.array(expected), rel=1e-9)
    assert test.p_value.numpy() == pytest.approx(2 * stats.t.sf(np.abs(expected), n - 3), rel=1e-8)


def test_williams_tail_is_the_area_under_students_density() -> None:
    """A far tail by integration of the density, which knows nothing of the special functions."""

    def density(x: float) -> float:
        return (1 + x**2 / 27) ** -14

    test = williams_test(*tensors(0.9, 0.8, 0.6), 30)
    tail = integrate.quad(density, test.statistic.item(), np.inf)[0] / integrate.quad(density, -np.inf, np.inf)[0]
    assert test.p_value.item() == pytest.approx(2 * tail, rel=1e-6)  # what the integration promises


def test_williams_meng_and_zou_keep_their_level() -> None:
    """10000 trials of 60 Gaussian points with equal correlations of .6: rates of .0539, .0539 and .0551 were seen."""
    trials = 10000
    r = normal_samples(trials, 60, 0.5, 0.6, 0.6)
    low, high = zou_interval(*r, 60)
    margin = 4 * (0.05 * 0.95 / trials) ** 0.5  # four standard errors of a rate of .05
    assert (williams_test(*r, 60).p_value < 0.05).double().mean().item() == pytest.approx(0.05, abs=margin)
    # These two are approximations for large n.
    assert (meng_test(*r, 60).p_value < 0.05).double().mean().item() == pytest.approx(0.05, abs=1.3 * margin)
    assert ((low > 0) | (high < 0)).double().mean().item() == pytest.approx(0.05, abs=1.3 * margin)


def test_zou_covers_a_true_difference() -> None:
    """10000 trials of 60 Gaussian points with correlations .7 and .4."""
    low, high = zou_interval(*normal_samples(10000, 60, 0.3, 0.7, 0.4), 60, level=0.9)
    covered = ((low < 0.3) & (high > 0.3)).double().mean().item()
    assert covered == pytest.approx(0.9, abs=0.015)  # 4 standard errors are .012, and it is an approximation


def test_tests_see_a_true_difference() -> None:
    r = normal_samples(1000, 60, 0.3, 0.8, 0.4)
    assert (williams_test(*r, 60).p_value < 0.05).double().mean() > 0.95
    assert (meng_test(*r, 60).p_value < 0.05).double().mean() > 0.95


@pytest.mark.parametrize("r", [0.0, 0.5, -0.9, 1.0])
def test_a_metric_equals_itself(r: float) -> None:
    one = torch.tensor(r, dtype=torch.float64)
    for test in (williams_test(one, one, torch.tensor(1.0), 50), meng_test(one, one, torch.tensor(1.0), 50)):
        assert test.statistic.item() == 0
        assert test.p_value.item() == 1
    low, high = zou_interval(one, one, torch.tensor(1.0), 50)
    # Not exactly 0: each correlation's own interval is lopsided.
    assert low.item() == pytest.approx(0, abs=0.08)
    assert high.item() == pytest.approx(0, abs=0.08)
    assert low <= 0 <= high


def test_rescaled_metric_equals_the_metric() -> None:
    """The same scores in other units: correlations differ by rounding only, and must not be told apart."""
    x, y = torch.randn(2, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    r = torch.corrcoef(torch.stack((x, 3 * x + 0.1, y)))
    assert williams_test(r[0, 2], r[1, 2], r[0, 1], 40).p_value.item() > 0.99
    assert meng_test(r[0, 2], r[1, 2], r[0, 1], 40).p_value.item() > 0.99


def test_a_perfect_metric_beats_a_poor_one() -> None:
    r = tensors(1.0, 0.3, 0.3)
    for test in (williams_test(*r, 50), meng_test(*r, 50)):
        assert test.statistic.item() > 10
        assert test.p_value.item() < 1e-10


@given(st.integers(0, 199), st.integers(4, 5000))
def test_swapping_the_metrics_changes_the_sign(number: int, n: int) -> None:
    a, b, ab = possible_correlations()[:, number]
    for function in (williams_test, meng_test):
        one, other = function(a, b, ab, n), function(b, a, ab, n)
        assert one.statistic.item() == pytest.approx(-other.statistic.item(), rel=1e-12)
        assert one.p_value.item() == pytest.approx(other.p_value.item(), rel=1e-9)
        assert 0 <= one.p_value.item() <= 1
    (low, high), (other_low, other_high) = zou_interval(a, b, ab, n), zou_interval(b, a, ab, n)
    assert low <= a - b <= high
    assert (low.item(), high.item()) == pytest.approx((-other_high.item(), -other_low.item()), abs=1e-12)


def test_batches_broadcast_and_keep_dtype_and_device(device: torch.device) -> None:
    a = torch.tensor([[0.9], [0.8]], device=device)
    b = torch.tensor([0.7, 0.6, torch.nan], device=device)
    ab = torch.tensor(0.65, device=device)
    n = torch.tensor([50, 60, 70], device=device)
    for result in (williams_test(a, b, ab, n), meng_test(a, b, ab, n), zou_interval(a, b, ab, n)):
        for part in result:
            assert part.shape == (2, 3)
            assert part.dtype == torch.float32
            assert part.device == a.device
            assert part[:, :2].isfinite().all()
            assert part[:, 2].isnan().all()
    single = williams_test(a[1, 0], b[1], ab, 60)
    assert williams_test(a, b, ab, n).statistic[1, 1] == single.statistic


@pytest.mark.parametrize("function", [williams_test, meng_test, zou_interval])
def test_impossible_correlations_are_refused(function) -> None:
    with pytest.raises(InputError, match=r"n = 3"):
        function(*tensors(0.5, 0.4, 0.3), 3)
    with pytest.raises(InputError, match=r"r_ay = 1\.2"):
        function(*tensors(1.2, 0.4, 0.3), 30)
    with pytest.raises(InputError, match=r"r_ab = -0\.9"):  # both near y, but opposed to each other
        function(*tensors(0.9, 0.9, -0.9), 30)
    with pytest.raises(InputError, match="broadcast"):
        function(torch.zeros(2), torch.zeros(3), torch.zeros(1), 30)


@pytest.mark.parametrize("level", [0, 1, 95, -0.5])
def test_levels_outside_0_to_1_are_refused(level: float) -> None:
    with pytest.raises(InputError, match="level"):
        zou_interval(*tensors(0.5, 0.4, 0.3), 30, level=level)


def test_f_test_equals_scipy() -> None:
    residuals = torch.randn(2, 20, 35, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    residuals[0] *= torch.linspace(0.3, 3, 20).unsqueeze(-1)
    test = residual_f_test(*residuals)
    ratio = residuals[0].numpy().var(-1, ddof=1) / residuals[1].numpy().var(-1, ddof=1)
    expected = 2 * np.minimum(stats.f.cdf(ratio, 34, 34), stats.f.sf(ratio, 34, 34))
    assert test.statistic.numpy() == pytest.approx(ratio, rel=1e-12)
    assert test.p_value.numpy() == pytest.approx(expected, rel=1e-9)


def test_f_test_keeps_its_level_and_is_symmetric() -> None:
    """10000 trials of 25 Gaussian residuals each, of equal variance."""
    residuals = torch.randn(2, 10000, 25, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    test, swapped = residual_f_test(*residuals), residual_f_test(residuals[1], residuals[0])
    assert (test.p_value < 0.05).double().mean().item() == pytest.approx(0.05, abs=0.009)  # 4 standard errors
    torch.testing.assert_close(test.p_value, swapped.p_value)
    torch.testing.assert_close(test.statistic, 1 / swapped.statistic)


def test_f_test_edges() -> None:
    a, b = torch.tensor([1.0, -1.0, 0.5]), torch.tensor([2.0, torch.nan, 0.0])
    assert residual_f_test(a, b).p_value.isnan()
    assert residual_f_test(a, a).p_value == 1
    assert residual_f_test(a, torch.zeros(3)).p_value == 0
    for first, second in ((a, b[:2]), (a[:1], b[:1]), (a[0], b[0]), (a.expand(2, 3), b.expand(4, 3))):
        with pytest.raises(InputError, match="residual_f_test"):
            residual_f_test(first, second)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_equals_the_step_down_procedure(p_values: list[float]) -> None:
    """By definition: at level a, reject from the smallest on while p <= a / (number left)."""
    corrected = holm(torch.tensor(p_values, dtype=torch.float64)).tolist()
    for level in (0.01, 0.05, 0.3):
        rejected, left = set(), len(p_values)
        for i in sorted(range(len(p_values)), key=p_values.__getitem__):
            if p_values[i] * left > level:
                break
            rejected.add(i)
            left -= 1
        assert {i for i, p in enumerate(corrected) if p <= level} == rejected


def test_holm_batches_and_leaves_nan_out() -> None:
    p = torch.tensor([[0.01, torch.nan, 0.03], [0.5, 0.2, 0.9]])
    expected = torch.tensor([[0.02, torch.nan, 0.03], [1.0, 0.6, 1.0]])
    torch.testing.assert_close(holm(p), expected, equal_nan=True)
    with pytest.raises(InputError, match="scalar"):
        holm(torch.tensor(0.1))
