"""Forward selection against plain loops, its rules, and its errors."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import optimize, stats
from torch import Tensor

import fmiqa
from fmiqa import FeatureExtractor, MapIndex, ScoreMatrix, forward_select
from fmiqa.correlation.logistic import STEEPNESS
from fmiqa.selection.criteria import Objective
from fmiqa.selection.engine import Candidates


def synthetic(images: int = 120, maps: int = 30, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    targets = torch.rand(images, generator=generator, dtype=torch.float64)
    noise = torch.randn(images, maps, generator=generator, dtype=torch.float64)
    strength = torch.rand(maps, generator=generator, dtype=torch.float64)
    values = torch.sigmoid(3 * strength * (targets[:, None] - 0.4) + noise * 0.8)
    return values, targets


def scipy_plcc(x: np.ndarray, y: np.ndarray) -> float:
    """The best of several starts of the five-parameter logistic, its slope bounded as ours, and the straight line."""

    def curve(x: np.ndarray, *b: float) -> np.ndarray:
        return b[0] * (0.5 - 1 / (1 + np.exp(np.clip(b[1] * (x - b[2]), -60, 60)))) + b[3] * x + b[4]

    x = (x - x.mean()) / x.std()
    best = stats.pearsonr(x, y)[0] ** 2
    bounds = np.array([np.inf, STEEPNESS, np.inf, np.inf, np.inf])
    for slope in (0.5, 1.0, 2.0, 6.0, 9.9):
        for centre in np.quantile(x, (0.05, 0.25, 0.5, 0.75, 0.95)):
            columns = np.stack([1 / (1 + np.exp(-slope * (x - centre))) - 0.5, x, np.ones_like(x)], 1)
            b1, b4, b5 = np.linalg.lstsq(columns, y, rcond=None)[0]
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    b, _ = optimize.curve_fit(
                        curve, x, y, (b1, slope, centre, b4, b5), bounds=(-bounds, bounds), max_nfev=2000
                    )
            except RuntimeError:
                continue
            best = max(best, 1 - np.var(y - curve(x, *b)) / np.var(y))
    return float(np.sqrt(best))


def greedy(values: np.ndarray, score: Callable[[np.ndarray], float], limit: int) -> tuple[list[int], list[float]]:
    """Steps 1 to 8 of the paper, one candidate at a time."""
    chosen: list[int] = []
    curve: list[float] = []
    while len(chosen) < limit:
        rest = [m for m in range(values.shape[1]) if m not in chosen]
        result = [score(values[:, [*chosen, m]].mean(1)) for m in rest]
        if curve and max(result) <= curve[-1]:
            break
        curve.append(max(result))
        chosen.append(rest[int(np.argmax(result))])
    return chosen, curve


@pytest.mark.parametrize(
    ("criterion", "reference"),
    [
        ("srocc", lambda x, y: stats.spearmanr(x, y)[0]),
        ("krocc", lambda x, y: stats.kendalltau(x, y)[0]),
        ("raw", lambda x, y: stats.pearsonr(x, y)[0]),
    ],
)
def test_equals_a_plain_loop_over_scipy_coefficients(
    criterion: str, reference: Callable[[np.ndarray, np.ndarray], float]
) -> None:
    values, targets = synthetic()
    if criterion == "raw":
        selection = forward_select(values, targets, fit=None)
    else:
        selection = forward_select(values, targets, criterion=criterion)  # type: ignore[arg-type]
    chosen, curve = greedy(values.numpy(), lambda x: reference(x, targets.numpy()), 30)
    assert [m.channel for m in selection.maps] == chosen
    assert len(chosen) >= 3
    np.testing.assert_allclose(selection.curve, curve, atol=1e-9)  # both in float64


def test_equals_a_plain_loop_over_scipy_fits_on_real_scores(shared) -> None:
    """AlexNet's conv1 on fifty real JPEG images: the same maps, one by one."""
    scores = real_scores(shared)
    selection = forward_select(scores, max_maps=3)
    y = scores.targets.numpy()
    chosen, curve = greedy(scores.values.double().numpy(), lambda x: scipy_plcc(x, y), 3)
    assert list(selection.maps) == [scores.maps[i] for i in chosen]
    # curve_fit stops a little before the optimum.
    np.testing.assert_allclose(selection.curve, curve, atol=2e-5)
    assert all(ours >= theirs - 1e-6 for ours, theirs in zip(selection.curve, curve, strict=True))


def real_scores(shared) -> ScoreMatrix:
    data = fmiqa.datasets.CSVDataset(
        shared / "data/jpegtid/scores.csv",
        reference="ref",
        distorted="dist",
        score="mos",
        reference_root=shared / "data/tid2013r/reference_images",
        distorted_root=shared / "data/jpegtid/distorted_images",
    )
    extractor = FeatureExtractor("alexnet", weights=shared / "weights/alexnet_features.pth", layers=["conv1"])
    part = torch.utils.data.Subset(data, range(0, 100, 2))
    return fmiqa.score_matrix(extractor, part, maps=[f"conv1:{c}" for c in range(0, 64, 5)], check=False)


def test_quick_search_finds_what_a_global_one_finds() -> None:
    """The shortcut of a step (quick fits, the best confirmed) against a global fit of every candidate."""
    values, targets = synthetic(images=90, maps=60, seed=3)
    maps = MapIndex.of_layers({"map": 60})
    candidates = Candidates(values, targets, maps, objective=Objective())
    chosen: list[int] = []
    allowed = torch.ones(60, dtype=torch.bool)
    for _ in range(6):
        every = fmiqa.plcc(candidates.joined(chosen, allowed.nonzero()[:, 0]), targets)
        (best,) = candidates.best([chosen], allowed[None])
        assert best.value == pytest.approx(float(every.max()), abs=1e-12)
        assert best.position == int(allowed.nonzero()[int(every.argmax()), 0])
        chosen.append(best.position)
        allowed[best.position] = False


