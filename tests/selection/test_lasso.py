"""Weighted selection, joined matrices and mixed metrics: networks and scales side by side."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import fmiqa
from fmiqa import (
    Costs,
    FeatureExtractor,
    MapIndex,
    ScoreMatrix,
    SelectedFeatureIQM,
    Selection,
    Viewing,
    weighted_select,
)
from fmiqa.datasets import Sample
from fmiqa.features.checkpoints import seeded_state
from fmiqa.features.networks import blank_network
from fmiqa.selection.lasso import STRENGTHS, nonnegative_path


def planted() -> tuple[torch.Tensor, torch.Tensor, list[str]]:
    generator = torch.Generator().manual_seed(0)
    y = torch.rand(120, generator=generator, dtype=torch.float64)
    values = torch.rand(120, 40, generator=generator, dtype=torch.float64)
    values[:, 7] = 0.5 * values[:, 7] + y
    values[:, 21] = 0.8 * values[:, 21] + y
    return values, y, [f"r{i // 12}" for i in range(120)]


def test_finds_planted_maps_and_reports_what_it_tried() -> None:
    values, y, groups = planted()
    selection = weighted_select(values, y, groups=groups)
    assert {m.channel for m in selection.maps[:2]} == {7, 21}
    assert selection.weights is not None
    assert bool((selection.weights > 0).all())
    assert "weight" in str(selection)


def test_the_strength_is_the_best_or_the_strongest_within_one_standard_error() -> None:
    values, y, groups = planted()
    best = weighted_select(values, y, prior=None, groups=groups, powers=(1.0, 2.0), rule="best")
    top = max(best.options["inner"], key=lambda e: e["held_out_plcc"])
    assert (top["power"], top["strength"]) == (best.power, best.options["strength"])
    strict = weighted_select(values, y, prior=None, groups=groups, powers=(1.0, 2.0), rule="one_standard_error")
    assert strict.power == best.power
    assert strict.options["strength"] >= best.options["strength"]
    assert len(strict) <= len(best)
    # The same figures by hand: the inner folds, each strength's PLCC, its standard error.
    folds = []
    for split in fmiqa.grouped_folds(groups, folds=5, seed=0):
        path = nonnegative_path(
            values[split.train] ** strict.power, y[split.train], torch.ones(1, len(split.train)).double(), STRENGTHS
        )
        predicted = path.weights[0] @ (values[split.held_out] ** strict.power).T
        folds.append([float(fmiqa.plcc(p, y[split.held_out])) if p.any() else 0.0 for p in predicted])
    table = torch.tensor(folds, dtype=torch.float64)
    means, errors = table.mean(0), table.std(0) / 5**0.5
    k = int(means.argmax())
    expected = next(s for s, mean in zip(STRENGTHS, means, strict=True) if mean >= means[k] - errors[k])
    assert strict.options["strength"] == expected


def observed(seed: int = 0, images: int = 72, channels: int = 3, layers: int = 4) -> ScoreMatrix:
    """Noisy maps of several layers, less noisy the later the layer."""
    generator = torch.Generator().manual_seed(seed)
    maps = MapIndex.of_layers({f"c{i}": channels for i in range(layers)})
    y = torch.rand(images, generator=generator, dtype=torch.float64)
    noise = torch.linspace(2.0, 0.5, len(maps)) * torch.rand(images, len(maps), generator=generator)
    groups, names = [f"r{i // 6}" for i in range(images)], [str(i) for i in range(images)]
    return ScoreMatrix(y[:, None] + noise, maps, 3 + 5 * y, groups, names)


def apart(layers: int) -> Costs:
    """Layers of one cost that share nothing."""
    return Costs({f"c{i}": 1 for i in range(layers)}, {f"c{i}": [f"c{i}"] for i in range(layers)})


def weights_of(selection: Selection, scores: ScoreMatrix) -> torch.Tensor:
    """(M,) the weights of all maps, 0 for those that were not selected."""
    assert selection.weights is not None
    found = torch.zeros(len(scores.maps), dtype=torch.float64)
    found[scores.maps.positions(selection.maps)] = selection.weights
    return found


@pytest.mark.parametrize("alpha", [0.0, 0.5, 0.75, 1.0])
def test_the_defaults_by_hand(alpha: float) -> None:
    """The blend of each fold's own images is fitted; the strength is the best by what the observers say."""
    scores = observed()
    found = weighted_select(scores, alpha=alpha)
    x, y, c = scores.values.double().square(), scores.targets, scores.values.double().mean(1)

    def blend(rows: torch.Tensor) -> torch.Tensor:
        human = (y[rows] - y[rows].mean()) / y[rows].std() * c[rows].std() + c[rows].mean()
        return alpha * human + (1 - alpha) * c[rows]

    splits = fmiqa.grouped_folds(scores.groups, folds=5, seed=0)
    fitted, counts = torch.zeros(2, 5, len(y), dtype=torch.float64)
    for fold, split in enumerate(splits):
        fitted[fold, split.train], counts[fold, split.train] = blend(split.train), 1
    # All folds together, since the descent stops for all at once, at moves of 1e-4 in standardised weights.
    weights = nonnegative_path(x, fitted, counts, STRENGTHS).weights
    judge = y if alpha else c  # without observers, the consensus
    folds = [fmiqa.plcc(w @ x[s.held_out].T, judge[s.held_out]) for w, s in zip(weights, splits, strict=True)]
    means = torch.stack(folds).mean(0)
    # A fit of numbers that differ in the last digits.
    assert [e["held_out_plcc"] for e in found.options["inner"]] == pytest.approx(means.tolist(), abs=1e-7)
    assert found.options["strength"] == STRENGTHS[int(means.argmax())]
    upto = STRENGTHS[: int(means.argmax()) + 1]
    every = torch.arange(len(y))
    expected = nonnegative_path(x, blend(every), torch.ones(1, len(y), dtype=torch.float64), upto).weights[0, -1]
    # The same descent on the same numbers but for their last digits.
    torch.testing.assert_close(weights_of(found, scores), expected, atol=1e-8, rtol=0)
    assert found.value == pytest.approx(float(fmiqa.plcc(x @ expected, judge)), abs=1e-7)  # a fit of these numbers
    recorded = {key: found.options[key] for key in ("prior", "alpha", "power", "rule")}
    assert recorded == {"prior": "consensus", "alpha": alpha, "power": 2.0, "rule": "best"}


