"""A budget of cost: no search leaves it, and every search chooses what is best within it."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import fmiqa
from fmiqa import Costs, InputError, MapIndex, ScoreMatrix, SearchOptions, Selection
from fmiqa.selection.budget import Budget

SEARCHES = pytest.mark.parametrize(
    "search", [fmiqa.forward_select, fmiqa.floating_select, fmiqa.beam_select, fmiqa.backward_eliminate]
)
# A stem, then two branches, which meet again at the end.
COSTS = Costs(
    {"s": 1, "l": 3, "r": 4, "e": 2},
    {"stem": "s", "left": ["s", "l"], "right": ["s", "r"], "end": ["s", "l", "r", "e"]},
)


def matrix(seed: int = 0, images: int = 60, channels: int = 4, **options: Any) -> ScoreMatrix:
    """Noisy maps of four layers, less noisy the later the layer."""
    generator = torch.Generator().manual_seed(seed)
    maps = MapIndex.of_layers(dict.fromkeys(["stem", "left", "right", "end"], channels))
    targets = torch.rand(images, generator=generator, dtype=torch.float64)
    noise = torch.linspace(2.0, 0.5, len(maps)) * torch.rand(images, len(maps), generator=generator)
    groups = [f"r{i // 6}" for i in range(images)]
    names = [f"image{i}" for i in range(images)]
    distortions = [f"d{i % 3}" for i in range(images)]
    return ScoreMatrix(targets[:, None].float() + noise, maps, targets, groups, names, distortions, options)


def alexnet(images: int = 60) -> ScoreMatrix:
    """Noisy maps of three layers of AlexNet, as far as the matrix says."""
    scores = matrix(images=images).columns([f"{layer}:{c}" for layer in ("stem", "left", "end") for c in range(4)])
    maps = MapIndex.of_layers({"conv1": 4, "conv2": 4, "conv5": 4})
    return replace(scores, maps=maps, options={"dataset": "noise", "network": "alexnet", "viewing": {}})


def test_affordable_is_what_the_share_of_each_larger_set_says() -> None:
    scores = matrix(channels=2)
    sets = [list(chosen) for k in range(4) for chosen in itertools.combinations(range(8), k)]
    for share in (0.1, 0.4, 0.5, 0.8, 0.999, 1.0):
        budget = Budget(COSTS, share, scores.maps, start=MapIndex([]), device="cpu")
        within = [chosen for chosen in sets if COSTS.share(scores.maps.at(chosen)) <= share]
        expected = [[COSTS.share(scores.maps.at({*s, m})) <= share for m in range(8)] for s in within]
        assert budget.affordable(within).tolist() == expected


@SEARCHES
@pytest.mark.parametrize("share", [0.1, 0.4, 0.5, 0.8, 1.0])
def test_no_search_leaves_its_budget(search: Callable[..., Selection], share: float) -> None:
    scores = matrix()
    found = search(scores, budget=share, costs=COSTS, fit=None)
    assert COSTS.share(found.maps) <= share
    assert found.options["cost_share"] == COSTS.share(found.maps)
    chosen = list[str]()
    for step in found.steps:  # nor on the way
        chosen = [m for m in chosen if m != str(step.map)] if step.removed else [*chosen, str(step.map)]
        assert COSTS.share(chosen) <= share


def test_a_budget_changes_the_choice_as_worked_out_by_hand() -> None:
    y = torch.linspace(0, 1, 40, dtype=torch.float64)
    wave = torch.sin(37 * y)
    # The best map is the deepest; next best is one of the left branch, and the stem's makes up for its noise.
    values = torch.stack([y - 0.3 * wave, y + 0.3 * wave, y + 0.5 * wave, y], 1)
    maps = MapIndex(["stem:0", "left:0", "right:0", "end:0"])
    names = [str(i) for i in range(40)]
    scores = ScoreMatrix(values, maps, y, names, names)

    def chosen(share: float, tried: int) -> list[str]:
        found = fmiqa.forward_select(scores, fit=None, budget=share, costs=COSTS, tol=1e-9)
        assert found.steps[0].candidates == tried
        return sorted(map(str, found.maps))

    assert chosen(1.0, 4) == ["end:0"]
    assert chosen(0.9, 3) == ["left:0", "stem:0"]
    assert chosen(0.5, 2) == ["left:0", "stem:0"]
    assert chosen(0.3, 1) == ["stem:0"]


def test_choices_are_the_largest_affordable_sets_of_layers() -> None:
    maps = MapIndex([f"{layer}:{c}" for layer in COSTS.layers for c in range(2)])
    for share in (0.1, 0.4, 0.5, 0.8, 0.999, 1.0):
        for start in ([], ["right:0"]):
            if COSTS.share(start) > share:
                continue
            sets = [set(chosen) for k in range(5) for chosen in itertools.combinations(COSTS.layers, k)]
            fit = [s for s in sets if COSTS.of_layers({*s, *MapIndex(start).layers}) / COSTS.all <= share]
            largest = [s for s in fit if not any(s < other for other in fit)]
            budget = Budget(COSTS, share, maps, start=MapIndex(start), device="cpu")
            found = [{m.layer for m, is_in in zip(maps, row, strict=True) if is_in} for row in budget.choices.tolist()]
            assert sorted(map(sorted, found)) == sorted(map(sorted, largest))


def test_where_choices_are_many_there_is_one() -> None:
    costs = Costs({f"c{i}": 1 for i in range(12)}, {f"c{i}": [f"c{i}"] for i in range(12)})
    maps = MapIndex.of_layers(dict.fromkeys(costs.layers, 2))
    budget = Budget(costs, 0.5, maps, start=MapIndex([]), device="cpu")
    assert budget.choices.tolist() == [[True] * 24]
    values = torch.rand(40, 24, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    scores = ScoreMatrix(values, maps, values.mean(1), ["a"] * 40, [str(i) for i in range(40)])
    found = fmiqa.forward_select(scores, budget=0.5, costs=costs, fit=None)
    assert 6 <= len(found) <= 12
    assert costs.share(found.maps) == 0.5


def test_a_layer_that_is_best_at_first_does_not_spend_the_budget() -> None:
    y, a, b = torch.rand(3, 60, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    # right:0 is the best map alone, but those of left are the targets together, and only one branch is affordable.
    values = torch.stack([y + 0.7 * b, y + a, y - a], 1)
    maps = MapIndex(["right:0", "left:0", "left:1"])
    scores = ScoreMatrix(values, maps, y, [f"r{i // 6}" for i in range(60)], [str(i) for i in range(60)])
    options = SearchOptions(fit=None, budget=0.7, costs=COSTS.keep(["left", "right"]))  # 4 and 5 of 8
    assert [str(m) for m in fmiqa.forward_select(scores, fit=None, max_maps=1).maps] == ["right:0"]
    searches = (fmiqa.forward_select, fmiqa.floating_select, fmiqa.beam_select, fmiqa.backward_eliminate)
    for search in searches:
        steps: list[object] = []
        more = {"callback": steps.append} if search is fmiqa.forward_select else {}
        found = search(scores, options=options, **more)  # type: ignore[operator]
        assert sorted(map(str, found.maps)) == ["left:0", "left:1"]
        assert found.value == pytest.approx(1, abs=1e-12)
        assert not more or steps == list(found.steps)
    for selected in fmiqa.cross_validate(scores, options=options).selected:
        assert sorted(map(str, selected)) == ["left:0", "left:1"]
    null = fmiqa.permutation_null(scores, options=options, permutations=3)
    assert float(null.observed[-1]) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("fit", [None, "logistic5"])
def test_each_part_finds_what_its_own_search_finds(fit: Any) -> None:
    scores = matrix(images=40)
    splits = fmiqa.grouped_folds(scores.groups, folds=3)
    options = SearchOptions(budget=0.5, costs=COSTS, fit=fit, max_maps=3)
    found = fmiqa.cross_validate(scores, options=options, splits=splits)
    for maps, split in zip(found.selected, splits, strict=True):
        assert maps == fmiqa.forward_select(scores.rows(split.train), options=options).maps


def test_a_budget_of_all_changes_nothing() -> None:
    for seed in range(5):
        scores = matrix(seed)
        plain = fmiqa.forward_select(scores, fit=None)
        found = fmiqa.forward_select(scores, fit=None, budget=1, costs=COSTS)
        assert (found.maps, found.steps, found.value) == (plain.maps, plain.steps, plain.value)


def test_in_a_chain_a_budget_excludes_the_layers_that_are_too_deep() -> None:
    scores = alexnet()
    shares = {layer: Costs.of_matrix(scores).share([f"{layer}:0"]) for layer in ("conv1", "conv2", "conv5")}
    assert shares["conv1"] < 0.11 < shares["conv2"] < 0.45 < shares["conv5"] == 1
    within = fmiqa.forward_select(scores, budget=0.45, fit=None)
    excluded = fmiqa.forward_select(scores, exclude=[f"conv5:{c}" for c in range(4)], fit=None)
    assert (within.maps, within.value) == (excluded.maps, excluded.value)


@pytest.mark.parametrize("share", [0.11, 0.45])
def test_every_fold_and_sample_keeps_to_the_budget(share: float) -> None:
    scores = alexnet()
    costs = Costs.of_matrix(scores)
    options = SearchOptions(budget=share, fit=None)
    validation = fmiqa.cross_validate(scores, options=options)
    stability = fmiqa.stability_selection(scores, options=options, max_maps=2, subsamples=6)
    other = fmiqa.cross_validate(scores, search=lambda part: fmiqa.beam_select(part, options=options), folds=2)
    for found in (validation, stability, other):
        assert all(costs.share(maps) <= share for maps in found.selected)
        assert found.options["budget"] == share
        assert found.options["costs"] == costs.to_dict()
        assert "cost_share" not in found.options
    free = fmiqa.cross_validate(scores, fit=None)
    assert any(costs.share(maps) > share for maps in free.selected)
    null = fmiqa.permutation_null(scores, options=options, max_maps=1, permutations=4)
    assert null.options["budget"] == share


def test_a_start_is_paid_too() -> None:
    scores = matrix()
    found = fmiqa.forward_select(scores, start=["left:0"], budget=0.5, costs=COSTS, fit=None)
    assert {m.layer for m in found.maps} <= {"stem", "left"}
    for search in (fmiqa.forward_select, fmiqa.backward_eliminate, fmiqa.cross_validate):
        with pytest.raises(InputError, match=r"maps in start take 0.8 of what all maps cost, more than budget=0.5"):
            search(scores, start=["left:0", "right:0"], budget=0.5, costs=COSTS)  # type: ignore[operator]


def test_costs_alone_are_recorded() -> None:
    found = fmiqa.forward_select(matrix(), costs=COSTS, fit=None)
    assert found.options["budget"] is None
    assert found.options["cost_share"] == COSTS.share(found.maps)
    assert found.maps == fmiqa.forward_select(matrix(), fit=None).maps


def test_a_result_with_a_budget_comes_back_from_its_file(tmp_path: Path) -> None:
    found = fmiqa.forward_select(alexnet(), budget=0.45, fit=None)
    found.save(tmp_path / "s.json")
    again = Selection.load(tmp_path / "s.json")
    assert (again.maps, again.options) == (found.maps, found.options)
    assert again.options["costs"]["unit"] == "multiplications"
    assert again.options["costs"]["size"] == [384, 512]
    assert json.loads(json.dumps(SearchOptions(budget=0.5, costs=COSTS).to_dict()))["costs"] == COSTS.to_dict()
    assert SearchOptions().to_dict()["costs"] is None


def test_measured_costs_bound_a_search_alike() -> None:
    measured = replace(COSTS, unit="milliseconds")
    found = fmiqa.forward_select(matrix(), budget=0.5, costs=measured, fit=None)
    assert found.maps == fmiqa.forward_select(matrix(), budget=0.5, costs=COSTS, fit=None).maps
    assert found.options["costs"] == {"unit": "milliseconds", "size": None, "all": 10.0}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"budget": 0}, "above 0 and at most 1, got 0"),
        ({"budget": 1.5}, "got 1.5"),
        ({"budget": "half"}, "got 'half'"),
        ({"budget": float("nan")}, "got nan"),
        ({"costs": 3.0}, "costs are fmiqa.Costs, such as .*got 3.0"),
        ({"budget": 0.05, "costs": COSTS}, "pays for no map: those of stem, the cheapest layer, take 0.1 of"),
        ({"budget": 0.5}, "record no network to count multiplications of; pass costs="),
        ({"budget": 0.5, "costs": COSTS.keep(["stem"])}, "known of stem; got left, right, end"),
        ({"costs": COSTS.keep(["stem"])}, "known of stem; got left, right, end"),
    ],
)
def test_errors_say_what_to_do(options: Mapping[str, Any], message: str) -> None:
    for search in (fmiqa.forward_select, fmiqa.cross_validate):
        with pytest.raises(InputError, match=message):
            search(matrix(), **options)


def test_plain_numbers_need_costs() -> None:
    values: Tensor = matrix().values
    targets = matrix().targets
    with pytest.raises(InputError, match=r"record no network .* pass costs="):
        fmiqa.forward_select(values, targets, budget=0.5)
    costs = Costs({"a": 1}, {"map": ["a"]})
    assert len(fmiqa.forward_select(values, targets, budget=1, costs=costs, max_maps=1)) == 1
