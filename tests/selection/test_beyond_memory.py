"""Forward selection on stores against the same search in memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import fmiqa
from fmiqa import Costs, InputError, MapIndex, ScoreMatrix, ScoreStore, Selection, forward_select, write_store
from fmiqa.selection.beyond_memory import forward_select_store
from fmiqa.selection.prior import consensus
from fmiqa.selection.survey import stored_consensus, stratified


def planted(images: int = 600, maps: int = 60, seed: int = 0) -> ScoreMatrix:
    """Scores of which a few maps each know a part of the quality, and the others know little."""
    generator = torch.Generator().manual_seed(seed)
    parts = torch.rand(images, 4, generator=generator, dtype=torch.float64)
    targets = torch.sigmoid(4 * (parts.sum(1) - 2))
    strength = 0.1 * torch.rand(4, maps, generator=generator, dtype=torch.float64)
    strength[:, 5:25:5] = torch.eye(4, dtype=torch.float64)
    noise = 0.2 * torch.randn(images, maps, generator=generator, dtype=torch.float64)
    values = (parts @ strength + noise * (0.3 + torch.rand(maps, generator=generator, dtype=torch.float64))).float()
    values[3, 30], values[:, 31] = torch.nan, 0.5
    names = [f"{i}.png" for i in range(images)]
    index = MapIndex.of_layers({"conv1": maps // 2, "conv2": maps - maps // 2})
    return ScoreMatrix(values, index, targets, [str(i // 20) for i in range(images)], names, options={"dataset": "Toy"})


Stored = Callable[[ScoreMatrix], ScoreStore]


@pytest.fixture
def stored(tmp_path: Path) -> Stored:
    return lambda scores: write_store(tmp_path / "scores", [scores], block_images=128)


def assert_equal(found: Selection, expected: Selection, *, runner_up: bool = True) -> None:
    """The same maps, steps and options; values are sums of some hundred products in float64, in another order."""
    assert found.maps == expected.maps
    torch.testing.assert_close(torch.tensor(found.curve), torch.tensor(expected.curve), rtol=0, atol=1e-11)
    assert found.value == pytest.approx(expected.value, abs=1e-11)
    for own, other in zip(found.steps, expected.steps, strict=True):
        assert (own.map, own.candidates) == (other.map, other.candidates)
        if not runner_up:  # the best of all is not always among the candidates that were fitted again
            continue
        assert own.runner_up == other.runner_up
        assert own.runner_up_value == pytest.approx(other.runner_up_value, abs=1e-11, nan_ok=True)
    assert {k: v for k, v in found.options.items() if k != "sampled"} == expected.options
    assert found.source == expected.source
    assert (found.fit is None) == (expected.fit is None)
    if found.fit is not None and expected.fit is not None:
        assert float(found.fit.plcc) == pytest.approx(float(expected.fit.plcc), abs=1e-9)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"max_maps": 3},
        {"direction": "any"},
        {"tol": 0.01},
        {"start": ["conv1:7", "conv2:8"]},
        {"exclude": ["conv1:5", "conv1:10"]},
        {"prior": "consensus"},
        {"prior": "consensus", "alpha": 0.3, "start": ["conv1:0"], "max_maps": 6},
        {"prior": "consensus", "alpha": 0, "max_maps": 8},
        {"costs": Costs({"a": 1.0, "b": 3.0}, {"conv1": ("a",), "conv2": ("a", "b")})},
    ],
)
def test_the_linear_search_is_that_in_memory(stored: Stored, options: dict[str, Any]) -> None:
    scores = planted()
    found = forward_select(stored(scores), fit=None, **options)
    assert_equal(found, forward_select(scores, fit=None, **options))
    assert len(found) >= 2


def test_the_linear_search_without_subjective_scores(stored: Stored) -> None:
    scores = planted()
    unknown = replace(scores, targets=torch.full_like(scores.targets, torch.nan))
    options: dict[str, Any] = {"fit": None, "prior": "consensus", "alpha": 0, "max_maps": 5}
    assert_equal(forward_select(stored(unknown), **options), forward_select(unknown, **options))


def test_other_targets_can_be_given(stored: Stored) -> None:
    scores = planted()
    other = scores.targets.flip(0) + scores.values[:, 9].double()
    assert_equal(forward_select(stored(scores), other, fit=None), forward_select(scores, other, fit=None))


@pytest.mark.parametrize("options", [{"max_maps": 4}, {"prior": "consensus", "max_maps": 3}])
def test_a_sample_of_all_images_gives_the_search_in_memory(stored: Stored, options: dict[str, Any]) -> None:
    scores = planted(200, 40)
    assert_equal(forward_select(stored(scores), **options), forward_select(scores, **options))


@pytest.mark.parametrize(
    "options",
    [
        {"max_maps": 6},
        {"prior": "consensus", "max_maps": 3},
        {"prior": "consensus", "alpha": 0, "max_maps": 2},
        {"direction": "any", "start": ["conv1:7"], "max_maps": 3},
    ],
)
def test_a_sampled_search_finds_the_planted_maps(stored: Stored, options: dict[str, Any], device: torch.device) -> None:
    scores = planted()
    found = forward_select_store(stored(scores), sample=200, retried=8, device=device, **options)
    assert_equal(found, forward_select(scores, **options), runner_up=False)
    sampled = found.options["sampled"]
    assert sampled["images"] == 200
    assert len(sampled["places"]) == len(sampled["retried"]) == len(sampled["margins"]) == len(found.steps)
    assert all(place <= retried for place, retried in zip(sampled["places"], sampled["retried"], strict=True))
    assert all(margin is None or margin >= 4 for margin in sampled["margins"])
    assert min(sampled["retried"]) < 40


def test_a_poor_sample_costs_time_and_no_maps(stored: Stored) -> None:
    """A sample of 8 images ranks hardly better than chance: nearly all candidates are fitted again."""
    scores = planted()
    found = forward_select_store(stored(scores), sample=8, retried=4, max_maps=3)
    assert_equal(found, forward_select(scores, max_maps=3), runner_up=False)
    assert max(found.options["sampled"]["places"]) > 4
    assert f"in place {max(found.options['sampled']['places'])} by" in found.notes[0]


def test_steps_are_called_back(stored: Stored) -> None:
    steps: list[fmiqa.selection.Step] = []
    found = forward_select(stored(planted()), fit=None, callback=steps.append)
    assert tuple(steps) == found.steps


def test_a_selection_from_a_store_is_saved_and_used(stored: Stored, tmp_path: Path) -> None:
    store = stored(planted())
    found = forward_select_store(store, sample=100, max_maps=2)
    found.save(tmp_path / "selection.json")
    again = Selection.load(tmp_path / "selection.json")
    assert again.options == found.options
    assert torch.equal(again.combine(store.columns(found.maps)), found.combine(store.load()))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"criterion": "srocc"}, "criterion='srocc'"),
        ({"criterion": "krocc"}, "criterion='krocc'"),
        ({"pool": "harmonic"}, "pool"),
        ({"pool": "layer_geometric"}, "pool='layer_geometric'"),
        ({"budget": 0.5}, r"budget=0\.5"),
        ({"start": ["conv9:0"]}, "conv9:0"),
        ({"exclude": [f"conv{i + 1}:{c}" for i in range(2) for c in range(30)]}, "none of the 60 maps"),
    ],
)
def test_what_cannot_be_searched_is_refused_by_name(stored: Stored, options: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError, match=named):
        forward_select(stored(planted()), fit=None, **options)


def test_wrong_arguments_are_refused(stored: Stored) -> None:
    scores = planted()
    store = stored(scores)
    for name in ("sample", "retried"):
        with pytest.raises(InputError, match=f"{name} is a whole number"):
            forward_select_store(store, **{name: 0})  # type: ignore[arg-type]
    with pytest.raises(InputError, match="need one score for each"):
        forward_select(store, scores.targets[1:], fit=None)
    with pytest.raises(InputError, match="not all equal"):
        forward_select(store, torch.ones(600), fit=None)
    for other in (fmiqa.weighted_select, fmiqa.beam_select, fmiqa.permutation_null):
        with pytest.raises(InputError, match=r"store\.load\(\)"):
            other(store)  # type: ignore[operator]


def test_several_data_sets_are_refused(tmp_path: Path) -> None:
    both = ScoreMatrix.stack({"one": planted(), "other": planted(seed=1)})
    with pytest.raises(InputError, match="several data sets"):
        forward_select(both.to_store(tmp_path / "both"), fit=None)


def test_the_consensus_is_that_in_memory(stored: Stored) -> None:
    scores = planted()
    torch.testing.assert_close(stored_consensus(stored(scores), False), consensus(scores.values), rtol=0, atol=1e-14)


def test_a_sample_is_even_along_the_scores() -> None:
    scores = torch.rand(1000, generator=torch.Generator().manual_seed(0), dtype=torch.float64).square()
    rows = stratified(scores, 100)
    assert len(rows.unique()) == 100
    assert torch.equal(rows, rows.sort().values)
    ranks = scores.argsort().argsort()[rows].sort().values
    assert torch.equal(ranks // 10, torch.arange(100))
    assert torch.equal(stratified(scores, 1000), torch.arange(1000))


@pytest.mark.parametrize(
    "options",
    [
        {"max_maps": 5},
        {"direction": "any", "tol": 0.01},
        {"prior": "consensus", "start": ["conv1:7", "conv2:8"], "max_maps": 6},
        {"prior": "consensus", "alpha": 0, "max_maps": 3},
    ],
)
@pytest.mark.parametrize("how", [{"folds": 4}, {"folds": 7, "seed": 3}])
def test_a_validation_by_subtraction_is_that_in_memory(
    stored: Stored, options: dict[str, Any], how: dict[str, Any]
) -> None:
    scores = planted()
    found = fmiqa.cross_validate(stored(scores), fit=None, **how, **options)
    scores = scores.columns([m for m in scores.maps if str(m) != "conv2:0"])  # not finite on one image
    expected = fmiqa.cross_validate(scores, fit=None, **how, **options)
    assert found.selected == expected.selected
    for name in ("in_sample", "plcc", "srocc"):
        # Logistic fits of equal combined scores to rounding; a fit repeats to some 1e-9.
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), rtol=0, atol=1e-8)
    assert found.predictions is not None
    assert expected.predictions is not None
    torch.testing.assert_close(found.predictions, expected.predictions, rtol=0, atol=1e-6)
    assert int(found.all_plcc.isnan().sum()) == 1  # of the image with a map that is not finite
    assert found.options == expected.options
    assert found.held_out == expected.held_out


def test_what_cannot_be_validated_is_refused_by_name(stored: Stored) -> None:
    store = stored(planted())
    with pytest.raises(InputError, match="fit='logistic5'"):
        fmiqa.cross_validate(store)
    with pytest.raises(InputError, match="repeats=1"):
        fmiqa.cross_validate(store, fit=None, repeats=2)
    with pytest.raises(InputError, match="criterion='srocc'"):
        fmiqa.cross_validate(store, criterion="srocc")
    with pytest.raises(InputError, match="forward selection alone"):
        fmiqa.cross_validate(store, search=fmiqa.weighted_select)