def test_alpha_0_needs_no_observers_and_never_looks_at_them() -> None:
    scores = observed()
    flipped = replace(scores, targets=scores.targets.flip(0))
    missing = replace(scores, targets=torch.full_like(scores.targets, torch.nan))
    found = [weighted_select(m, alpha=0) for m in (scores, flipped, missing)]
    found.append(weighted_select(scores.values, alpha=0, groups=scores.groups))
    for other in found[1:]:
        assert torch.equal(other.weights, found[0].weights)  # type: ignore[arg-type]
        assert other.value == found[0].value
    assert found[1].maps == found[2].maps == found[0].maps
    assert found[2].fit is None
    with pytest.raises(fmiqa.InputError, match="finite scores"):
        weighted_select(missing, prior=None)


def test_alpha_says_whom_the_weights_follow() -> None:
    """map:7 and map:21 of the planted maps say what observers say; the consensus is mostly that of the others."""
    values, y, groups = planted()
    agreement = {}
    for alpha in (0.0, 0.5, 1.0):
        found = weighted_select(values, y, alpha=alpha, groups=groups, strengths=[0.03])
        combined = found.combine(values_as_matrix(values, y))
        agreement[alpha] = [float(fmiqa.plcc(combined, other, fit=None)) for other in (y, values.mean(1))]
    assert agreement[0.0][0] < agreement[0.5][0] < agreement[1.0][0]
    assert agreement[0.0][1] > agreement[0.5][1] > agreement[1.0][1]


def values_as_matrix(values: torch.Tensor, y: torch.Tensor) -> ScoreMatrix:
    names = [str(i) for i in range(len(y))]
    return ScoreMatrix(values, MapIndex.of_layers({"map": values.shape[1]}), y, names, names)