def test_scores_that_stay_where_they_are_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    values, targets = synthetic(images=30, maps=12)
    counts = torch.randint(0, 3, (4, 30), generator=torch.Generator().manual_seed(0))
    maps, allowed = MapIndex.of_layers({"a": 12}), torch.ones(4, 12, dtype=torch.bool)

    def tried() -> Tensor:
        candidates = Candidates(values.float(), targets, maps, objective=Objective(), counts=counts)
        return candidates.tried([[], [1], [2, 3], [5]], allowed).values

    laid_out = tried()
    monkeypatch.setattr("fmiqa.selection.engine._COPIED", 0)
    assert torch.equal(tried(), laid_out)


@pytest.mark.parametrize("pool", ["mean", "layer_geometric"])
def test_joined_scores_are_the_pooled_scores_of_each_set(pool: str) -> None:
    values, targets = synthetic(images=20, maps=12)
    maps = MapIndex.of_layers({"a": 4, "b": 5, "c": 3})
    candidates = Candidates(values, targets, maps, objective=Objective(), pool=pool)  # type: ignore[arg-type]
    for chosen in ([], [5], [0, 1, 7], [11, 3]):
        rest = [m for m in range(12) if m not in chosen]
        joined = candidates.joined(chosen, torch.tensor(rest))
        for row, m in zip(joined, rest, strict=True):
            torch.testing.assert_close(row, candidates.pooled([*chosen, m]), rtol=1e-12, atol=0)


def test_never_falls_and_stops_at_the_rules() -> None:
    values, targets = synthetic()
    full = forward_select(values, targets)
    assert full.curve == sorted(full.curve)
    assert full.value == full.curve[-1]
    assert forward_select(values, targets, max_maps=3).maps == full.maps[:3]
    tol = sorted(step.gain for step in full.steps)[len(full) // 2]
    cut = forward_select(values, targets, tol=tol)
    assert all(step.gain > tol for step in cut.steps)
    assert len(cut) < len(full)
    assert cut.maps == full.maps[: len(cut)]


def test_start_and_exclude() -> None:
    values, targets = synthetic()
    free = forward_select(values, targets)
    without = forward_select(values, targets, exclude=[free.maps[0]])
    assert free.maps[0] not in without.maps
    resumed = forward_select(values, targets, start=free.maps[:2])
    assert resumed.maps == free.maps
    assert len(resumed.steps) == len(free.steps) - 2
    assert resumed.value == pytest.approx(free.value, abs=1e-12)


def test_unusable_columns_never_join_and_poison_nothing() -> None:
    values, targets = synthetic(maps=12)
    clean = forward_select(values, targets)
    junk = torch.stack(
        [torch.full_like(targets, 0.5), targets * torch.nan, torch.where(targets > 0.5, torch.inf, targets)], 1
    )
    selection = forward_select(torch.cat([values, junk], 1), targets)
    assert selection.maps == clean.maps
    assert selection.curve == clean.curve


def test_direction_rule() -> None:
    values, targets = synthetic(maps=6)
    values[:, 2] = -targets
    assert forward_select(values, targets, max_maps=1, direction="any").maps[0].channel == 2
    assert all(m.channel != 2 for m in forward_select(values, targets).maps)
    with pytest.raises(fmiqa.InputError, match="higher = better"):
        forward_select(-targets[:, None].repeat(1, 3), targets)


def test_ties_go_to_the_first_map() -> None:
    values, targets = synthetic(maps=4)
    doubled = torch.cat([values, values], 1)
    assert forward_select(doubled, targets, max_maps=1).maps[0].channel < 4


def test_callback_sees_every_step_and_results_repeat_bit_for_bit() -> None:
    values, targets = synthetic()
    seen: list[fmiqa.selection.Step] = []
    first = forward_select(values, targets, callback=seen.append)
    assert tuple(seen) == first.steps
    again = forward_select(values, targets)
    assert again.curve == first.curve
    assert again.maps == first.maps


def test_same_on_device(device: torch.device) -> None:
    values, targets = synthetic()
    here = forward_select(values.to(device), targets.to(device))
    assert here.maps == forward_select(values, targets).maps


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"criterion": "pearson"}, "criterion is one of plcc, srocc, krocc, got 'pearson'"),
        ({"direction": "up"}, "direction is one of"),
        ({"pool": "median"}, "pool must be one of"),
        ({"max_maps": 0}, "max_maps is a whole number from 1"),
        ({"tol": -1.0}, "tol is a gain"),
        ({"exclude": ["conv9:1"]}, "no such feature map: conv9:1"),
        ({"start": ["map:1", "map:1"]}, "is listed twice"),
    ],
)
def test_bad_options_are_named(change: dict[str, object], message: str) -> None:
    values, targets = synthetic(maps=4)
    with pytest.raises(fmiqa.InputError, match=message):
        forward_select(values, targets, **change)  # type: ignore[arg-type]


def test_bad_data_is_named() -> None:
    values, targets = synthetic(maps=4)
    with pytest.raises(fmiqa.InputError, match="needs targets"):
        forward_select(values)
    with pytest.raises(fmiqa.InputError, match="one score for each of the 120 images"):
        forward_select(values, targets[:5])
    with pytest.raises(fmiqa.InputError, match="finite"):
        forward_select(values, targets * torch.nan)
    with pytest.raises(fmiqa.InputError, match=r"tensor \(N, M\)"):
        forward_select(targets, targets)
