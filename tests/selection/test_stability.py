from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fmiqa.errors import InputError
from fmiqa.selection.stability import selection_frequency, stability


def random_sets(*shape: int, share: float = 0.3, seed: int = 0) -> torch.Tensor:
    return (torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) < share).double()


def transcribed(z: np.ndarray) -> tuple[float, float]:
    """Estimate and variance with the paper's symbols and loops: M sets of d features."""
    m, d = z.shape
    p = [sum(z[i, f] for i in range(m)) / m for f in range(d)]
    k = [sum(z[i]) for i in range(m)]
    k_mean = sum(k) / m
    s2 = [m / (m - 1) * pf * (1 - pf) for pf in p]
    below = k_mean / d * (1 - k_mean / d)
    phi = 1 - sum(s2) / d / below
    phi_i = [
        1
        / below
        * (
            sum(z[i, f] * p[f] for f in range(d)) / d
            - k[i] * k_mean / d**2
            + phi / 2 * (2 * k_mean * k[i] / d**2 - k[i] / d - k_mean / d + 1)
        )
        for i in range(m)
    ]
    mean = sum(phi_i) / m
    return phi, 4 / m**2 * sum((value - mean) ** 2 for value in phi_i)


@pytest.mark.parametrize("share", [0.05, 0.3, 0.8])
def test_equals_the_papers_formulas(share: float) -> None:
    sets = random_sets(13, 30, share=share)
    value, variance = transcribed(sets.numpy())
    found = stability(sets, level=0.9)
    # Float64, summed in another order.
    assert found.value.item() == pytest.approx(value, rel=1e-12)
    assert found.variance.item() == pytest.approx(variance, rel=1e-10)
    assert found.high.item() - found.value.item() == pytest.approx(1.6448536 * variance**0.5, rel=1e-7)
    assert found.value.item() - found.low.item() == pytest.approx(1.6448536 * variance**0.5, rel=1e-7)


def test_equals_kunchevas_index_for_sets_of_one_size() -> None:
    """L. I. Kuncheva, A stability index for feature selection, 2007: (shared - k^2/d) / (k - k^2/d), mean of pairs."""
    d, k = 12, 4
    sets = torch.zeros(7, d)
    for i, row in enumerate(sets):
        row[torch.randperm(d, generator=torch.Generator().manual_seed(i))[:k]] = 1
    pairs = [(a @ b).item() for a, b in combinations(sets, 2)]
    expected = np.mean([(shared - k * k / d) / (k - k * k / d) for shared in pairs])
    assert stability(sets).value.item() == pytest.approx(expected, rel=1e-12)


def test_equal_sets_are_perfectly_stable() -> None:
    found = stability(random_sets(1, 20).expand(6, 20))
    assert found.value.item() == pytest.approx(1, abs=1e-12)
    assert found.variance.item() == pytest.approx(0, abs=1e-12)


def test_opposite_sets_reach_the_lower_bound() -> None:
    one = random_sets(1, 20, share=0.5)
    assert stability(torch.cat((one, 1 - one))).value.item() == pytest.approx(-1, abs=1e-12)


@pytest.mark.parametrize(("d", "k"), [(5, 2), (6, 1), (6, 5)])
def test_chance_agreement_is_exactly_zero(d: int, k: int) -> None:
    """The mean over all ordered pairs of the sets of k out of d, every pair as likely as any other."""
    sets = torch.zeros(len(list(combinations(range(d), k))), d)
    for row, members in zip(sets, combinations(range(d), k), strict=True):
        row[list(members)] = 1
    count = len(sets)
    pairs = torch.stack((sets.repeat_interleave(count, 0), sets.repeat(count, 1)), dim=1)
    assert stability(pairs).value.mean().item() == pytest.approx(0, abs=1e-12)


def test_random_sets_of_unequal_size_are_unstable() -> None:
    value = stability(random_sets(500, 20, 100, share=0.1)).value
    assert value.mean().item() == pytest.approx(0, abs=0.002)  # its standard error is .0003, its bias is O(1/R/M)


def test_interval_covers_the_population_value() -> None:
    """2000 trials of 100 sets of 30 independent features with known probabilities: .9425 were covered at level .95."""
    probability = torch.linspace(0.02, 0.9, 30, dtype=torch.float64)
    share = probability.mean()
    truth = 1 - (probability * (1 - probability)).mean() / (share * (1 - share))
    draws = torch.rand(2000, 100, 30, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    found = stability(draws < probability)
    covered = ((found.low < truth) & (found.high > truth)).double().mean().item()
    assert covered == pytest.approx(0.95, abs=0.02)  # 4 standard errors; asymptotic in the number of sets
    # The estimate's own spread is what the variance says.
    assert found.value.var().item() == pytest.approx(found.variance.mean().item(), rel=0.15)


def test_batches_equal_single_problems(device: torch.device) -> None:
    sets = random_sets(2, 3, 5, 11).to(device)
    found = stability(sets)
    for i in range(2):
        for j in range(3):
            single = stability(sets[i, j].bool())
            for whole, part in zip(found, single, strict=True):
                assert whole.device.type == device.type
                assert whole[i, j].item() == pytest.approx(part.item(), rel=1e-12)


@pytest.mark.parametrize("content", [torch.zeros(3, 4), torch.ones(3, 4)])
def test_nothing_or_everything_chosen_has_no_stability(content: torch.Tensor) -> None:
    assert stability(content).value.isnan()


@given(st.integers(2, 6), st.integers(1, 9), st.integers(0, 10**6))
def test_bounds_and_order_do_not_matter(sets: int, candidates: int, seed: int) -> None:
    z = random_sets(sets, candidates, share=0.5, seed=seed)
    value = stability(z).value
    if not value.isnan():
        assert -1 / (sets - 1) - 1e-9 <= value <= 1 + 1e-9
    shuffled = z[torch.randperm(sets)][:, torch.randperm(candidates)]
    torch.testing.assert_close(stability(shuffled).value, value, equal_nan=True)


def test_frequency_by_counting() -> None:
    z = random_sets(2, 6, 9)
    torch.testing.assert_close(selection_frequency(z), z.sum(1) / 6)


def test_wrong_input_is_refused() -> None:
    for wrong, message in (
        (torch.tensor([1, 0]), "R, M"),
        ([[1, 0]], "list"),
        (torch.zeros(1, 4), "2 or more"),
        (torch.zeros(3, 0), "candidates"),
        (torch.tensor([[0.5, 1], [0, 1]]), "0 and 1"),
        (torch.tensor([[torch.nan, 1], [0, 1]]), "0 and 1"),
    ):
        with pytest.raises(InputError, match=message):
            stability(wrong)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="level"):
        stability(torch.eye(3), level=95)