def test_excluded_maps_count_for_the_consensus_only() -> None:
    scores = observed()
    free = weighted_select(scores)
    found = weighted_select(scores, exclude=free.maps[:2])
    assert not set(free.maps[:2]) & set(found.maps)
    kept = [m for m in scores.maps if m not in free.maps[:2]]
    alone = weighted_select(scores.columns(kept))  # whose consensus is another
    assert found.weights is not None
    assert not torch.equal(weights_of(found, scores), weights_of(alone, scores))


@given(st.integers(0, 10**6), st.sampled_from([0.26, 0.5, 0.76, 1.0]))
@settings(max_examples=8, deadline=None)
def test_a_budget_is_kept(seed: int, share: float) -> None:
    scores, costs = observed(seed, images=48), apart(4)
    found = weighted_select(scores, budget=share, costs=costs)
    assert costs.share(found.maps) <= share
    assert found.options["cost_share"] == costs.share(found.maps)
    assert found.options["budget"] == share


def test_the_best_affordable_set_of_layers_is_taken() -> None:
    scores, costs = observed(layers=3), apart(3)
    found = weighted_select(scores, budget=0.7, costs=costs)
    pairs = []
    for left_out in range(3):
        # Layers that may not be selected still count for the consensus.
        other = weighted_select(scores, exclude=[m for m in scores.maps if m.layer == f"c{left_out}"])
        pairs.append((max(e["held_out_plcc"] for e in other.options["inner"]), other))
    best = max(pairs, key=lambda pair: pair[0])[1]
    assert found.maps == best.maps
    assert torch.equal(found.weights, best.weights)  # type: ignore[arg-type]


def test_a_budget_of_all_changes_nothing() -> None:
    scores = observed()
    plain, found = weighted_select(scores), weighted_select(scores, budget=1, costs=apart(4))
    assert found.maps == plain.maps
    assert torch.equal(found.weights, plain.weights)  # type: ignore[arg-type]


def test_where_affordable_sets_of_layers_are_many_the_budget_is_kept_too() -> None:
    """Of twelve layers, six are affordable: 924 sets. Layers are paid in the order of what they contribute."""
    scores, costs = observed(layers=12, channels=2), apart(12)
    free = weighted_select(scores, costs=costs)
    assert costs.share(free.maps) > 0.25
    found = weighted_select(scores, budget=0.25, costs=costs)
    first = list(dict.fromkeys(m.layer for m in free.maps))[:3]
    assert {m.layer for m in found.maps} <= set(first)
    assert found.options["cost_share"] == costs.share(found.maps) <= 0.25
    excluded = weighted_select(scores, exclude=[m for m in scores.maps if m.layer not in first])
    assert found.maps == excluded.maps


def test_a_budget_that_pays_for_no_usable_map_is_named() -> None:
    scores, costs = observed(layers=2), Costs({"c0": 1, "c1": 9}, {"c0": ["c0"], "c1": ["c0", "c1"]})
    scores.values[:, :3] = 0.5
    with pytest.raises(fmiqa.InputError, match=r"budget=0.1 pays for no usable map; give a larger budget"):
        weighted_select(scores, budget=0.1, costs=costs)


def test_weighted_options_are_checked() -> None:
    values, y, groups = planted()
    with pytest.raises(fmiqa.InputError, match="rule is one of one_standard_error, best, got 'first'"):
        weighted_select(values, y, groups=groups, rule="first")  # type: ignore[arg-type]
    with pytest.raises(fmiqa.InputError, match="no strength or power"):
        weighted_select(values, y, groups=groups, strengths=())
    with pytest.raises(fmiqa.InputError, match="no strength or power"):
        weighted_select(values, y, groups=groups, powers=())


def test_saved_and_loaded(tmp_path: Path) -> None:
    values, y, groups = planted()
    selection = weighted_select(values, y, groups=groups)
    selection.save(tmp_path / "s.json")
    loaded = Selection.load(tmp_path / "s.json")
    assert loaded.weights is not None
    assert selection.weights is not None
    assert torch.equal(loaded.weights, selection.weights)
    assert loaded.power == selection.power


