"""Scores in tiles against those of whole images, and what a position sees against gradients."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import fmiqa
from fmiqa import FeatureExtractor
from fmiqa.datasets import Sample
from fmiqa.features.receptive_field import reaches
from fmiqa.measures import GMS, MSE, SSIM, Measure
from fmiqa.scoring.scorer import MapScorer
from fmiqa.scoring.tiling import Tiling

# Kernels for maps of another size may add up in another order: maps in float32 differ by some 1e-6 of their range, and
# SSIM by up to 100 times as much (its least denominator is (.01 L)^2). On CUDA, Winograd's kernels are off by several
# times as much. A seam in the wrong place changes .01 and more.
CLOSE = {"rtol": 0, "atol": 1e-4}
CLOSE_ON_CUDA = {"rtol": 0, "atol": 5e-4}

NETWORKS = ["alexnet", "vgg16", "squeezenet1_1"]


def scorer_of(name: str, stage: str = "relu", maps: list[str] | None = None) -> MapScorer:
    with pytest.warns(UserWarning, match="random weights"):
        return MapScorer(FeatureExtractor(name, weights=None, stage=stage), maps)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", NETWORKS)
def test_reach_is_where_gradients_come_from(name: str) -> None:
    scorer = scorer_of(name)
    images = torch.rand(1, 3, 400, 60, requires_grad=True)
    found = reaches(scorer.extractor, scorer.asked)
    for layer, maps in scorer.extractor.features_of_normalized(images, scorer.asked):
        place = maps.shape[2] // 2
        # Signs of weights and ReLUs would let single pixels cancel: many channels do not all do so.
        (gradient,) = torch.autograd.grad(maps[:, :, place].sum(), images, retain_graph=True)
        rows = gradient.abs().amax((0, 1, 3)).nonzero()[:, 0]
        reach = found[layer]
        assert place * reach.stride + reach.low <= int(rows.min())
        assert int(rows.max()) <= place * reach.stride + reach.high
        if name != "squeezenet1_1":  # there the widest path goes through few filters
            assert reach.high - reach.low - int(rows.max() - rows.min()) <= 2 * reach.stride


@pytest.mark.parametrize("name", ["alexnet", pytest.param("vgg16", marks=pytest.mark.slow), "squeezenet1_1"])
@pytest.mark.parametrize(("height", "width"), [(331, 423), (349, 337)])  # over three tiles of 160 rows and columns
def test_tiles_give_what_whole_images_give(name: str, height: int, width: int, device: torch.device) -> None:
    scorer = scorer_of(name).to(device)
    generator = torch.Generator().manual_seed(height)
    reference = torch.rand(1, 3, height, width, generator=generator).to(device)
    test = (reference + 0.1 * torch.randn(1, 3, height, width, generator=generator).to(device)).clamp(0, 1)
    with torch.inference_mode():
        whole = scorer(test, reference)
        for side in (96, 160):
            tiling = Tiling(scorer, height, width, 2**40)
            tiling._rows, tiling._columns = (list(tiling._spans(n, side, a)) for n, a in ((height, 1), (width, 2)))
            assert len(tiling._rows) > 2
            close = CLOSE if device.type == "cpu" else CLOSE_ON_CUDA
            torch.testing.assert_close(tiling(test, reference), whole.double().cpu(), **close)


def test_a_small_budget_makes_tiles_and_keeps_the_columns_in_order() -> None:
    scorer = scorer_of("alexnet", "conv", ["conv3:5", "conv1:9", "conv1:2"])
    reference = torch.rand(1, 3, 700, 600)
    test = reference.roll(1, 3)
    tiling = Tiling(scorer, 700, 600, 2**20)
    assert len(tiling._rows) * len(tiling._columns) > 1
    with torch.inference_mode():
        torch.testing.assert_close(tiling(test, reference), scorer(test, reference).double(), **CLOSE)


@pytest.mark.parametrize("measure", [MSE(), GMS(), GMS(data_range=5.0)], ids=str)
def test_tiles_of_other_measures(measure: Measure) -> None:
    scorer = MapScorer(scorer_of("alexnet").extractor, measure=measure)
    generator = torch.Generator().manual_seed(1)
    reference = torch.rand(1, 3, 423, 337, generator=generator)
    test = (reference + 0.1 * torch.randn(1, 3, 423, 337, generator=generator)).clamp(0, 1)
    tiling = Tiling(scorer, 423, 337, 2**40)
    tiling._rows, tiling._columns = (list(tiling._spans(n, 96, a)) for n, a in ((423, 1), (337, 2)))
    with torch.inference_mode():
        torch.testing.assert_close(tiling(test, reference), scorer(test, reference).double(), atol=1e-6, rtol=1e-4)


def test_what_cannot_be_tiled_says_so() -> None:
    scorer = scorer_of("alexnet")
    with pytest.raises(fmiqa.InputError, match=r"at least [\d.]+ times as much"):
        Tiling(scorer, 3000, 4000, 1000)
    whole = MapScorer(scorer.extractor, measure=SSIM(data_range="reference"))
    with pytest.raises(fmiqa.InputError, match="needs whole maps"):
        Tiling(whole, 3000, 4000, 2**30)

    class Global(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.first(x)
            return self.second(x - x.mean((2, 3), keepdim=True))

    with pytest.raises(fmiqa.InputError, match="not known to be local"):
        Tiling(MapScorer(FeatureExtractor(Global(), stage="conv")), 3000, 4000, 2**30)


def test_a_score_matrix_that_does_not_fit_is_made_of_tiles() -> None:
    generator = torch.Generator().manual_seed(0)
    reference = torch.randint(0, 256, (3, 700, 600), generator=generator, dtype=torch.uint8)
    samples = [Sample(reference, reference.roll(k, 2), float(k), "r", f"t{k}") for k in (1, 2)]
    extractor = scorer_of("alexnet").extractor
    roomy = fmiqa.score_matrix(extractor, samples)
    tight = fmiqa.score_matrix(extractor, samples, memory=36 * 2**20)
    torch.testing.assert_close(tight.values, roomy.values, **CLOSE)
    assert not torch.equal(tight.values, roomy.values)  # or nothing was tiled
