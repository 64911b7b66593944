"""Pictures that excite feature maps."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from fmiqa import FeatureExtractor, InputError
from fmiqa.visualize import MaximalImages, maximize_activation, mean_activations

METHODS = ["fourier", "pixels"]


def grating(vertical: bool, period: float = 6.0, side: int = 13) -> Tensor:
    places = torch.arange(side) - side // 2
    wave = torch.cos(2 * torch.pi * places / period) * torch.hann_window(side, periodic=False)
    envelope = torch.hann_window(side, periodic=False)[:, None]
    plane = (envelope * wave).expand(3, -1, -1)
    return plane if vertical else plane.transpose(1, 2)


def peak(picture: Tensor) -> Tensor:
    """Frequency (down, across) in cycles a pixel where a picture's power is largest, its sign left out."""
    grey = picture.mean(0)
    power = torch.fft.fft2(grey - grey.mean()).abs()
    place = int(power.flatten().argmax())
    down, across = divmod(place, power.shape[1])
    return torch.tensor([torch.fft.fftfreq(power.shape[0])[down], torch.fft.fftfreq(power.shape[1])[across]]).abs()


@pytest.mark.parametrize("method", METHODS)
def test_pictures_have_the_frequency_of_their_filters(method: str) -> None:
    conv = nn.Conv2d(3, 2, 13, stride=2, bias=False)
    with torch.no_grad():
        conv.weight.copy_(torch.stack([grating(True), grating(False)]))
    extractor = FeatureExtractor(nn.Sequential(conv, nn.ReLU()))
    found = maximize_activation(extractor, extractor.maps, method=method, size=(72, 72), steps=200, progress=False)  # type: ignore[arg-type]
    # The envelope of 13 pixels blurs the filter's frequency to some 1/13. Which frequency within has most power
    # can depend on rounding, which 200 steps enlarge.
    torch.testing.assert_close(peak(found.images[0]), torch.tensor([0.0, 1 / 6]), rtol=0, atol=1 / 13)
    torch.testing.assert_close(peak(found.images[1]), torch.tensor([1 / 6, 0.0]), rtol=0, atol=1 / 13)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.filterwarnings("ignore:.*random weights")
def test_pictures_excite_more_than_noise_and_are_the_same_each_time(method: str, device: str) -> None:
    extractor = FeatureExtractor("alexnet", weights=None).to(device)
    maps = ["conv2:5", "conv1:3", "conv3:7", "conv1:8"]
    first, again = (
        maximize_activation(extractor, maps, method=method, size=(72, 64), steps=12, progress=False)  # type: ignore[arg-type]
        for _ in range(2)
    )
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.activations, again.activations)
    assert first.images.shape == (4, 3, 72, 64)
    assert first.images.min() >= 0
    assert first.images.max() <= 1
    noise = torch.rand(4, 3, 72, 64, generator=torch.Generator().manual_seed(0))
    assert (first.activations > 1.2 * mean_activations(extractor, noise, maps).amax(0)).all()
    means = mean_activations(extractor, first.images, maps)
    torch.testing.assert_close(first.activations, means.diagonal(), rtol=1e-4, atol=1e-6)  # batches round otherwise


@pytest.mark.filterwarnings("ignore:.*random weights")
def test_batches_do_not_change_a_picture() -> None:
    extractor = FeatureExtractor("alexnet", weights=None, layers=["conv1"])
    together = maximize_activation(extractor, ["conv1:1", "conv1:2"], size=(64, 64), steps=5, progress=False)
    alone = maximize_activation(extractor, ["conv1:2"], size=(64, 64), steps=5, progress=False, batch=1)
    # Five steps let rounding grow a little: Adam divides by small slopes.
    torch.testing.assert_close(together.of("conv1:2"), alone.images[0], rtol=0, atol=1e-3)
    other = maximize_activation(extractor, ["conv1:2"], size=(64, 64), steps=5, seed=1, progress=False)
    assert (other.images - alone.images).abs().mean() > 0.01


def test_a_map_that_is_dead_at_the_start_is_climbed_too() -> None:
    conv = nn.Conv2d(3, 1, 5)
    with torch.no_grad():
        conv.weight.fill_(0.05)
        conv.bias.fill_(-3.0)  # type: ignore[union-attr]
    extractor = FeatureExtractor(nn.Sequential(conv, nn.ReLU()))
    found = maximize_activation(extractor, extractor.maps, size=(24, 24), steps=80, progress=False)
    assert found.activations[0] > 0


def test_a_stage_before_the_relu_and_saving(tmp_path: Path) -> None:
    torch.manual_seed(0)
    extractor = FeatureExtractor(nn.Sequential(nn.Conv2d(3, 2, 5), nn.BatchNorm2d(2)), stage="conv")
    found = maximize_activation(extractor, extractor.maps, size=(24, 24), steps=30, progress=False)
    grey = mean_activations(extractor, torch.full((1, 3, 24, 24), 0.5), extractor.maps)[0]
    assert (found.activations > grey).all()
    found.save(tmp_path / "pictures.safetensors")
    loaded = MaximalImages.load(tmp_path / "pictures.safetensors")
    assert torch.equal(loaded.images, found.images)
    assert loaded.maps == found.maps
    assert loaded.options == found.options


@pytest.mark.filterwarnings("ignore:.*random weights")
def test_bad_input_is_named() -> None:
    extractor = FeatureExtractor("alexnet", weights=None, layers=["conv1"])
    with pytest.raises(InputError, match="fourier, pixels, got 'deep'"):
        maximize_activation(extractor, ["conv1:1"], method="deep")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="got 0, 32"):
        maximize_activation(extractor, ["conv1:1"], steps=0)
    with pytest.raises(InputError, match="no images"):
        mean_activations(extractor, [], ["conv1:1"])