@pytest.fixture(scope="module")
def networks() -> dict[str, FeatureExtractor]:
    state = seeded_state(blank_network("alexnet"), seed=0)
    layers = ["conv1", "conv2"]
    full = FeatureExtractor("alexnet", weights=state, layers=layers)
    half = FeatureExtractor("alexnet", weights=state, layers=layers, viewing=Viewing(factor=0.5))
    other = FeatureExtractor(
        "alexnet", weights=seeded_state(blank_network("alexnet"), seed=1), layers=["conv1"], stage="conv"
    )
    return {"full": full, "half": half, "other": other}


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    generator = torch.Generator().manual_seed(0)
    found = []
    for r in range(10):
        reference = torch.randint(0, 256, (3, 96, 112), generator=generator, dtype=torch.uint8)
        for level in range(1, 5):
            noise = 12 * level * torch.randn(3, 96, 112, generator=generator)
            test = (reference + noise).clamp(0, 255).to(torch.uint8)
            found.append(Sample(reference, test, 5.0 - level, f"r{r}", f"r{r}_{level}"))
    return found


def test_a_mixed_metric_equals_the_joined_matrix(
    networks: dict[str, FeatureExtractor], samples: list[Sample], tmp_path: Path
) -> None:
    joined = ScoreMatrix.concat({name: fmiqa.score_matrix(e, samples) for name, e in networks.items()})
    assert len(joined.maps) == 2 * (64 + 192) + 64
    selection = weighted_select(joined)
    assert selection.maps[0].source in networks
    metric = SelectedFeatureIQM.from_selection(networks, selection)
    test = torch.stack([s.distorted for s in samples[:8]])
    reference = torch.stack([s.reference for s in samples[:8]])
    # Maps in float32 differ between batches by some 1e-6 of their range, and SSIM by up to 100 times as much.
    torch.testing.assert_close(
        metric(test, reference).double(), selection.combine(joined)[:8], atol=1e-4, rtol=0, check_dtype=False
    )
    metric.save(tmp_path / "mixed")
    again = SelectedFeatureIQM.load(tmp_path / "mixed")
    torch.testing.assert_close(again(test, reference), metric(test, reference), atol=1e-6, rtol=0)
    one = metric(reference, reference)
    torch.testing.assert_close(one, torch.ones_like(one), atol=1e-6, rtol=0)


def test_sources_and_networks_must_match(networks: dict[str, FeatureExtractor], samples: list[Sample]) -> None:
    part = {
        name: fmiqa.score_matrix(networks[name], samples[:8], maps=["conv1:0", "conv1:1"]) for name in ("full", "half")
    }
    joined = ScoreMatrix.concat(part)
    selection = fmiqa.forward_select(joined, max_maps=2)
    with pytest.raises(fmiqa.InputError, match="not the one the maps were selected on"):
        SelectedFeatureIQM.from_selection({"full": networks["half"], "half": networks["full"]}, selection)
    with pytest.raises(fmiqa.InputError, match="sources 'x'"):
        SelectedFeatureIQM(networks, ["x/conv1:0"])
    with pytest.raises(fmiqa.InputError, match="other images"):
        ScoreMatrix.concat({"a": part["full"], "b": part["half"].rows([0, 1])})
    with pytest.raises(fmiqa.InputError, match="source name"):
        ScoreMatrix.concat({"a/b": part["full"]})
    with pytest.raises(fmiqa.InputError, match="joined one already"):
        ScoreMatrix.concat({"a": joined})


def test_viewing_is_recorded_and_changes_scores(networks: dict[str, FeatureExtractor], samples: list[Sample]) -> None:
    full = fmiqa.score_matrix(networks["full"], samples[:2], maps=["conv1:3"])
    half = fmiqa.score_matrix(networks["half"], samples[:2], maps=["conv1:3"])
    assert half.options["viewing"] == {"factor": 0.5}
    assert full.options["viewing"] == {}
    assert not torch.equal(full.values, half.values)
