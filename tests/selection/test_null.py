"""The permutation null and stability selection."""

from __future__ import annotations

import pytest
import torch

import fmiqa
from fmiqa import permutation_null, stability_selection

GROUPS = [f"r{i // 8}" for i in range(64)]


def test_a_real_effect_has_evidence_and_noise_has_none() -> None:
    generator = torch.Generator().manual_seed(0)
    y = torch.rand(64, generator=generator, dtype=torch.float64)
    noise = torch.rand(64, 20, generator=generator, dtype=torch.float64)
    signal = noise.clone()
    signal[:, 4] += 2 * y
    real = permutation_null(signal, y, groups=GROUPS, permutations=39, max_maps=3)
    assert real.evidence()
    assert real.p_value == pytest.approx(1 / 40)
    assert "evidence" in str(real)
    none = permutation_null(noise, y, groups=GROUPS, permutations=39, max_maps=3)
    assert not none.evidence()
    pytest.importorskip("matplotlib")
    assert real.plot().get_xlabel()


@pytest.mark.slow
def test_false_alarms_on_noise_keep_the_nominal_rate() -> None:
    """200 pure-noise data sets, 19 permutations each: p <= .05 in 5 % of trials."""
    generator = torch.Generator().manual_seed(2)
    alarms = 0
    for trial in range(200):
        y = torch.rand(40, generator=generator, dtype=torch.float64)
        values = torch.rand(40, 8, generator=generator, dtype=torch.float64)
        null = permutation_null(
            values, y, groups=["a"] * 20 + ["b"] * 20, permutations=19, max_maps=2, fit=None, seed=trial
        )
        alarms += null.evidence(0.05)
    # Binomial(200, .05): mean 10, standard deviation 3.1; three of them either side.
    assert 1 <= alarms <= 19


def test_the_null_is_not_cut_where_the_observed_search_stopped() -> None:
    """It was once: searches on noise that would have gone on were held short, and p-values were too small."""
    generator = torch.Generator().manual_seed(5)
    y = torch.rand(64, generator=generator, dtype=torch.float64)
    values = torch.rand(64, 20, generator=generator, dtype=torch.float64)
    values[:, 0] = y
    null = permutation_null(values, y, groups=GROUPS, permutations=9, max_maps=4, fit=None)
    assert len(null.maps) == 1
    assert null.observed.shape == null.null.shape[1:] == null.p_steps.shape
    assert null.null.shape[1] > 1
    assert bool((null.null[:, -1] > null.null[:, 0]).any())


def test_permutations_stay_within_groups() -> None:
    """Scores that are one number a group cannot be permuted: the null equals the observation."""
    generator = torch.Generator().manual_seed(3)
    y = torch.arange(64, dtype=torch.float64) // 8
    values = torch.rand(64, 6, generator=generator, dtype=torch.float64) + 0.1 * y[:, None]
    null = permutation_null(values, y, groups=GROUPS, permutations=5, max_maps=2, fit=None)
    assert torch.equal(null.null, null.observed.expand(5, -1))
    assert null.p_value == 1


def test_stability_finds_the_planted_maps() -> None:
    generator = torch.Generator().manual_seed(4)
    y = torch.rand(64, generator=generator, dtype=torch.float64)
    values = torch.rand(64, 15, generator=generator, dtype=torch.float64)
    values[:, 3] += 2 * y
    values[:, 8] += 2 * y
    result = stability_selection(values, y, groups=GROUPS, subsamples=20, max_maps=2, fit=None)
    assert [m.channel for m in result.stable(0.9)] in ([3, 8], [8, 3])
    assert float(result.stability.value) > 0.8
    assert len(result.selected) == 20
    pytest.importorskip("matplotlib")
    assert result.plot(top=5).get_ylabel()


def test_errors() -> None:
    values, y = torch.rand(20, 3), torch.rand(20)
    with pytest.raises(fmiqa.InputError, match="nothing can be permuted"):
        permutation_null(values, y, groups=[str(i) for i in range(20)])
    with pytest.raises(fmiqa.InputError, match="a whole number from 1"):
        permutation_null(values, y, groups=["a"] * 20, permutations=0)
    with pytest.raises(fmiqa.InputError, match="at least 2 subsamples"):
        stability_selection(values, y, groups=["a"] * 10 + ["b"] * 10, subsamples=1)
