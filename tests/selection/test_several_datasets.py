"""Searches over several data sets at once, against plain loops over the data sets."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import fmiqa
from fmiqa import InputError, MapIndex, ScoreMatrix, Selection, Validation, forward_select, weighted_select
from fmiqa.selection.criteria import Objective
from fmiqa.selection.engine import Candidates
from fmiqa.selection.lasso import STRENGTHS, nonnegative_path
from fmiqa.selection.splits import Split, grouped_folds

MAPS = 10
ACROSS = pytest.mark.parametrize("across", ["mean", "worst"])
SEARCHES = pytest.mark.parametrize(
    "search", [fmiqa.forward_select, fmiqa.floating_select, fmiqa.beam_select, fmiqa.backward_eliminate]
)
Coefficient = Callable[[Tensor, Tensor], Tensor]


def matrix(name: str = "", seed: int = 0, images: int = 48, maps: int = MAPS) -> ScoreMatrix:
    """Noisy maps, some of which say more of this data set than of others."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.rand(images, generator=generator, dtype=torch.float64)
    strength = torch.rand(maps, generator=generator, dtype=torch.float64)
    noise = torch.rand(images, maps, generator=generator, dtype=torch.float64)
    values = strength * targets[:, None] + 0.8 * noise
    groups, names = [f"{name}{i // 6}" for i in range(images)], [f"{name}{i}" for i in range(images)]
    options = {"dataset": name} if name else {}
    return ScoreMatrix(values, MapIndex.of_layers({"map": maps}), targets, groups, names, None, options)


def three() -> dict[str, ScoreMatrix]:
    """Data sets of different sizes, their subjective scores on different scales."""
    found = {"a": matrix("a", 1, 42), "b": matrix("b", 2, 60), "c": matrix("c", 3, 30)}
    found["b"] = replace(found["b"], targets=1 + 8 * found["b"].targets.square())
    found["c"] = replace(found["c"], targets=100 * found["c"].targets - 400)
    return found


def combined(criteria: Sequence[Tensor], across: str) -> Tensor:
    stacked = torch.stack(list(criteria))
    return stacked.mean(0) if across == "mean" else stacked.amin(0)


def value_of(matrices: Sequence[ScoreMatrix], chosen: Sequence[int], coefficient: Coefficient, across: str) -> float:
    each = [coefficient(m.values[:, list(chosen)].mean(1), m.targets) for m in matrices]
    return float(combined(each, across))


def greedy(
    matrices: Sequence[ScoreMatrix], coefficient: Coefficient, across: str, limit: int
) -> tuple[list[int], list[float]]:
    """Forward selection on all data sets, one candidate at a time, among maps that rise with quality on each."""
    chosen: list[int] = []
    curve: list[float] = []
    rising = [
        m
        for m in range(matrices[0].values.shape[1])
        if all(float(torch.corrcoef(torch.stack([s.values[:, m], s.targets]))[0, 1]) > 0 for s in matrices)
    ]
    while len(chosen) < limit:
        rest = [m for m in rising if m not in chosen]
        tried = [value_of(matrices, [*chosen, m], coefficient, across) for m in rest]
        if curve and max(tried) <= curve[-1]:
            break
        curve.append(max(tried))
        chosen.append(rest[tried.index(max(tried))])
    return chosen, curve


CRITERIA: dict[str, tuple[dict[str, Any], Coefficient]] = {
    "logistic": ({}, fmiqa.plcc),
    "plain": ({"fit": None}, lambda x, y: fmiqa.plcc(x, y, fit=None)),
    "ranks": ({"criterion": "srocc"}, fmiqa.srocc),
    "pairs": ({"criterion": "krocc"}, fmiqa.krocc),
}


