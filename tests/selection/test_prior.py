"""The prior: what a search fits beside the subjective scores, by hand and by what it promises."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import fmiqa
from fmiqa import InputError, MapIndex, ScoreMatrix, Selection, forward_select, weighted_select
from fmiqa.selection.prior import check_prior, consensus, dataset_rows, fitted_targets

SEARCHES = pytest.mark.parametrize(
    "search", [fmiqa.forward_select, fmiqa.floating_select, fmiqa.beam_select, fmiqa.backward_eliminate]
)


def matrix(seed: int = 0, images: int = 60, maps: int = 8) -> ScoreMatrix:
    """Maps that share a quality, of which the observers see a part, and a part that the maps do not share."""
    generator = torch.Generator().manual_seed(seed)
    quality, own = torch.rand(2, images, generator=generator, dtype=torch.float64)
    values = quality[:, None] + torch.rand(images, maps, generator=generator, dtype=torch.float64)
    values[:, 0] = own + 0.3 * values[:, 0]
    groups, names = [f"r{i // 6}" for i in range(images)], [str(i) for i in range(images)]
    return ScoreMatrix(values, MapIndex.of_layers({"map": maps}), 5 + 20 * (own + quality), groups, names)


def planted() -> ScoreMatrix:
    """map:0 is what the observers say, map:1 the consensus of all maps; the others are noisy forms of the consensus."""
    generator = torch.Generator().manual_seed(3)
    said, shared = torch.rand(2, 80, generator=generator, dtype=torch.float64)
    noise = torch.rand(80, 20, generator=generator, dtype=torch.float64)
    values = torch.cat([said[:, None], shared[:, None], shared[:, None] + noise], 1)
    groups, names = [f"r{i // 8}" for i in range(80)], [str(i) for i in range(80)]
    return ScoreMatrix(values, MapIndex.of_layers({"map": 22}), said + 0.1 * shared, groups, names)


def blended(c: np.ndarray, y: np.ndarray, alpha: float) -> np.ndarray:
    """The blend of one data set, the subjective scores on the scale of the consensus."""
    human = (y - y.mean()) / y.std() * c.std() + c.mean()
    return alpha * human + (1 - alpha) * c


def test_the_consensus_is_the_mean_of_the_maps_that_are_finite_everywhere() -> None:
    values = torch.rand(30, 6, generator=torch.Generator().manual_seed(0))
    values[4, 1], values[0, 3], values[9, 5] = torch.nan, torch.inf, -torch.inf
    found = consensus(values)
    assert found.dtype == torch.float64
    # Sums of three numbers in float64, in another order.
    np.testing.assert_allclose(found.numpy(), values.numpy().astype(np.float64)[:, [0, 2, 4]].mean(1), rtol=1e-15)


def test_rows_of_data_sets_keep_their_order() -> None:
    scores = replace(matrix(images=6), datasets=["a", "b", "a", "c", "b", "a"])
    assert [rows.tolist() for rows in dataset_rows(scores)] == [[0, 2, 5], [1, 4], [3]]
    assert [rows.tolist() for rows in dataset_rows(scores, torch.tensor([4, 0, 5]))] == [[4], [0, 5]]
    assert [rows.tolist() for rows in dataset_rows(replace(scores, datasets=None))] == [[0, 1, 2, 3, 4, 5]]


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.5, 1.0])
def test_fitted_targets_by_hand(alpha: float) -> None:
    """Two data sets on scales of their own, one without observers, and an image of none."""
    generator = torch.Generator().manual_seed(1)
    c, y = torch.rand(2, 31, generator=generator, dtype=torch.float64)
    y[10:20] = 100 - 30 * y[10:20]
    y[20:30] = torch.nan
    rows = [torch.arange(10), torch.arange(10, 20), torch.arange(20, 30)]
    found = fitted_targets(y, c, alpha, rows).numpy()
    for own in rows[:2]:
        # Some ten operations in float64 on numbers of the order of 100.
        np.testing.assert_allclose(found[own], blended(c[own].numpy(), y[own].numpy(), alpha), atol=1e-12)
    assert np.array_equal(found[20:30], c[20:30].numpy())
    assert found[30] == 0
    assert fitted_targets(y, None, alpha, rows) is y


@given(
    seed=st.integers(0, 10**6),
    alpha=st.floats(0, 1),
    slope=st.floats(1e-2, 1e3),
    shift=st.floats(-1e3, 1e3),
)
def test_the_scale_of_the_subjective_scores_does_not_matter(
    seed: int, alpha: float, slope: float, shift: float
) -> None:
    c, y = torch.rand(2, 20, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    rows = [torch.arange(20)]
    found = fitted_targets(y, c, alpha, rows)
    # A shift of 1000 beside a spread of .003 leaves some ten of sixteen digits.
    torch.testing.assert_close(fitted_targets(slope * y + shift, c, alpha, rows), found, atol=1e-8, rtol=0)
    # A blend has the mean of the consensus, and what it has of each part, it has in the proportion of alpha.
    assert float(found.mean()) == pytest.approx(float(c.mean()), abs=1e-12)  # twenty numbers in float64
    ends = fitted_targets(y, c, 1.0, rows), fitted_targets(y, c, 0.0, rows)
    torch.testing.assert_close(found, alpha * ends[0] + (1 - alpha) * ends[1], atol=1e-12, rtol=0)  # the same
    assert torch.equal(ends[1], c)
    assert float(ends[0].std()) == pytest.approx(float(c.std()), abs=1e-12)  # the same


@given(seed=st.integers(0, 10**6), penalty=st.floats(0, 50))
def test_a_blend_is_a_ridge_towards_the_consensus(seed: int, penalty: float) -> None:
    """|y - Xw|^2 + k |c - Xw|^2 differs from (1 + k) |t - Xw|^2 by a constant, so both have one minimum."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(25, 4, generator=generator, dtype=torch.float64)
    c = consensus(x)
    y = fitted_targets(torch.rand(25, generator=generator, dtype=torch.float64), c, 1.0, [torch.arange(25)])
    t = fitted_targets(y, c, 1 / (1 + penalty), [torch.arange(25)])

    def difference(w: Tensor) -> float:
        ridge = (y - x @ w).square().sum() + penalty * (c - x @ w).square().sum()
        return float(ridge - (1 + penalty) * (t - x @ w).square().sum())

    constant = difference(torch.zeros(4, dtype=torch.float64))
    for _ in range(3):
        w = torch.randn(4, generator=generator, dtype=torch.float64)
        # Sums of the order of 25 x 50 x 10 in float64.
        assert difference(w) == pytest.approx(constant, abs=1e-9)
    stacked = torch.cat([x, penalty**0.5 * x]), torch.cat([y, penalty**0.5 * c])
    minimum = torch.linalg.lstsq(*stacked).solution
    # Four random columns of 25: a condition number of some 10, and squares of it in the equations.
    torch.testing.assert_close(torch.linalg.lstsq(x, t).solution, minimum, atol=1e-9, rtol=0)


