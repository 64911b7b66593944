"""Weighted selection, joined matrices and mixed metrics: networks and scales side by side."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import fmiqa
from fmiqa import FeatureExtractor, ScoreMatrix, SelectedFeatureIQM, Selection, Viewing, weighted_select
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
