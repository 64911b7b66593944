"""`torch.set_default_device` changes nothing: the library names the device of every tensor that it makes.

The meta device stands in for a GPU. Its tensors hold no values, so that a result that depended on one would not come.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

import fmiqa
from fmiqa.correlation import fit_logistic, krocc, plcc, rmse, srocc
from fmiqa.correlation.bootstrap import bootstrap
from fmiqa.correlation.krasula import pair_analysis
from fmiqa.correlation.significance import holm, meng_test, residual_f_test, williams_test, zou_interval
from fmiqa.evaluation.peers import peer_scores
from fmiqa.measures import Piq
from fmiqa.selection import (
    grouped_folds,
    held_out,
    observer_study,
    permutation_null,
    stability_selection,
    weighted_select,
)
from fmiqa.visualize import ConditionalSampler, MarginalSampler, maximize_activation, prediction_difference
from fmiqa.visualize.dissection.planted import PlantedConcepts
from fmiqa.visualize.dissection.run import dissect

MAPS = ["conv1:3", "conv1:9", "conv2:5"]


def extractor() -> fmiqa.FeatureExtractor:
    return fmiqa.FeatureExtractor("alexnet", weights=None, layers=["conv1", "conv2"], seed=3)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), device="cpu")


def columns() -> tuple[Tensor, Tensor, list[int]]:
    """Scores of six maps, subjective scores, and groups of 60 images."""
    y = random(60)
    return y + random(6, 60, seed=1), y, [i // 6 for i in range(60)]


def matrix() -> fmiqa.ScoreMatrix:
    x, y, groups = columns()
    return fmiqa.ScoreMatrix(
        values=x.T.contiguous(),
        maps=fmiqa.MapIndex([f"conv1:{i}" for i in range(6)]),
        targets=y.double(),
        groups=[str(group) for group in groups],
        names=[str(i) for i in range(60)],
    )


def images(folder: Path) -> fmiqa.datasets.CSVDataset:
    """A study of six test images in files."""
    rows = ["reference,distorted,score"]
    for number in range(6):
        reference, test = f"reference{number // 3}.png", f"test{number}.png"
        for seed, name in ((number // 3, reference), (10 + number, test)):
            pixels = (random(96, 96, 3, seed=seed) * 255).byte().numpy()
            Image.fromarray(pixels).save(folder / name)
        rows.append(f"{reference},{test},{number}")
    (folder / "study.csv").write_text("\n".join(rows))
    return fmiqa.datasets.CSVDataset(folder / "study.csv")


def scoring(folder: Path) -> list[Any]:
    data = images(folder)
    found = fmiqa.score_matrix(extractor(), data, save=folder / "scores.safetensors")
    tiled = fmiqa.score_matrix(extractor(), data, memory=2**20)
    again = fmiqa.ScoreMatrix.load(folder / "scores.safetensors")
    return [found.values, found.targets, tiled.values, again.values, again.rows([0, 2]).values]


def metric(folder: Path) -> list[Any]:
    weights = torch.tensor([0.5, 0.2, 0.3], dtype=torch.float64, device="cpu")
    iqm = fmiqa.SelectedFeatureIQM(extractor(), MAPS, weights=weights)
    iqm.save(folder / "metric.safetensors")
    test, reference = random(2, 3, 96, 96), random(2, 3, 96, 96, seed=1)
    return [iqm(test, reference), fmiqa.SelectedFeatureIQM.load(folder / "metric.safetensors")(test, reference)]


def selection(folder: Path) -> list[Any]:
    found = fmiqa.forward_select(matrix(), max_maps=3)
    weighted = weighted_select(matrix(), folds=3)
    validation = fmiqa.cross_validate(matrix(), folds=3, max_maps=2)
    splits = grouped_folds(matrix().groups, folds=3)
    predicted = held_out(matrix(), lambda part: fmiqa.forward_select(part, max_maps=2), splits=splits)
    null = permutation_null(matrix(), permutations=2, max_maps=2)
    stable = stability_selection(matrix(), subsamples=4, max_maps=2)
    x, y, groups = columns()
    study = observer_study(x.T, x.T[:, :3], groups=[str(g) for g in groups], folds=2, max_maps=1)
    compared = fmiqa.compare({"one": x[0], "two": x[1]}, y, groups, resamples=20)
    tensors = [validation.plcc, predicted.predictions, null.null, stable.frequency, study.in_sample]
    return [found.value, weighted.value, [str(m) for m in found.maps], str(compared), *tensors]


def correlation(folder: Path) -> list[Any]:
    x, y, groups = columns()
    fit = fit_logistic(x, y)
    resampled = bootstrap(x[:2], y, groups, statistic="srocc", resamples=50)
    fitted = bootstrap(x[:2], y, groups, resamples=10).difference(0, 1)
    raw = [plcc(x, y), plcc(x, y, fit=None), srocc(x, y), krocc(x, y), rmse(x, y)]
    return [
        fit.parameters,
        fit.predict(x),
        *raw,
        resampled.distribution,
        fitted.p_value(),
        *fitted.interval(method="t"),
    ]


def significance(folder: Path) -> list[Any]:
    x, y, _ = columns()
    r = plcc(x[0], y, fit=None), plcc(x[1], y, fit=None), plcc(x[0], x[1], fit=None)
    tests = [williams_test(*r, 60), meng_test(*r, 60), zou_interval(*r, 60), residual_f_test(x[0] - y, x[1] - y)]
    pairs = pair_analysis(x, y, torch.full((60,), 0.1, device="cpu"))
    return [*(part for test in tests for part in test), holm(tests[0].p_value[None]), *pairs]


def dissection(folder: Path) -> list[Any]:
    found = dissect(extractor(), PlantedConcepts(count=4, size=96), MAPS, save=folder / "dissection.safetensors")
    return [found.iou, found.thresholds, found.top_images]


def differences(folder: Path) -> list[Any]:
    image = random(3, 72, 80)
    samplers = ConditionalSampler([image], window=6, padding=1, patches=300), MarginalSampler([image], patches=50)
    return [prediction_difference(extractor(), image, MAPS, sampler=s, stride=6, samples=2).relevance for s in samplers]


def maximisation(folder: Path) -> list[Any]:
    found = [maximize_activation(extractor(), MAPS, method=m, size=(64, 64), steps=2) for m in ("fourier", "pixels")]
    return [part for each in found for part in (each.images, each.activations)]


def of_piq(folder: Path) -> list[Any]:
    data = images(folder)
    scores = fmiqa.score_matrix(extractor(), data, maps=MAPS[:2], measure=Piq("GMSD")).values
    return [scores, *peer_scores(data, ["SSIM", "GMSD", "VSNR", "dE_ab"]).values()]


PATHS = [scoring, metric, selection, correlation, significance, dissection, differences, maximisation, of_piq]


@pytest.mark.filterwarnings("ignore:alexnet has random weights")
@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.__name__)
def test_default_device_changes_nothing(path: Callable[[Path], list[Any]], tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "meta").mkdir()
    expected = path(tmp_path / "here")
    with torch.device("meta"):
        found = path(tmp_path / "meta")
    for value, wanted in zip(found, expected, strict=True):
        if isinstance(wanted, Tensor):
            torch.testing.assert_close(value, wanted, rtol=0, atol=0, equal_nan=True)
        else:
            assert value == wanted