@ACROSS
@pytest.mark.parametrize("criterion", CRITERIA)
def test_equals_a_plain_loop_over_the_data_sets(criterion: str, across: Any) -> None:
    options, coefficient = CRITERIA[criterion]
    found = forward_select(three(), across=across, max_maps=4, **options)
    chosen, curve = greedy(list(three().values()), coefficient, across, 4)
    assert [m.channel for m in found.maps] == chosen
    assert len(chosen) >= 2
    # Sums weighted by 0 and 1 over padded rows against sums without weights.
    assert found.curve == pytest.approx(curve, abs=1e-9)
    assert found.value == pytest.approx(curve[-1], abs=1e-9)  # the same
    assert found.fit is None  # the data sets have no scale in common
    assert (found.options["across"], found.options["images"]) == (across, 132)


@SEARCHES
@ACROSS
def test_every_search_reports_the_criterion_over_the_data_sets(search: Callable[..., Selection], across: Any) -> None:
    found = search(three(), across=across, fit=None)
    chosen = [m.channel for m in found.maps]
    expected = value_of(list(three().values()), chosen, CRITERIA["plain"][1], across)
    assert found.value == pytest.approx(expected, abs=1e-12)  # correlations in float64, summed in another order
    forward = forward_select(three(), across=across, fit=None)
    assert found.value >= forward.value


def test_a_list_a_mapping_and_a_stack_are_the_same() -> None:
    given = three()
    found = [forward_select(s, max_maps=3) for s in (given, list(given.values()), ScoreMatrix.stack(given))]
    assert found[0].maps == found[1].maps == found[2].maps
    assert found[0].curve == found[1].curve == found[2].curve
    assert found[0].source == found[1].source == found[2].source
    assert found[0].source["datasets"] == {"a": 42, "b": 60, "c": 30}


def test_data_sets_in_a_list_are_numbered_where_names_are_lacking_or_repeated() -> None:
    nameless, named = matrix(), matrix("a")
    found = forward_select([named, nameless, named, nameless], max_maps=1)
    assert list(found.source["datasets"]) == ["a", "data set 2", "a 3", "data set 4"]
    found = forward_select([matrix("a 3"), named, named], max_maps=1)  # none is lost
    assert list(found.source["datasets"]) == ["a 3", "a", "a 3 again"]


@ACROSS
def test_one_data_set_twice_is_that_data_set(across: Any) -> None:
    single = matrix(seed=4)
    for options in ({"fit": None}, {"criterion": "srocc"}):
        alone = forward_select(single, **options)
        found = forward_select([single, single], across=across, **options)
        assert found.maps == alone.maps
        assert found.curve == pytest.approx(alone.curve, abs=1e-12)  # weighted sums of 48 numbers
    one = forward_select([single], max_maps=3)
    assert one.maps == forward_select(single, max_maps=3).maps
    assert one.fit is not None


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), across=st.sampled_from(["mean", "worst"]), slope=st.floats(0.01, 100))
def test_the_order_and_the_scales_of_data_sets_do_not_matter(seed: int, across: Any, slope: float) -> None:
    parts = [matrix(name, seed + k, 12 + 6 * k, 5) for k, name in enumerate("abc")]
    for part in parts:
        part.values.add_(part.targets[:, None])  # so that every map rises with quality
    found = forward_select(parts, across=across, criterion="srocc")
    scaled = [replace(part, targets=slope * part.targets - 3) for part in parts]
    again = forward_select(scaled, across=across, criterion="srocc")
    assert (again.maps, again.curve) == (found.maps, found.curve)  # ranks are the same
    turned = forward_select(parts[::-1], across=across, criterion="srocc")
    # Means of three numbers in another order: between equally good maps, the last digits decide.
    assert turned.steps[0].value == pytest.approx(found.steps[0].value, abs=1e-12)
    chosen = [m.channel for m in turned.maps]
    assert turned.value == pytest.approx(value_of(parts, chosen, fmiqa.srocc, across), abs=1e-12)  # the same


