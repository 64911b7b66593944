"""Floating, backward and beam search against plain loops, against forward selection, and their rules."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

import fmiqa
from fmiqa import MapIndex, Selection, forward_select
from fmiqa.pooling import pool_scores
from fmiqa.selection.criteria import Objective
from fmiqa.selection.engine import Candidates
from fmiqa.selection.searches import backward_eliminate, beam_select, floating_select

Search = Callable[..., Selection]
Score = Callable[[list[int]], float]
SEARCHES = pytest.mark.parametrize("search", [floating_select, backward_eliminate, beam_select])


def problem(seed: int, images: int = 40, maps: int = 10) -> tuple[Tensor, Tensor]:
    """Maps that share few noises with either sign, so that some go well together that are poor alone."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.rand(images, generator=generator, dtype=torch.float64)
    noise = torch.randn(images, 4, generator=generator, dtype=torch.float64)
    mixing = torch.randn(4, maps, generator=generator, dtype=torch.float64)
    own = torch.randn(images, maps, generator=generator, dtype=torch.float64)
    return targets[:, None] + 0.5 * noise @ mixing + 0.1 * own, targets


def nested(images: int = 60) -> tuple[Tensor, Tensor]:
    """map:0 is the best alone; map:1 and map:2, whose errors cancel, give the targets themselves."""
    generator = torch.Generator().manual_seed(0)
    targets, noise, other = torch.rand(3, images, generator=generator, dtype=torch.float64)
    return torch.stack([targets + 0.8 * other, targets + noise, targets - noise], 1), targets


