"""The batched comparison: what it refuses, and that each way through it gives the same scores."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor

from fmiqa import SSIM, FeatureExtractor, InputError
from fmiqa.measures import GMSD, MSE, PSNR, Piq
from fmiqa.scoring.scorer import MapScorer


@pytest.fixture(scope="module")
def extractor() -> FeatureExtractor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return FeatureExtractor("alexnet", weights=None)


@pytest.fixture
def pair() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    reference = torch.rand(2, 3, 96, 100, generator=generator)
    return (reference + 0.1 * torch.randn(reference.shape, generator=generator)).clamp(0, 1), reference


# Kernels for other batches, processors and devices add up in another order: maps in float32 differ by some 1e-5 of
# their range L, and SSIM, whose least denominators are (.01 L)^2 and (.03 L)^2, by up to 100 times as much.
CLOSE = {"rtol": 0, "atol": 1e-3}


def test_scores_are_the_measure_on_the_features(extractor: FeatureExtractor, pair: tuple[Tensor, Tensor]) -> None:
    test, reference = pair
    scores = MapScorer(extractor)(test, reference)
    other = extractor(reference)
    expected = torch.cat([SSIM()(maps, other[layer]) for layer, maps in extractor(test).items()], 1)
    assert torch.equal(scores, expected)


@pytest.mark.parametrize("data_range", [1.0, "reference", "pair", "layer"])
def test_columns_come_in_the_order_asked_for(
    extractor: FeatureExtractor, pair: tuple[Tensor, Tensor], data_range: float | str
) -> None:
    measure = SSIM(data_range=data_range)  # type: ignore[arg-type]
    whole = MapScorer(extractor, measure=measure)(*pair)
    asked = ["conv3:7", "conv1:63", "conv3:0", "conv5:255", "conv1:2"]
    part = MapScorer(extractor, asked, measure=measure)(*pair)
    torch.testing.assert_close(part, whole[:, extractor.maps.positions(asked)], **CLOSE)


def test_prepared_reference_gives_the_same(
    extractor: FeatureExtractor, pair: tuple[Tensor, Tensor], device: torch.device
) -> None:
    test, reference = (side.to(device) for side in pair)
    scorer = MapScorer(extractor).to(device)
    for other in (reference, reference[:1]):
        torch.testing.assert_close(scorer(test, scorer.prepare(other)), scorer(test, other), rtol=0, atol=0)
    extractor.to("cpu")


def test_one_reference_for_all(extractor: FeatureExtractor, pair: tuple[Tensor, Tensor]) -> None:
    test, reference = pair
    scorer = MapScorer(extractor)
    both = torch.cat([scorer(t[None], reference[:1]) for t in test])
    torch.testing.assert_close(scorer(test, reference[:1]), both, **CLOSE)


def test_what_does_not_go_together_is_refused(extractor: FeatureExtractor, pair: tuple[Tensor, Tensor]) -> None:
    test, reference = pair
    scorer = MapScorer(extractor, ["conv1:0"])
    for other in (reference[..., :90], reference[:, :, :90], torch.cat([reference, reference])):
        with pytest.raises(InputError, match=r"must have one size.*never resizes or crops"):
            scorer(test, other)
    for a, b in ((test.numpy(), reference), (test, None), ([test], [reference])):
        with pytest.raises(InputError, match=r"images \(N, 3, H, W\) must be a torch\.Tensor"):
            scorer(a, b)
    for other in (MapScorer(extractor, ["conv1:1"]), MapScorer(extractor, ["conv1:0"], measure=SSIM(data_range=2.0))):
        with pytest.raises(InputError, match="prepared for"):
            scorer(test, other.prepare(reference))
    with pytest.raises(InputError, match="no feature maps to score"):
        MapScorer(extractor, [])
    with pytest.raises(InputError, match="conv6:0"):
        MapScorer(extractor, ["conv1:0", "conv6:0"])


def test_maps_too_small_are_named_by_layer(extractor: FeatureExtractor) -> None:
    small = torch.rand(1, 3, 40, 40)
    with pytest.raises(InputError, match="layer conv3: maps of 1x1 are too small"):
        MapScorer(extractor)(small, small)
    assert MapScorer(extractor, ["conv1:0", "conv2:1"])(small, small).tolist() == [[1, 1]]


def test_scores_rise_with_quality_whatever_the_measure(
    extractor: FeatureExtractor, pair: tuple[Tensor, Tensor]
) -> None:
    test, reference = pair
    measures: list[Any] = [MSE(), GMSD(), PSNR()]
    for measure in measures:
        scores = MapScorer(extractor, ["conv2:3", "conv1:5"], measure=measure)(test, reference)
        x, y = (extractor(side, ["conv2:3"])["conv2"] for side in (test, reference))
        sign = 1 if measure.higher_is_better else -1
        torch.testing.assert_close(scores[:, :1], sign * measure(x, y), rtol=1e-4, atol=1e-6)


def test_maps_too_small_for_a_measure_are_refused_by_layer(
    extractor: FeatureExtractor, pair: tuple[Tensor, Tensor]
) -> None:
    test, reference = pair
    with pytest.raises(InputError, match=r"layer conv2: maps of .* too small for Piq\(metric='HaarPSI'.*at least 16"):
        MapScorer(extractor, measure=Piq("HaarPSI"))(test, reference)
