"""What maps detect, in words."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

import fmiqa
from fmiqa import FeatureExtractor, SelectedFeatureIQM, Viewing
from fmiqa.explanation import Detected, detected, detected_by
from fmiqa.explanation.stimuli import SIDE, Stimulus, stimuli

SIZE = 15  # of filters


def network(*filters: Tensor, relu: bool = True) -> nn.Sequential:
    """Filters (3, k, k) of deviation 1 over RGB, whose input is normalised by channel."""
    convolution = nn.Conv2d(3, len(filters), filters[0].shape[-1], stride=2, bias=False)
    convolution.weight.data = torch.stack([f / f.std() for f in filters])
    return nn.Sequential(convolution, nn.ReLU()) if relu else nn.Sequential(convolution)


def place() -> tuple[Tensor, Tensor]:
    """x and y of a filter's pixels, from its centre."""
    line = torch.arange(SIZE) - (SIZE - 1) / 2
    return line.expand(SIZE, SIZE), line[:, None].expand(SIZE, SIZE)


def window(sigma: float = 4.0) -> Tensor:
    x, y = place()
    return torch.exp(-(x**2 + y**2) / (2 * sigma**2))


def gabor(direction: float, period: float) -> Tensor:
    """Along a direction in degrees, 90 = down, without a response to grey."""
    x, y = place()
    turn = math.radians(direction)
    wave = torch.sin(2 * math.pi * (x * math.cos(turn) + y * math.sin(turn)) / period) * window()
    return wave.expand(3, SIZE, SIZE).clone()


@pytest.mark.parametrize(
    ("direction", "name"),
    [(0, "vertical"), (90, "horizontal"), (45, "diagonal (/)"), (135, "diagonal (\\)"), (22.5, "steep (/)"),
     (112.5, "flat (\\)")],
)  # fmt: skip
@pytest.mark.parametrize("period", [6.1, 8.7])
def test_a_gabor_filter_detects_stripes_of_its_direction_and_period(direction: float, name: str, period: float) -> None:
    (found,) = detected(FeatureExtractor(network(gabor(direction, period))), ["0:0"])
    assert found.stimuli[0] == Stimulus("stripes", direction=direction, size=period)
    assert found.words().removeprefix("mixed: ").startswith(f"{name} stripes about {period:.0f} pixels apart")
    assert found.selectivity > 0.8


def test_every_device_says_the_same(device: torch.device) -> None:
    extractor = FeatureExtractor(network(gabor(0, 6.1), gabor(45, 8.7)))
    expected = detected(extractor, ["0:0", "0:1"])
    assert detected(extractor.to(device), ["0:0", "0:1"]) == expected


def test_sizes_are_in_pixels_of_the_picture() -> None:
    assert Stimulus("stripes", direction=0.0, size=6.1).words(3) == "vertical stripes about 18 pixels apart"
    assert Stimulus("grain", size=1.0).words() == "grain of about 1 pixel"


@pytest.mark.parametrize("scaled", [Viewing(), Viewing(factor=0.25)])
def test_the_viewing_does_not_count(scaled: Viewing) -> None:
    filters = gabor(0, 6.1)
    (found,) = detected(FeatureExtractor(network(filters), viewing=scaled), ["0:0"])
    assert found.stimuli[0].size == 6.1


BLUE_LESS_ORANGE = torch.tensor([-1.0, -0.2, 1.2])


def test_a_filter_of_opposite_colours_detects_them() -> None:
    x, _ = place()
    side = (torch.sign(x) * window())[None] * BLUE_LESS_ORANGE.view(3, 1, 1)
    area = window()[None] * BLUE_LESS_ORANGE.view(3, 1, 1)
    edge, plain = detected(FeatureExtractor(network(side, area)), ["0:0", "0:1"])
    assert edge.stimuli[0].colours == ("blue", "orange")
    assert edge.words().startswith("blue against orange, ")
    assert "vertical" in edge.words()
    assert plain.words() == "plain blue"


def test_edges_say_where_they_are_lighter() -> None:
    """A filter whose lower half must be lighter than its upper half; long, so that no spot fits."""
    _, y = place()
    step = torch.sign(y).expand(3, SIZE, SIZE)
    (found,) = detected(FeatureExtractor(network(step)), ["0:0"])
    assert found.stimuli[0].kind == "edges"
    assert found.words().startswith("horizontal edges, lighter towards the bottom")
    assert Stimulus("edges").words() == "edges of any direction"


def test_a_filter_without_direction_detects_spots() -> None:
    ring = window(2.0) / window(2.0).sum() - window(5.0) / window(5.0).sum()
    light, dark = detected(
        FeatureExtractor(network(*(s * ring.expand(3, SIZE, SIZE) for s in (1, -1)))), ["0:0", "0:1"]
    )
    assert "light spots" in light.words()
    assert "dark spots" in dark.words()


def test_maps_before_the_relu_and_maps_that_see_nothing() -> None:
    extractor = FeatureExtractor(network(gabor(90, 6.1), relu=False), stage="conv")
    assert detected(extractor, ["0:0"])[0].stimuli[0] == Stimulus("stripes", direction=90.0, size=6.1)
    dead = nn.Sequential(nn.Conv2d(3, 1, 3), nn.ReLU())
    nn.init.zeros_(dead[0].weight)
    assert detected(FeatureExtractor(dead), ["0:0"]) == [Detected((), 0.0)]
    assert Detected((), 0.0).words() == "nothing that the stimuli have"


def test_the_words_of_a_metric_follow_its_weights_and_its_order() -> None:
    extractor = FeatureExtractor(network(gabor(0, 6.1), gabor(90, 8.7)))
    metric = SelectedFeatureIQM({"a": extractor, "b": extractor}, ["b/0:1", "a/0:0", "b/0:0"])
    first = detected_by(metric)
    assert [one.stimuli[0].direction for one in first] == [90, 0, 0]
    assert detected_by(metric) is first
    with torch.no_grad():
        for name, weight in metric.named_parameters():
            assert name.endswith("weight")
            weight.copy_(weight.transpose(-1, -2).clone())
    assert [one.stimuli[0].direction for one in detected_by(metric)] == [0, 90, 90]


def test_the_words_of_the_metric_in_the_package() -> None:
    """Four clear ones: no response is nearer than 0.01 to the border of what counts as near, and rounding is 1e-6."""
    metric = fmiqa.load_metric("fast")
    found = dict(zip(map(str, metric.maps), detected_by(metric), strict=True))
    assert found["alexnet/conv2:74"].words() == "checkers with squares of about 3 pixels"
    assert found["alexnet/conv2:165"].words() == "green against magenta, at vertical edges"
    assert found["alexnet/conv2:188"].words() == "light spots about 13 pixels across"
    assert found["squeezenet-half/features.3.expand1x1:4"].words() == "plain red"


def test_stimuli_are_distinct_and_colours_of_equal_luma() -> None:
    known, pictures, numbers = stimuli()
    assert len(set(known)) == len(known) > 150
    assert pictures.shape == (len(numbers), 3, SIDE, SIDE)
    assert sorted(set(numbers.tolist())) == list(range(len(known)))
    luma = torch.einsum("pchw,c->phw", pictures.double(), torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64))
    coloured = [known[number].kind.startswith("coloured") for number in numbers.tolist()]
    deviation = (luma[coloured] - 127.5).abs().max()
    assert (
        deviation < 1.1
    )  # each channel is rounded to 8 bits: 0.5, and luma's own coefficients are rounded: 0.001 x 255
    assert all(stimulus.words() and stimulus.words(2.5) for stimulus in known)