def test_alpha_says_whom_a_search_follows() -> None:
    scores = planted()

    def first(**options: Any) -> str:
        return str(forward_select(scores, max_maps=1, **options).maps[0])

    assert first() == "map:0"
    assert first(prior="consensus", alpha=1) == "map:0"
    assert first(prior="consensus", alpha=0) == "map:1"
    # What the observers say and the consensus correlate by .1, so that the half-way blend is about as near to both:
    # two maps give it.
    both = forward_select(scores, max_maps=2, prior="consensus", alpha=0.5, fit=None)
    assert {m.channel for m in both.maps} == {0, 1}


@SEARCHES
def test_alpha_1_is_the_search_without_a_prior(search: Callable[..., Selection]) -> None:
    scores = matrix()
    plain, found = search(scores, fit=None), search(scores, fit=None, prior="consensus", alpha=1)
    assert found.maps == plain.maps
    assert found.value == pytest.approx(plain.value, abs=1e-12)  # the scale changes the last digits of a correlation


@SEARCHES
@pytest.mark.parametrize("criterion", [{"fit": None}, {"criterion": "srocc"}])
def test_a_search_with_a_prior_is_the_search_for_the_blend(
    search: Callable[..., Selection], criterion: dict[str, Any]
) -> None:
    scores = matrix()
    c, y = scores.values.numpy().mean(1), scores.targets.numpy()
    for alpha in (0.0, 0.4, 0.75):
        found = search(scores, prior="consensus", alpha=alpha, max_maps=4, **criterion)
        expected = search(scores.values, torch.from_numpy(blended(c, y, alpha)), max_maps=4, **criterion)
        # Beam search reaches one set in several orders, between which the last digits decide.
        assert {m.channel for m in found.maps} == {m.channel for m in expected.maps}
        assert found.value == pytest.approx(expected.value, abs=1e-12)  # the blends differ in the last digits


