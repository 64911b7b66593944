"""Searches and validations where the score matrix is: on every device the same maps."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from fmiqa import (
    MapIndex,
    ScoreMatrix,
    beam_select,
    cross_validate,
    forward_select,
    permutation_null,
    stability_selection,
    weighted_select,
)


@pytest.fixture
def scores() -> ScoreMatrix:
    generator = torch.Generator().manual_seed(0)
    targets = torch.rand(60, generator=generator, dtype=torch.float64)
    noise = torch.randn(60, 9, generator=generator)
    values = torch.sigmoid(3 * (targets[:, None].float() - 0.4) + noise * torch.linspace(0.3, 2, 9))
    groups = [f"r{i // 6}" for i in range(60)]
    distortions = [f"d{i % 3}" for i in range(60)]
    names = [f"{group}_{i}" for i, group in enumerate(groups)]
    return ScoreMatrix(values, MapIndex.of_layers({"a": 4, "b": 5}), targets, groups, names, distortions)


def test_a_matrix_on_a_device_is_cut_and_moved_back(scores: ScoreMatrix, device: torch.device) -> None:
    there = scores.to(device)
    assert there.values.device.type == there.targets.device.type == device.type
    index = torch.tensor([3, 0, 59], device=device)
    assert torch.equal(there.rows(index).to("cpu").values, scores.values[[3, 0, 59]])
    assert torch.equal(there.rows(there.targets > 0.5).to("cpu").targets, scores.targets[scores.targets > 0.5])
    assert torch.equal(there.columns(["b:1"]).values.cpu(), scores.columns(["b:1"]).values)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"fit": None},
        {"criterion": "srocc"},
        pytest.param({"monotone": True}, marks=pytest.mark.slow),  # on a pretended GPU
        {"fit": "logistic4"},
        {"pool": "layer_geometric"},
        {"prior": "consensus"},
    ],
)
def test_validation_selects_the_same_maps(scores: ScoreMatrix, device: torch.device, options: dict[str, Any]) -> None:
    here = cross_validate(scores, folds=3, max_maps=2, **options)
    there = cross_validate(scores.to(device), folds=3, max_maps=2, **options)
    assert [list(maps) for maps in there.selected] == [list(maps) for maps in here.selected]
    # The criterion of fits in float64, sums in another order.
    torch.testing.assert_close(there.plcc.cpu(), here.plcc, rtol=0, atol=1e-9)


def test_data_sets_side_by_side_select_the_same_maps(scores: ScoreMatrix, device: torch.device) -> None:
    def parts(own: ScoreMatrix) -> dict[str, ScoreMatrix]:
        return {"first": own.rows(range(30)), "second": own.rows(range(30, 60))}

    here = forward_select(parts(scores), max_maps=3)
    there = forward_select(parts(scores.to(device)), max_maps=3)
    assert there.maps == here.maps
    assert there.value == pytest.approx(here.value, abs=1e-9)  # as above


def test_other_searches_and_studies_give_the_same(scores: ScoreMatrix, device: torch.device) -> None:
    there = scores.to(device)
    assert beam_select(there, width=3, max_maps=3).maps == beam_select(scores, width=3, max_maps=3).maps
    weighted = [weighted_select(m, folds=3) for m in (scores, there)]
    assert weighted[0].maps == weighted[1].maps
    # Coordinate descent stops at weights that move by less than 1e-4 of a standardised column.
    torch.testing.assert_close(weighted[0].weights, weighted[1].weights, rtol=1e-3, atol=1e-4)
    null = [permutation_null(m, permutations=3, max_maps=2) for m in (scores, there)]
    torch.testing.assert_close(null[0].null, null[1].null.cpu(), rtol=0, atol=1e-9)
    stable = [stability_selection(m, subsamples=4, max_maps=2) for m in (scores, there)]
    assert torch.equal(stable[0].frequency, stable[1].frequency.cpu())
