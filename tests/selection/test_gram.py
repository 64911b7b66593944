"""Gram matrices against covariances of the scores themselves, and what a fold leaves when it is subtracted."""

from __future__ import annotations

from functools import reduce
from operator import add
from pathlib import Path

import numpy as np
import pytest
import torch

from fmiqa import MapIndex, ScoreMatrix, ScoreStore, write_store
from fmiqa.selection.gram import Gram, LinearCandidates, grams_of

IMAGES, MAPS = 230, 40


@pytest.fixture
def scores() -> ScoreMatrix:
    generator = torch.Generator().manual_seed(0)
    targets = 5 * torch.rand(IMAGES, generator=generator, dtype=torch.float64)
    values = 0.9 + 0.01 * torch.rand(IMAGES, MAPS, generator=generator) + 0.004 * targets[:, None].float()
    names = [str(i) for i in range(IMAGES)]
    return ScoreMatrix(values, MapIndex.of_layers({"map": MAPS}), targets, [str(i // 10) for i in range(IMAGES)], names)


@pytest.fixture
def store(scores: ScoreMatrix, tmp_path: Path) -> ScoreStore:
    return write_store(tmp_path / "scores", [scores], block_images=32)


def covariance(gram: Gram) -> torch.Tensor:
    return torch.stack([gram.covariance(column) for column in torch.eye(MAPS + 1, dtype=torch.float64)])


def columns(scores: ScoreMatrix) -> np.ndarray:
    return torch.cat([scores.values.double(), scores.targets[:, None]], 1).T.numpy()


def test_covariances_are_those_of_the_scores(scores: ScoreMatrix, store: ScoreStore, device: torch.device) -> None:
    (gram,) = grams_of(store, scores.targets, device=device)
    expected = np.cov(columns(scores), bias=True)
    # In float64 about numbers near the means: some rounding of sums of 230 products.
    np.testing.assert_allclose(covariance_on_cpu(gram), expected, atol=1e-13 * expected.max())
    np.testing.assert_allclose(gram.variances.cpu(), expected.diagonal(), rtol=1e-12)
    assert torch.equal(gram.low.cpu(), scores.values.double().amin(0))
    assert torch.equal(gram.high.cpu(), scores.values.double().amax(0))


def covariance_on_cpu(gram: Gram) -> np.ndarray:
    return torch.stack([gram.covariance(row).cpu() for row in torch.eye(MAPS + 1).to(gram.sums)]).numpy()


def test_products_in_single_precision_are_near(scores: ScoreMatrix, store: ScoreStore) -> None:
    (single,) = grams_of(store, scores.targets, dtype=torch.float32)
    (double,) = grams_of(store, scores.targets)
    deviation = double.variances.sqrt()
    error = (covariance(single) - covariance(double)) / deviation / deviation[:, None]
    assert 0 < error.abs().max() < 1e-6  # 32 products a block, each rounded to 6e-8 of itself


def test_a_fold_is_subtracted(scores: ScoreMatrix, store: ScoreStore, tmp_path: Path) -> None:
    folds = torch.arange(IMAGES) // 10 % 3
    parts = grams_of(store, scores.targets, folds)
    total: Gram = reduce(add, parts)
    assert [part.count for part in parts] == torch.bincount(folds).tolist()
    for held in range(3):
        rest = scores.rows(folds != held)
        left = total.without(parts[held], [part for fold, part in enumerate(parts) if fold != held])
        (direct,) = grams_of(rest.to_store(tmp_path / str(held)), rest.targets)
        assert left.count == direct.count
        torch.testing.assert_close(covariance(left), covariance(direct), rtol=0, atol=1e-13 * 3)
        assert torch.equal(left.low, direct.low)
        assert torch.equal(left.high, direct.high)


def test_maps_that_are_not_finite_spoil_no_others(scores: ScoreMatrix, tmp_path: Path) -> None:
    values = scores.values.clone()
    values[5, 3], values[100, 4] = torch.nan, torch.inf
    values[:, 7] = 1
    broken = ScoreMatrix(values, scores.maps, scores.targets, scores.groups, scores.names)
    (gram,) = grams_of(broken.to_store(tmp_path / "broken"), scores.targets)
    assert (~gram.varying).nonzero()[:, 0].tolist() == [3, 4, 7]
    good = [m for m in range(MAPS) if m not in (3, 4)]
    weights = torch.zeros(MAPS + 1, dtype=torch.float64)
    weights[good[:5]] = 1
    expected = np.cov(columns(scores)[[*good, MAPS]], bias=True)[:5].sum(0)[:-1]
    expected[good.index(7)] = 0
    np.testing.assert_allclose(gram.covariance(weights)[good][[i != 7 for i in good]], expected[[i != 7 for i in good]])


def test_maps_that_cancel_have_no_criterion(tmp_path: Path) -> None:
    x = torch.rand(50, generator=torch.Generator().manual_seed(0))
    values = torch.stack([x, 1 - x, x.square()], 1)
    names = [str(i) for i in range(50)]
    scores = ScoreMatrix(values, MapIndex.of_layers({"map": 3}), x.double(), names, names)
    (gram,) = grams_of(scores.to_store(tmp_path / "scores"), scores.targets)
    target = torch.tensor([0, 0, 0, 1], dtype=torch.float64)
    tried = LinearCandidates(gram, target).tried([0])
    assert tried[1] == -torch.inf or abs(tried[1]) < 1  # what float32 leaves of 1 - x + x
    values = torch.stack([x.double(), -x.double(), x.double().square()], 1)
    scores = ScoreMatrix(values, scores.maps, scores.targets, names, names)
    (gram,) = grams_of(scores.to_store(tmp_path / "exact"), scores.targets)
    assert LinearCandidates(gram, target).tried([0])[1] == -torch.inf