def test_the_logistic_of_the_result_is_that_of_the_subjective_scores() -> None:
    scores = matrix()
    found = forward_select(scores, prior="consensus", alpha=0.5, max_maps=3)
    assert found.fit is not None
    pooled = scores.pool(found.maps)
    assert float(found.fit.plcc) == pytest.approx(float(fmiqa.plcc(pooled, scores.targets)), abs=1e-12)
    assert found.fit.predict(pooled).mean() == pytest.approx(float(scores.targets.mean()), rel=1e-3)  # their scale


@SEARCHES
def test_without_subjective_scores_a_search_distils_all_maps(search: Callable[..., Selection], tmp_path: Path) -> None:
    scores = matrix()
    found = search(scores.values, prior="consensus", alpha=0, max_maps=3, fit=None)
    expected = search(scores.values, scores.values.mean(1), max_maps=3, fit=None)
    assert found.maps == expected.maps
    assert found.value == pytest.approx(expected.value, abs=1e-12)  # means of eight numbers, in another order
    assert found.fit is None
    found.save(tmp_path / "s.json")
    again = Selection.load(tmp_path / "s.json")
    assert (again.maps, again.value, again.options, again.fit) == (found.maps, found.value, found.options, None)
    assert (again.options["prior"], again.options["alpha"]) == ("consensus", 0)


def test_distilling_uses_no_subjective_score() -> None:
    scores = matrix()
    other = replace(scores, targets=scores.targets.flip(0))
    none = replace(scores, targets=torch.full_like(scores.targets, torch.nan))
    found = [forward_select(m, prior="consensus", alpha=0, max_maps=3) for m in (scores, other, none)]
    assert [f.maps for f in found] == [found[0].maps] * 3
    assert [f.curve for f in found] == [found[0].curve] * 3
    assert all(f.fit is None for f in found)  # what is not looked at gives no scale either


def test_a_data_set_without_observers_is_fitted_to_the_consensus_at_any_alpha() -> None:
    none = replace(matrix(), targets=torch.full((60,), torch.nan, dtype=torch.float64))
    found = [forward_select(none, prior="consensus", alpha=alpha, max_maps=3) for alpha in (0, 0.5, 1)]
    assert found[0].maps == found[1].maps == found[2].maps
    assert found[0].curve == found[1].curve == found[2].curve


def test_distilling_can_take_any_map_and_ties_go_to_the_first() -> None:
    values = matrix().values
    found = forward_select(torch.cat([values, values], 1), prior="consensus", alpha=0, max_maps=1)
    assert found.maps[0].channel < 8
    junk = torch.stack([torch.full((60,), 0.5).double(), torch.full((60,), torch.nan).double()], 1)
    spoilt = forward_select(torch.cat([values, junk], 1), prior="consensus", alpha=0, max_maps=3, fit=None)
    constant = torch.cat([values, junk[:, :1]], 1)  # a constant map moves the consensus, and a NaN one is left out
    assert spoilt.maps == forward_select(constant, prior="consensus", alpha=0, max_maps=3, fit=None).maps
    assert all(m.channel < 8 for m in spoilt.maps)


@pytest.mark.parametrize("alpha", [0.0, 0.5])
def test_folds_fit_the_blend_of_their_own_images_and_are_judged_by_observers(alpha: float) -> None:
    scores = matrix()
    splits = fmiqa.grouped_folds(scores.groups, folds=3)
    options = fmiqa.SearchOptions(prior="consensus", alpha=alpha, max_maps=3, fit=None)
    found = fmiqa.cross_validate(scores, splits=splits, options=options)
    for fold, split in enumerate(splits):
        alone = forward_select(scores.rows(split.train), options=options)
        assert found.selected[fold] == alone.maps
        assert found.in_sample[fold].tolist() == pytest.approx(alone.curve, abs=1e-9)  # weighted sums differ
        held = scores.rows(split.held_out)
        # The same function on the same numbers, pooled in another order.
        assert float(found.plcc[fold, -1]) == pytest.approx(float(fmiqa.plcc(held.pool(alone.maps), held.targets)))
    assert found.options["prior"] == "consensus"
    spoilt = replace(scores, targets=scores.targets.clone())
    spoilt.targets[splits[0].held_out] = torch.rand(len(splits[0].held_out), dtype=torch.float64)
    again = fmiqa.cross_validate(spoilt, splits=splits[:1], options=options)
    assert again.selected[0] == found.selected[0]
    assert torch.equal(again.in_sample[0], found.in_sample[0])
    assert not torch.equal(again.plcc[0], found.plcc[0])