@pytest.fixture
def no_curve(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the logistic kept with a result: most of the time of a small selection, and no part of the search."""
    monkeypatch.setattr("fmiqa.selection.forward.fit_logistic", lambda *_, **__: None)


def scorer(values: Tensor, targets: Tensor, criterion: str) -> Score:
    coefficient = stats.spearmanr if criterion == "srocc" else stats.pearsonr

    def score(chosen: list[int]) -> float:
        return float(coefficient(values[:, chosen].numpy().mean(1), targets.numpy())[0])

    return score


def options(criterion: str) -> dict[str, Any]:
    return {"criterion": "srocc"} if criterion == "srocc" else {"fit": None}


def plain_floating(score: Score, maps: int) -> list[int]:
    """SFFS with one candidate at a time; the best set on the way."""
    chosen: list[int] = []
    best: dict[int, tuple[float, list[int]]] = {0: (0.0, [])}
    while len(chosen) < maps:
        value, new = max((score([*chosen, m]), -m) for m in range(maps) if m not in chosen)
        if chosen and value <= score(chosen) + 1e-12:
            break
        chosen = [*chosen, -new]
        while True:
            if value > best.get(len(chosen), (-1.0, []))[0] + 1e-12:
                best[len(chosen)] = (value, chosen)
            if len(chosen) < 3:
                break
            value, out = max((score([m for m in chosen if m != r]), -r) for r in chosen)
            if value <= best[len(chosen) - 1][0] + 1e-12:
                break
            chosen = [m for m in chosen if m != -out]
    return max(best.values())[1]


def plain_beam(score: Score, maps: int, width: int) -> list[int]:
    beam: list[tuple[float, list[int]]] = [(-1.0, [])]
    best = beam[0]
    while beam:
        grown = {
            tuple(sorted([*chosen, m])): (score([*chosen, m]), [*chosen, m])
            for value, chosen in beam
            for m in range(maps)
            if m not in chosen and score([*chosen, m]) > value + 1e-12
        }
        beam = sorted(grown.values(), reverse=True)[:width]
        best = max([best, *beam])
    return best[1]


def plain_backward(score: Score, chosen: list[int]) -> list[int]:
    while len(chosen) > 1:
        value, out = max((score([m for m in chosen if m != r]), -r) for r in chosen)
        if value < score(chosen):
            break
        chosen = [m for m in chosen if m != -out]
    return chosen


@pytest.mark.usefixtures("no_curve")
@pytest.mark.parametrize("seed", [1, 2])
def test_each_search_equals_a_plain_loop(seed: int) -> None:
    values, targets = problem(seed)
    score = scorer(values, targets, "raw")
    greedy = [m.channel for m in forward_select(values, targets, fit=None, direction="any").maps]
    for search, expected in [
        (floating_select, max(greedy, plain_floating(score, 10), key=score)),
        (lambda *a, **k: beam_select(*a, width=3, **k), max(greedy, plain_beam(score, 10, 3), key=score)),
        (backward_eliminate, plain_backward(score, greedy)),
        (lambda *a, **k: backward_eliminate(*a, start=map_names(10), **k), plain_backward(score, list(range(10)))),
    ]:
        found = search(values, targets, fit=None, direction="any")
        assert sorted(m.channel for m in found.maps) == sorted(expected)
        assert found.value == pytest.approx(score(expected), abs=1e-12)  # both in float64


def test_the_greedy_set_is_kept_where_the_beam_loses_it() -> None:
    values, targets = problem(2)
    score = scorer(values, targets, "raw")
    forward = forward_select(values, targets, fit=None, direction="any")
    assert score(plain_beam(score, 10, 3)) < forward.value - 0.01
    beam = beam_select(values, targets, fit=None, direction="any", width=3)
    assert (beam.maps, beam.value, beam.options["search"]) == (forward.maps, forward.value, "beam")


def map_names(maps: int) -> list[str]:
    return [f"map:{i}" for i in range(maps)]


@SEARCHES
@pytest.mark.usefixtures("no_curve")
@pytest.mark.parametrize("criterion", ["raw", "srocc"])
def test_never_worse_than_forward_and_the_path_is_true(search: Search, criterion: str) -> None:
    better = 0
    for seed in range(20):
        values, targets = problem(seed, images=15 + seed)
        forward = forward_select(values, targets, **options(criterion))
        found = search(values, targets, **options(criterion))
        assert found.value >= forward.value
        better += found.value > forward.value + 1e-9
        check_path(found, scorer(values, targets, criterion))
    assert better >= (0 if search is backward_eliminate else 1)


def check_path(found: Selection, score: Score) -> None:
    """From the start, each step's maps and figures are those of the set that it leads to."""
    chosen = [int(name.split(":")[1]) for name in found.options["start"]]
    before = score(chosen) if chosen else 0.0
    for step in found.steps:
        if step.removed:
            assert step.candidates <= len(chosen)
            chosen.remove(step.map.channel)
        else:
            chosen.append(step.map.channel)
        assert step.value == pytest.approx(score(chosen), abs=1e-12)
        assert step.gain == pytest.approx(step.value - before, abs=1e-12)
        before = step.value
    assert [m.channel for m in found.maps] == chosen
    assert found.value == pytest.approx(before, abs=1e-12)


@SEARCHES
@pytest.mark.parametrize("pool", ["mean", "layer_geometric"])
def test_never_worse_with_a_logistic_and_either_pooling(search: Search, pool: str) -> None:
    values, targets = problem(1, images=20, maps=4)
    values = values.sigmoid()
    forward = forward_select(values, targets, pool=pool, max_maps=2)  # type: ignore[arg-type]
    limit = {"start": forward.maps} if search is backward_eliminate else {"max_maps": 2}
    found = search(values, targets, pool=pool, **limit)
    assert found.value >= forward.value
    assert len(found) <= 2
    assert found.fit is not None
    combined = pool_scores(values[:, [m.channel for m in found.maps]], found.maps, pool=pool)  # type: ignore[arg-type]
    assert found.value == pytest.approx(float(fmiqa.plcc(combined, targets)), abs=1e-12)
    # The curve kept is one of the same search, which the correlation reported refines.
    assert float(found.fit.plcc) == pytest.approx(found.value, abs=1e-6)


def test_floating_and_beam_undo_a_nested_choice() -> None:
    values, targets = nested()
    forward = forward_select(values, targets, fit=None)
    assert [m.channel for m in forward.maps] == [0, 2, 1]
    assert forward.value < 0.99
    floating = floating_select(values, targets, fit=None)
    assert [(s.map.channel, s.removed) for s in floating.steps] == [(0, False), (2, False), (1, False), (0, True)]
    beam = beam_select(values, targets, fit=None)
    assert not any(step.removed for step in beam.steps)
    backward = backward_eliminate(values, targets, fit=None)
    for found in (floating, beam, backward):
        assert {m.channel for m in found.maps} == {1, 2}
        assert found.value == pytest.approx(1.0, abs=1e-12)
    assert [found.options["search"] for found in (forward, floating, beam, backward)] == [
        "forward",
        "floating",
        "beam",
        "backward",
    ]


@pytest.mark.usefixtures("no_curve")
def test_beam_of_one_is_forward_selection_and_a_wide_one_is_no_worse_than_any_pair() -> None:
    values, targets = problem(5)
    forward = forward_select(values, targets, fit=None)
    one = beam_select(values, targets, fit=None, width=1)
    assert one.steps == forward.steps
    score = scorer(values, targets, "raw")
    pairs = [score([i, j]) for i in range(10) for j in range(i)]
    wide = beam_select(values, targets, fit=None, width=10, max_maps=2, direction="any")
    assert wide.value == pytest.approx(max(pairs), abs=1e-12)


@pytest.mark.usefixtures("no_curve")
def test_options_hold() -> None:
    values, targets = problem(1)
    for search in (floating_select, beam_select):
        free = search(values, targets, fit=None)
        assert len(free) > 2
        bound = search(values, targets, fit=None, max_maps=2, exclude=[free.maps[0]])
        assert len(bound) == 2
        assert free.maps[0] not in bound.maps
        assert bound.options["exclude"] == [str(free.maps[0])]
        worst = search(values, targets, fit=None, start=["map:9", "map:8"])
        assert [m.channel for m in worst.maps[:2]] == [9, 8]
        check_path(worst, scorer(values, targets, "raw"))
        assert all(step.gain > 0.01 for step in search(values, targets, fit=None, tol=0.01).steps if not step.removed)
        assert search(values, targets, fit=None).steps == free.steps  # bit for bit
    assert beam_select(values, targets, fit=None, width=2).options["width"] == 2


@pytest.mark.usefixtures("no_curve")
def test_backward_stops_where_it_says() -> None:
    values, targets = problem(2)
    score = scorer(values, targets, "raw")
    start = score(list(range(10)))
    for tol in (0.0, 0.02, 0.5, 2.0):
        found = backward_eliminate(values, targets, fit=None, start=map_names(10), tol=tol)
        check_path(found, score)
        assert found.value >= start - tol
        highest = np.maximum.accumulate([start, *found.curve])
        assert all(value >= top - tol for value, top in zip(found.curve, highest, strict=False))
        chosen = [m.channel for m in found.maps]
        if len(chosen) > 1:  # what comes next would have fallen too far
            assert max(score([m for m in chosen if m != r]) for r in chosen) < highest[-1] - tol
    assert len(found) == 1
    kept = backward_eliminate(values, targets, fit=None, start=map_names(10), tol=2.0, min_maps=4)
    assert len(kept) == 4
    assert kept.options["min_maps"] == 4
    assert backward_eliminate(values, targets, fit=None, start=["map:3"], min_maps=4).steps == ()


@pytest.mark.parametrize("pool", ["mean", "layer_geometric"])
def test_tries_on_several_sets_are_the_criteria_of_each_set(pool: str) -> None:
    values, targets = problem(3, images=30, maps=6)
    values, maps = values.sigmoid(), MapIndex.of_layers({"a": 2, "b": 3, "c": 1})
    candidates = Candidates(values, targets, maps, objective=Objective(fit=None), pool=pool)  # type: ignore[arg-type]
    sets = [[0, 1, 5], [2, 3], [4, 0, 2]]
    members = torch.tensor([[m in s for m in range(6)] for s in sets])
    for leaving, allowed in ((False, ~members), (True, members)):
        tried = candidates.tried(sets, allowed, leaving=leaving).values
        for row, chosen in zip(tried, sets, strict=True):
            for m in range(6):
                if (m in chosen) is not leaving:
                    assert row[m] == -math.inf
                    continue
                changed = [i for i in chosen if i != m] if leaving else [*chosen, m]
                pooled = pool_scores(values[:, changed], maps.at(changed), pool=pool)  # type: ignore[arg-type]
                expected = stats.pearsonr(pooled.numpy(), targets.numpy())[0]
                assert float(row[m]) == pytest.approx(expected, abs=1e-12)


def test_a_removal_shows_in_table_plot_and_file(tmp_path) -> None:
    values, targets = nested()
    found = floating_select(values, targets, fit=None)
    last = found.table()[-1]
    assert last[1] == "-map:0"
    assert last[4].startswith("-map:")
    assert "-map:0" in str(found)
    pytest.importorskip("matplotlib")
    line = found.plot().lines[0]
    assert list(line.get_xdata()) == [1, 2, 3, 2]
    given = backward_eliminate(values, targets, fit=None, start=map_names(3))
    assert list(given.plot().lines[0].get_xdata()) == [2]
    found.save(tmp_path / "floating.json")
    loaded = Selection.load(tmp_path / "floating.json")
    assert [s.label(s.map) for s in loaded.steps] == [s.label(s.map) for s in found.steps]
    assert loaded.maps == found.maps


@SEARCHES
def test_same_on_device(search: Search, device: torch.device) -> None:
    values, targets = problem(4)
    here = search(values.to(device), targets.to(device), fit=None)
    assert here.maps == search(values, targets, fit=None).maps


@pytest.mark.parametrize(
    ("search", "change", "message"),
    [
        (beam_select, {"width": 0}, "width is a whole number from 1, got 0"),
        (backward_eliminate, {"min_maps": 0}, "min_maps is a whole number from 1, got 0"),
        (backward_eliminate, {"start": []}, "start is empty"),
        (backward_eliminate, {"start": ["map:0", "map:9"]}, "undefined"),
        (backward_eliminate, {"start": ["conv9:1"]}, "no such feature map: conv9:1"),
        (backward_eliminate, {"tol": -1.0}, "tol is a gain"),
        (floating_select, {"max_maps": 0}, "max_maps is a whole number from 1"),
        (floating_select, {"criterion": "pearson"}, "criterion is one of"),
        (beam_select, {"pool": "median"}, "pool must be one of"),
    ],
)
def test_bad_options_are_named(search: Search, change: dict[str, object], message: str) -> None:
    values, targets = problem(0)
    values[3, 9] = torch.nan
    with pytest.raises(fmiqa.InputError, match=message):
        search(values, targets, **change)