def test_the_worst_data_set_counts_or_the_mean() -> None:
    """map:0 is perfect on one data set and poor on the other, map:1 is fair on both."""
    generator = torch.Generator().manual_seed(0)
    y, noise, other, more = torch.rand(4, 60, generator=generator, dtype=torch.float64)
    maps, names = MapIndex.of_layers({"map": 2}), [str(i) for i in range(60)]
    first = ScoreMatrix(torch.stack([y, y + 0.9 * noise], 1), maps, y, names, names)
    second = ScoreMatrix(torch.stack([other + 0.4 * y, y + 0.9 * more], 1), maps, y, names, names)
    chosen = {how: forward_select([first, second], across=how, fit=None, max_maps=1) for how in ("mean", "worst")}  # type: ignore[arg-type]
    each = [[float(fmiqa.plcc(m.values[:, k], m.targets, fit=None)) for m in (first, second)] for k in (0, 1)]
    assert each[0][0] == pytest.approx(1, abs=1e-12)  # itself
    for how, by in (("mean", lambda pair: sum(pair) / 2), ("worst", min)):
        best = max((0, 1), key=lambda k: by(each[k]))
        assert chosen[how].maps[0].channel == best
        assert chosen[how].value == pytest.approx(by(each[best]), abs=1e-12)  # float64
    assert [str(chosen[how].maps[0]) for how in ("mean", "worst")] == ["map:0", "map:1"]


def test_a_map_that_falls_with_quality_or_is_unusable_on_one_data_set_may_not_join() -> None:
    a, b = matrix("a", 1), matrix("b", 2)
    a.values[:, 0], b.values[:, 0] = a.targets, -b.targets
    a.values[:, 1], b.values[:, 1] = a.targets, 0.5
    a.values[:, 2], b.values[:, 2] = a.targets, torch.where(b.targets > 0.5, torch.inf, b.targets)
    found = forward_select([a, b])
    assert not {0, 1, 2} & {m.channel for m in found.maps}
    assert found.steps[0].candidates <= MAPS - 3
    free = forward_select([a, b], direction="any", fit=None)
    assert not {1, 2} & {m.channel for m in free.maps}
    b.values[:, :] = -b.targets[:, None]
    with pytest.raises(InputError, match="falls with quality"):
        forward_select([a, b])


def test_ties_go_to_the_first_map() -> None:
    parts = [
        replace(m, values=torch.cat([m.values, m.values], 1), maps=MapIndex.of_layers({"map": 2 * MAPS}))
        for m in three().values()
    ]
    assert forward_select(parts, max_maps=1).maps[0].channel < MAPS


@ACROSS
def test_the_engine_combines_the_criteria_of_each_search(across: Any) -> None:
    """Two searches over two data sets: problems 0 and 1 are the first's, 2 and 3 the second's."""
    scores = ScoreMatrix.stack({"a": matrix("a", 1, 20), "b": matrix("b", 2, 28)})
    generator = torch.Generator().manual_seed(0)
    counts = torch.randint(0, 3, (4, 48), generator=generator)
    counts[[0, 2], 20:], counts[[1, 3], :20] = 0, 0
    candidates = Candidates(
        scores.values, scores.targets, scores.maps, objective=Objective("plcc", None), counts=counts.double(),
        datasets=2, across=across,
    )  # fmt: skip
    assert (candidates.problems, candidates.searches) == (4, 2)
    sets, allowed = [[3], [1, 5]], torch.ones(2, MAPS, dtype=torch.bool)
    allowed[0, 3], allowed[1, [1, 5]] = False, False

    def by_hand(search: int, chosen: list[int]) -> float:
        pooled = scores.values[:, chosen].mean(1)
        each = []
        for count in counts[2 * search : 2 * search + 2]:
            rows = torch.arange(48).repeat_interleave(count)
            each.append(fmiqa.plcc(pooled[rows], scores.targets[rows], fit=None))
        return float(combined(each, across))

    tried = candidates.tried(sets, allowed).values
    for search, chosen in enumerate(sets):
        value = candidates.value(sets)[search]
        assert float(value) == pytest.approx(by_hand(search, chosen), abs=1e-12)  # weighted sums in float64
        for m in range(MAPS):
            expected = by_hand(search, [*chosen, m]) if m not in chosen else -torch.inf
            assert float(tried[search, m]) == pytest.approx(expected, abs=1e-12)  # the same
        best = candidates.best(sets, allowed)[search]
        assert best.position == int(tried[search].argmax())