def test_other_validations_take_a_prior() -> None:
    scores = matrix()
    options: dict[str, Any] = {"prior": "consensus", "alpha": 0, "max_maps": 2, "fit": None}
    with pytest.raises(InputError, match="a prior is the same for all permutations"):
        fmiqa.permutation_null(scores, permutations=4, **options)
    stable = fmiqa.stability_selection(scores, subsamples=4, **options)
    other = fmiqa.stability_selection(replace(scores, targets=scores.targets.flip(0)), subsamples=4, **options)
    assert stable.selected == other.selected
    assert stable.options["prior"] == "consensus"


def test_files_of_before_the_prior_record_none() -> None:
    path = Path(__file__).parent.parent / "data" / "version-0.1" / "selection-forward.json"
    assert "prior" not in Selection.load(path).options


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prior": "mean"}, "prior is 'consensus' or None, got 'mean'"),
        ({"prior": ["consensus"]}, "prior is 'consensus' or None"),
        ({"alpha": -0.1}, "alpha is the share of the subjective scores, from 0 to 1, got -0.1"),
        ({"alpha": 1.1}, "got 1.1"),
        ({"alpha": float("nan")}, "got nan"),
        ({"alpha": "half"}, "got 'half'"),
        ({"alpha": True}, "got True"),
    ],
)
@pytest.mark.parametrize("search", [fmiqa.forward_select, fmiqa.cross_validate, fmiqa.weighted_select])
def test_options_that_cannot_be_are_named(search: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        search(matrix(), **options)


@settings(max_examples=30)
@given(st.floats(0, 1))
def test_every_share_is_an_alpha(alpha: float) -> None:
    check_prior("consensus", alpha)
    check_prior(None, alpha)


def test_scores_that_cannot_be_blended_are_named() -> None:
    scores = matrix()
    with pytest.raises(InputError, match="consensus of all maps is the same for all images"):
        forward_select(torch.full((60, 3), 0.5), scores.targets, prior="consensus")
    with pytest.raises(InputError, match="consensus of all maps is the same for all images"):
        forward_select(torch.full((60, 3), torch.nan), scores.targets, prior="consensus")
    some = scores.targets.clone()
    some[3] = torch.nan
    for wrong in (some, torch.zeros_like(some)):
        with pytest.raises(InputError, match="at least 5 finite scores that are not all equal"):
            forward_select(scores.values, wrong, prior="consensus")
        with pytest.raises(InputError, match="finite and not all equal, or all be NaN"):
            fitted_targets(wrong, consensus(scores.values), 0.5, [torch.arange(60)])
    missing = torch.full_like(some, torch.nan)
    with pytest.raises(InputError, match="finite scores"):
        forward_select(scores.values, missing)
    with pytest.raises(InputError, match="needs targets"):
        forward_select(scores.values, prior="consensus")  # half of the blend is asked of observers
    with pytest.raises(InputError, match="needs targets"):
        forward_select(scores.values, alpha=0)
    with pytest.raises(InputError, match="judges by subjective scores, which some images lack"):
        fmiqa.cross_validate(replace(scores, targets=missing), prior="consensus", alpha=0)


def test_distilling_does_not_look_at_the_scores_whatever_they_are() -> None:
    """A table of a study without observers has some number in its column of scores."""
    generator = torch.Generator().manual_seed(0)
    values = torch.rand(40, 12, generator=generator)
    scores = torch.rand(40, generator=generator)
    found = [
        search(values, given, prior="consensus", alpha=0, **options)
        for search, options in (
            (forward_select, {"max_maps": 3}),
            (weighted_select, {"groups": [str(i // 4) for i in range(40)]}),
        )
        for given in (scores, torch.zeros(40), torch.full((40,), torch.nan))
    ]
    assert found[0].maps == found[1].maps == found[2].maps
    assert found[3].maps == found[4].maps == found[5].maps
    assert all(selection.fit is None for selection in found)
