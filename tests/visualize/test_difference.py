"""Relevance of pixels: where it must lie, and that shortcuts and interruptions leave no trace."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fmiqa.visualize.difference as module
from fmiqa import FeatureExtractor, InputError, ResumeError
from fmiqa.visualize import ConditionalSampler, MarginalSampler, PredictionDifference, prediction_difference

QUIET: dict[str, Any] = {"progress": False}


def reader_of_one_place(height: int, width: int, top: int, left: int, side: int) -> FeatureExtractor:
    """A network whose only map is one position, the mean of one patch of the image."""
    conv = nn.Conv2d(3, 1, (height, width), bias=False)
    with torch.no_grad():
        conv.weight.zero_()
        conv.weight[:, :, top : top + side, left : left + side] = 1 / (3 * side * side)
    return FeatureExtractor(nn.Sequential(conv), stage="conv")


def test_relevance_lies_where_the_map_looks_and_nowhere_else() -> None:
    extractor = reader_of_one_place(40, 50, 16, 20, 6)
    image = torch.zeros(3, 40, 50)
    image[:, 16:22, 20:26] = 1  # what raises the map
    sampler = MarginalSampler([torch.rand(3, 40, 50)], window=5)
    found = prediction_difference(extractor, image, extractor.maps, sampler=sampler, stride=1, **QUIET).relevance[0]
    reach = torch.zeros(40, 50, dtype=torch.bool)
    reach[16 - 4 : 22 + 4, 20 - 4 : 26 + 4] = True  # windows of 5 that overlap the patch
    assert (found[~reach] == 0).all()
    assert (found[16:22, 20:26] > 0).all()
    assert found[19, 23] == found.max() or found[16:22, 20:26].max() == found.max()


def test_relevance_against_a_plain_loop() -> None:
    torch.manual_seed(0)
    extractor = FeatureExtractor(nn.Sequential(nn.Conv2d(3, 2, 5, stride=2), nn.ReLU(), nn.Conv2d(2, 2, 3), nn.ReLU()))
    image = torch.rand(3, 26, 30)
    sampler = ConditionalSampler([torch.rand(3, 40, 40)], window=6, padding=2, patches=300)
    found = prediction_difference(extractor, image, extractor.maps, sampler=sampler, stride=5, samples=3, **QUIET)
    tops, lefts = [0, 5, 10, 15, 20], [0, 5, 10, 15, 20, 24]
    total, count = torch.zeros(4, 26, 30, dtype=torch.float64), torch.zeros(26, 30)

    def means(picture: Tensor) -> Tensor:
        return torch.cat([v.mean((2, 3))[0] for v in extractor(picture[None]).values()]).double()

    before = means(image)
    for row, top in enumerate(tops):
        generator = torch.Generator().manual_seed(row)
        at = torch.tensor(lefts)
        drawn = sampler.sample(image, torch.full_like(at, top), at, 3, generator)
        for number, left in enumerate(lefts):
            after = []
            for new in drawn[number]:
                picture = image.clone()
                picture[:, top : top + 6, left : left + 6] = new
                after.append(means(picture))
            total[:, top : top + 6, left : left + 6] += (before - torch.stack(after).mean(0))[:, None, None]
            count[top : top + 6, left : left + 6] += 1
    assert (count > 0).all()
    # Means of float32 activations of about 1, subtracted.
    torch.testing.assert_close(found.relevance.double(), total / count, rtol=0, atol=2e-6)


@pytest.mark.filterwarnings("ignore:.*random weights")
def test_cropping_equals_whole_images(device: str) -> None:
    extractor = FeatureExtractor("alexnet", weights=None).to(device)
    image = torch.rand(3, 72, 80, generator=torch.Generator().manual_seed(0)).to(device)
    sampler = MarginalSampler([image], window=8, patches=50)
    maps = ["conv1:3", "conv2:9", "conv3:1"]
    local, whole = (
        prediction_difference(
            extractor, image, maps, sampler=sampler, stride=8, samples=2, local=way, **QUIET
        ).relevance
        for way in (True, False)
    )
    # Differences of float32 means of up to 2 of maps that are off by some 1e-6 of their range: 4e-6, and a margin.
    torch.testing.assert_close(local, whole, rtol=0, atol=2e-5)
    assert whole.abs().max() > 1e-4


@pytest.mark.filterwarnings("ignore:.*random weights")
def test_an_interrupted_run_goes_on_and_gives_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SECONDS", 0.0)
    extractor = FeatureExtractor("alexnet", weights=None, layers=["conv1"])
    image = torch.rand(3, 60, 64)
    options: dict[str, Any] = {
        "sampler": MarginalSampler([image], patches=50), "stride": 10, "samples": 2, **QUIET
    }  # fmt: skip
    expected = prediction_difference(extractor, image, ["conv1:3"], **options)
    path, ran = tmp_path / "found.safetensors", 0
    change = module.Replay.mean_change

    def stops(*args: Any) -> Tensor:
        nonlocal ran
        ran += 1
        if ran == 5:  # one call to learn the cost, then a call a row
            raise KeyboardInterrupt
        return change(*args)

    monkeypatch.setattr(module.Replay, "mean_change", stops)
    with pytest.raises(KeyboardInterrupt):
        prediction_difference(extractor, image, ["conv1:3"], save=path, **options)
    assert not path.exists()
    with pytest.raises(ResumeError, match="stride: then 10, now 5"):
        prediction_difference(extractor, image, ["conv1:3"], save=path, **{**options, "stride": 5})
    ran = 100
    found = prediction_difference(extractor, image, ["conv1:3"], save=path, **options)
    assert ran - 100 == 1 + 6 - 3  # three of six rows were there
    assert torch.equal(found.relevance, expected.relevance)
    loaded = PredictionDifference.load(path)
    assert torch.equal(loaded.of("conv1:3"), expected.relevance[0])
    assert loaded.options == expected.options
    assert list(tmp_path.iterdir()) == [path]
    monkeypatch.setattr(module.Replay, "mean_change", lambda *_: pytest.fail("ran again"))
    assert torch.equal(
        prediction_difference(extractor, image, ["conv1:3"], save=path, **options).relevance, loaded.relevance
    )
    with pytest.raises(ResumeError, match="image_sha256"):
        prediction_difference(extractor, image.flip(2), ["conv1:3"], save=path, **options)


@pytest.mark.filterwarnings("ignore:.*random weights")
def test_bad_input_is_named() -> None:
    extractor = FeatureExtractor("alexnet", weights=None, layers=["conv1"])
    image = torch.rand(3, 60, 64)
    sampler = MarginalSampler([image], patches=50)
    for options, given in (({"stride": 11}, "stride 11"), ({"stride": 0}, "stride 0"), ({"samples": 0}, "samples 0")):
        with pytest.raises(InputError, match=given):
            prediction_difference(extractor, image, ["conv1:3"], sampler=sampler, **options, **QUIET)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"got \(1, 3, 60, 64\)"):
        prediction_difference(extractor, image[None], ["conv1:3"], sampler=sampler, **QUIET)