def test_a_data_set_without_observers_is_fitted_to_the_consensus() -> None:
    parts = three()
    parts["b"] = replace(parts["b"], targets=torch.full_like(parts["b"].targets, torch.nan))
    found = forward_select(parts, prior="consensus", alpha=0.6, max_maps=3, fit=None)
    fitted = []
    for m in parts.values():
        c = m.values.mean(1)
        human = c if m.targets.isnan().all() else (m.targets - m.targets.mean()) / m.targets.std() * c.std() + c.mean()
        fitted.append(replace(m, targets=0.6 * human + 0.4 * c))
    chosen, curve = greedy(fitted, CRITERIA["plain"][1], "mean", 3)
    assert [m.channel for m in found.maps] == chosen
    assert found.curve == pytest.approx(curve, abs=1e-9)  # weighted sums, and the blend by another formula
    with pytest.raises(InputError, match=r"targets of b must be at least 5 finite scores"):
        forward_select(parts)


def test_a_result_comes_back_from_its_file(tmp_path: Path) -> None:
    found = forward_select(three(), across="worst", prior="consensus", max_maps=2)
    found.save(tmp_path / "s.json")
    again = Selection.load(tmp_path / "s.json")
    assert (again.maps, again.steps, again.options, again.source) == (
        found.maps, found.steps, found.options, found.source
    )  # fmt: skip
    assert again.fit is None


# Validation: data sets that are left out.


@ACROSS
@pytest.mark.parametrize("options", [{"fit": None}, {"prior": "consensus", "alpha": 0.75, "fit": None}, {}])
def test_leaving_a_data_set_out_is_the_search_on_the_others(options: dict[str, Any], across: Any) -> None:
    parts = three()
    how: dict[str, Any] = {"across": across, "max_maps": 3, **options}
    found = quiet(cross_validate_sets, parts, **how)
    assert sorted(found.held_out) == [("a",), ("b",), ("c",)]
    for fold, (name,) in enumerate(found.held_out):
        alone = forward_select({k: m for k, m in parts.items() if k != name}, **how)
        size = len(alone.maps)
        assert found.selected[fold] == alone.maps
        assert found.in_sample[fold, :size].tolist() == pytest.approx(alone.curve, abs=1e-9)  # the same sums
        pooled = parts[name].pool(alone.maps)
        # The same functions on combined scores that were summed in another order.
        assert float(found.plcc[fold, -1]) == pytest.approx(float(fmiqa.plcc(pooled, parts[name].targets)), abs=1e-9)
        assert float(found.srocc[fold, -1]) == pytest.approx(float(fmiqa.srocc(pooled, parts[name].targets)), abs=1e-9)
        every = parts[name].pool()
        assert float(found.all_srocc[fold]) == pytest.approx(float(fmiqa.srocc(every, parts[name].targets)), abs=1e-9)
    assert found.predictions is None  # there is no common scale


def cross_validate_sets(parts: Any, **options: Any) -> Validation:
    return fmiqa.cross_validate(parts, groups="dataset", folds="leave_one_out", **options)


