"""Half precision is for networks: maps are compared in float32, and scores stay in range, near the full ones."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch
from piq_measures import piq_measures
from torch import Tensor

from fmiqa import AllFeatureIQM, FeatureExtractor, SelectedFeatureIQM, Viewing, score_matrix
from fmiqa.datasets import Demo
from fmiqa.measures import GMS, SSIM, Custom
from fmiqa.measures import MEASURES as BY_NAME
from fmiqa.scoring.scorer import MapScorer
from fmiqa.scoring.tiling import Tiling

HALF = [torch.float16, torch.bfloat16]
# Relative errors of float16 are 2^-11, of bfloat16 2^-8. They come in at the image, the weights and the map itself.
EPS = {torch.float16: 2**-11, torch.bfloat16: 2**-8}


def mean_difference(test: Tensor, reference: Tensor) -> Tensor:
    return (test - reference).abs().mean((-2, -1))


MEASURES: list[Any] = [
    *(kind() for name, kind in BY_NAME.items() if name not in ("m-svd", "piq")),
    SSIM(data_range="pair"),
    *piq_measures("HaarPSI"),
    Custom(mean_difference, higher_is_better=False),
]


@pytest.fixture(scope="module")
def extractor() -> FeatureExtractor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return FeatureExtractor("alexnet", weights=None, layers=["conv1", "conv2"])


@pytest.fixture
def pair() -> tuple[Tensor, Tensor]:
    """A picture, in which much is flat, and the same with noise."""
    generator = torch.Generator().manual_seed(0)
    reference = torch.full((2, 3, 144, 160), 0.5)
    reference[..., 40:90, 60:100] = torch.rand(2, 3, 50, 40, generator=generator)
    return (reference + 0.05 * torch.randn(reference.shape, generator=generator)).clamp(0, 1), reference


@pytest.mark.parametrize("dtype", HALF, ids=str)
@pytest.mark.parametrize("measure", MEASURES, ids=lambda measure: measure.name)
def test_a_measure_of_half_maps_is_that_of_the_widened_maps(measure: Any, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(1)
    flat = torch.full((1, 1, 48, 52), 0.5)
    maps = torch.cat([flat, 0 * flat, 300 * torch.rand(1, 3, 48, 52, generator=generator)], 1).to(dtype)
    other = (maps.float() + torch.randn(maps.shape, generator=generator)).relu().to(dtype)
    values = measure(other, maps)
    assert values.dtype == torch.float32
    assert torch.equal(values, measure(other.float(), maps.float()))
    low, high = measure.value_range
    assert bool(((values >= low) & (values <= high)).all())
    assert torch.equal(measure(maps, maps), measure(maps.float(), maps.float()))
    assert measure(maps.double(), maps.double()).dtype == torch.float64


@pytest.mark.parametrize("dtype", HALF, ids=str)
@pytest.mark.parametrize("measure", [SSIM(), GMS()], ids=str)
def test_local_scores_of_half_maps(measure: Any, dtype: torch.dtype) -> None:
    maps = torch.full((1, 2, 40, 40), 0.5, dtype=dtype)
    assert torch.equal(measure.local(maps, maps), measure.local(maps.float(), maps.float()))


@pytest.mark.parametrize("dtype", HALF, ids=str)
@pytest.mark.parametrize("measure", MEASURES, ids=lambda measure: measure.name)
def test_metrics_in_half_precision_are_near_the_full_ones(
    extractor: FeatureExtractor, pair: tuple[Tensor, Tensor], measure: Any, dtype: torch.dtype
) -> None:
    full = AllFeatureIQM(extractor, measure=measure)
    half = copy.deepcopy(full).to(dtype)
    test, reference = pair
    expected, best = full(test, reference), full(reference, reference)
    for x, y in ((test, reference), (test.to(dtype), reference.to(dtype)), (test.to(dtype), reference.double())):
        scores = half(x, y)
        assert scores.dtype == torch.float32
        # Means of 256 maps. PSNR is a logarithm of squares, a histogram's counts jump: up to 8 times the rounding
        # of the maps, and a few dB have a scale of their own.
        torch.testing.assert_close(scores, expected, rtol=8 * EPS[dtype], atol=8 * EPS[dtype])
        assert torch.equal(half(x, half.prepare(y)), scores)
    assert torch.equal(half(reference.to(dtype), reference.to(dtype)), best)
    assert torch.equal(full(reference.to(dtype), reference.to(dtype)), best)


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_single_maps_are_at_most_one(extractor: FeatureExtractor, dtype: torch.dtype) -> None:
    scorer = MapScorer(copy.deepcopy(extractor).to(dtype))
    picture = torch.rand(1, 3, 96, 96, generator=torch.Generator().manual_seed(2))
    near = (picture + 1e-3).to(dtype)
    scores = scorer(near, picture.to(dtype))
    assert bool(scores.isfinite().all())
    assert float(scores.max()) <= 1 + 1e-6  # the luminance rounds, by one ulp of 1 each way
    assert bool((scorer(near, near) == 1).all())


def test_gradients_reach_half_images(extractor: FeatureExtractor, pair: tuple[Tensor, Tensor]) -> None:
    iqm = SelectedFeatureIQM(extractor, ["conv1:3", "conv1:9"]).bfloat16()
    images = pair[0].bfloat16().requires_grad_()
    iqm(images, pair[1]).sum().backward()
    assert images.grad is not None
    assert bool(images.grad.isfinite().all())
    assert bool((images.grad != 0).any())


def test_autocast_around_a_metric_changes_nothing(extractor: FeatureExtractor, pair: tuple[Tensor, Tensor]) -> None:
    iqm = AllFeatureIQM(extractor)
    half = copy.deepcopy(iqm).half()
    for metric in (iqm, half):
        expected = metric(*pair)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(metric(*pair), expected)


def test_tiles_of_half_maps_under_autocast(extractor: FeatureExtractor) -> None:
    scorer = MapScorer(copy.deepcopy(extractor).bfloat16(), ["conv1:3", "conv1:30"])
    test, reference = torch.rand(2, 1, 3, 400, 380, generator=torch.Generator().manual_seed(3))
    tiling = Tiling(scorer, 400, 380, 2**40)
    tiling._rows, tiling._columns = list(tiling._spans(400, 128, 1)), list(tiling._spans(380, 128, 2))
    assert len(tiling._rows) > 2
    with torch.autocast("cpu", dtype=torch.bfloat16):
        # The same maps to bfloat16, which other shapes may round to its neighbour here and there.
        torch.testing.assert_close(tiling(test, reference), scorer(test, reference).double(), rtol=0, atol=2e-4)
    full = MapScorer(extractor, ["conv1:3", "conv1:30"])
    tiling = Tiling(full, 400, 380, 2**40)
    expected = tiling(test, reference)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(tiling(test, reference), expected)


def test_a_score_matrix_in_half_precision(extractor: FeatureExtractor) -> None:
    data = Demo(references=2, size=64, levels=2)
    half = copy.deepcopy(extractor).half()
    scores = score_matrix(half, data)
    assert scores.values.dtype == torch.float32
    assert scores.options["dtype"] == "float16"
    # Single maps, some of them nearly flat: the noise of float16 against the constant c2. Seen: .006.
    torch.testing.assert_close(scores.values, score_matrix(extractor, data).values, rtol=0, atol=0.03)


@pytest.mark.parametrize("viewing", [Viewing(), Viewing(factor=0.5)], ids=str)
def test_images_are_resized_and_normalised_in_float32(viewing: Viewing) -> None:
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3))
    half = FeatureExtractor(net, viewing=viewing).half()
    full = FeatureExtractor(net, viewing=viewing)
    assert half.dtype == torch.float16
    for images in (torch.rand(1, 3, 64, 64).half(), torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)):
        normalised = half.normalize(images)
        assert normalised.dtype == torch.float16
        assert torch.equal(normalised, full.normalize(images).half())


def test_there_and_back_only_the_weights_are_rounded(extractor: FeatureExtractor) -> None:
    iqm = SelectedFeatureIQM(extractor, ["conv1:3", "conv2:1"], weights=torch.tensor([1 / 3, 2 / 3]))
    before = iqm.weights
    rounded = copy.deepcopy(iqm).half().float()
    assert before is not None
    torch.testing.assert_close(rounded.weights, before.float(), check_dtype=False, rtol=0, atol=1e-7)
    cut = rounded.scorers[0].extractor
    assert isinstance(cut, FeatureExtractor)
    assert torch.equal(cut.mean, extractor.mean)
    assert torch.equal(cut.std, extractor.std)
    by_hand = copy.deepcopy(extractor)
    for parameter in by_hand.parameters():
        parameter.data = parameter.data.half().float()
    images = torch.rand(2, 3, 64, 64)
    expected = SelectedFeatureIQM(by_hand, iqm.maps, weights=before)
    torch.testing.assert_close(rounded(images, images.flip(0)), expected(images, images.flip(0)), rtol=0, atol=1e-6)