def quiet(call: Callable[..., Validation], *args: Any, **options: Any) -> Validation:
    """The result of a validation that may warn of data sets where the selection fails."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "on . of . data sets")
        return call(*args, **options)


@pytest.mark.parametrize(
    "how",
    [
        {"max_maps": 3},
        {"max_maps": 3, "prior": "consensus", "alpha": 0.5, "across": "worst"},
        {"search": partial(fmiqa.beam_select, max_maps=2, width=2, fit=None)},
        {"search": partial(weighted_select, folds=3)},
    ],
)
def test_a_data_set_that_is_left_out_is_never_looked_at(how: dict[str, Any]) -> None:
    parts = three()
    found = quiet(cross_validate_sets, parts, **how)
    for name, part in parts.items():
        spoilt = {**parts, name: replace(part, targets=part.targets.flip(0))}
        again = quiet(cross_validate_sets, spoilt, **how)
        fold = found.held_out.index((name,))
        assert again.selected[fold] == found.selected[fold]
        assert torch.equal(again.in_sample[fold], found.in_sample[fold])
        assert not torch.equal(again.srocc[fold], found.srocc[fold])


@pytest.mark.parametrize("batch", [32, 2, 1])
def test_parts_of_one_two_and_three_data_sets_advance_together(batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fmiqa.selection.repeat._BATCH", batch)
    scores = ScoreMatrix.stack(three())
    whole = torch.arange(len(scores))
    a, b, c = whole[:42], whole[42:102], whole[102:]
    trains = [torch.cat([b, c]), torch.cat([a, b]), a, torch.cat([a, c[:20]]), torch.cat([a[:30], b, c[:12]]), c]
    splits = [Split(train, whole[~torch.isin(whole, train)]) for train in trains]
    found = fmiqa.cross_validate(scores, splits=splits, max_maps=3, fit=None, prior="consensus")
    for fold, train in enumerate(trains):
        alone = forward_select(scores.rows(train), max_maps=3, fit=None, prior="consensus")
        assert found.selected[fold] == alone.maps
        # Sums weighted by 0 and 1 over rows that are padded to the longest part.
        assert found.in_sample[fold, : len(alone)].tolist() == pytest.approx(alone.curve, abs=1e-9)
        held = scores.rows(splits[fold].held_out)
        names = sorted(set(held.datasets or ()))
        each = [held.rows([i for i, own in enumerate(held.datasets or ()) if own == name]) for name in names]
        expected = sum(float(fmiqa.srocc(m.pool(alone.maps), m.targets)) for m in each) / len(each)
        assert float(found.srocc[fold, -1]) == pytest.approx(expected, abs=1e-9)  # ranks of the same numbers


def failing() -> dict[str, ScoreMatrix]:
    """map:0 is best on all data sets but c, where all maps together are better."""
    parts = {name: matrix(name, seed, 60) for seed, name in enumerate("abcd")}
    for name, m in parts.items():
        noise = torch.rand(60, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
        m.values[:, 0] = noise + 0.3 * m.targets if name == "c" else m.targets + 0.01 * noise
    return parts


def test_data_sets_on_which_a_selection_fails_are_named(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=r"on 1 of 4 data sets that were left out .* lower SROCC than all maps: c$"):
        found = cross_validate_sets(failing(), max_maps=1)
    assert found.leaves_one_out
    assert found.failures == ("c",)
    assert found.notes[0].endswith("lower SROCC than all maps: c")
    table = {row[0]: row for row in found.by_group()[1:]}
    for name, m in failing().items():
        chosen, every = m.values[:, 0], m.pool()
        figures = [float(f(x, m.targets)) for f in (fmiqa.plcc, fmiqa.srocc) for x in (chosen, every)]
        assert [float(cell) for cell in table[name][2:6]] == pytest.approx(figures, abs=1e-4)  # four decimals
        assert table[name][-1] == ("below all maps" if name == "c" else "")
    assert "by dataset left out" in str(found)
    found.save(tmp_path / "v.json")
    again = Validation.load(tmp_path / "v.json")
    assert (again.failures, again.notes, again.by_group()) == (found.failures, found.notes, found.by_group())
    assert again.to_dict() == found.to_dict()


def test_folds_of_references_are_judged_on_each_data_set() -> None:
    parts = three()
    found = fmiqa.cross_validate(parts, folds=3, max_maps=2, fit=None)
    scores = ScoreMatrix.stack(parts)
    for fold, split in enumerate(grouped_folds(scores.groups, folds=3)):
        assert found.selected[fold] == forward_select(scores.rows(split.train), max_maps=2, fit=None).maps
    assert found.failures == ()
    assert found.options["source"]["dataset"] == "a + b + c"


def test_data_sets_that_cannot_be_searched_together_are_named() -> None:
    parts = three()
    with pytest.raises(InputError, match="across is one of mean, worst, got 'best'"):
        forward_select(parts, across="best")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="ScoreMatrix objects, got Tensor"):
        forward_select([parts["a"], parts["b"].values])  # type: ignore[list-item]
    with pytest.raises(InputError, match="ScoreMatrix objects, got str"):
        forward_select({"a": parts["a"], "b": "scores.safetensors"})  # type: ignore[dict-item]
    with pytest.raises(InputError, match="score matrices of the same maps"):
        forward_select([parts["a"], matrix("b", maps=3)])
    with pytest.raises(InputError, match="score matrices of the same maps"):
        forward_select([])
    with pytest.raises(InputError, match="targets of small must be at least 5 finite scores"):
        forward_select({**parts, "small": parts["a"].rows(range(4))})
    with pytest.raises(InputError, match=r"this score matrix has no several data sets \(ScoreMatrix.stack joins them"):
        fmiqa.cross_validate(parts["a"], groups="dataset", folds="leave_one_out")
    few = Split(torch.arange(3, 132), torch.arange(3))
    with pytest.raises(InputError, match="a held-out part has 3 images"):
        fmiqa.cross_validate(parts, splits=[few])
    lacking = replace(parts["b"], targets=torch.full_like(parts["b"].targets, torch.nan))
    with pytest.raises(InputError, match="which some images lack"):
        fmiqa.cross_validate({**parts, "b": lacking}, prior="consensus")


# Weighted selection.


def joined(parts: dict[str, ScoreMatrix], alpha: float | None) -> tuple[Tensor, Tensor, Tensor]:
    """Squared map scores, the fitted blend and the count of each image, by hand."""
    fitted, counts = [], []
    for m in parts.values():
        c = m.values.mean(1)
        human = c if m.targets.isnan().all() else (m.targets - m.targets.mean()) / m.targets.std() * c.std() + c.mean()
        fitted.append(m.targets if alpha is None else alpha * human + (1 - alpha) * c)
        counts.append(torch.full((len(m),), 1 / len(m), dtype=torch.float64))
    return torch.cat([m.values for m in parts.values()]).square(), torch.cat(fitted), torch.cat(counts)


@ACROSS
@pytest.mark.parametrize("unobserved", [False, True])
def test_the_weighted_search_gives_data_sets_of_all_sizes_equal_weight(across: Any, unobserved: bool) -> None:
    parts = three()
    if unobserved:
        parts["b"] = replace(parts["b"], targets=torch.full_like(parts["b"].targets, torch.nan))
    found = weighted_select(parts, across=across)
    assert found.weights is not None
    x, t, counts = joined(parts, 0.75)
    strengths = [s for s in STRENGTHS if s >= found.options["strength"]]
    expected = nonnegative_path(x, t, counts[None], strengths).weights[0, -1]
    weights = torch.zeros(MAPS, dtype=torch.float64)
    weights[[m.channel for m in found.maps]] = found.weights
    # Coordinate descent stops at moves of 1e-4 in standardised weights, but from the same start on the same numbers.
    torch.testing.assert_close(weights, expected, atol=1e-9, rtol=0)
    agreement = [
        fmiqa.plcc(m.values.square() @ weights, m.pool() if m.targets.isnan().all() else m.targets)
        for m in parts.values()
    ]
    # The logistic's search ends within 1e-9 of its optimum from numbers that differ in the last digits.
    assert found.value == pytest.approx(float(combined(agreement, across)), abs=1e-8)
    assert found.fit is None
    assert found.options["inner"]


def test_every_image_of_a_data_set_twice_changes_no_weight() -> None:
    parts = three()
    double = {**parts, "c": ScoreMatrix.stack([parts["c"], parts["c"]])}
    how: dict[str, Any] = {"strengths": [0.1], "folds": 3, "prior": None}
    plain, found = weighted_select(parts, **how), weighted_select(double, **how)
    assert found.maps == plain.maps
    assert found.weights is not None
    assert plain.weights is not None
    torch.testing.assert_close(found.weights, plain.weights, atol=1e-9, rtol=0)  # weighted sums of some 100 numbers
