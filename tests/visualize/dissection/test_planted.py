"""The planted set: the labels say what is in the pixels."""

from __future__ import annotations

import colorsys
import math

import numpy as np
import pytest
import torch

from fmiqa import InputError
from fmiqa.visualize.dissection.planted import PlantedConcepts


@pytest.fixture(scope="module")
def data() -> PlantedConcepts:
    return PlantedConcepts(count=64, size=128)


def _named(data: PlantedConcepts, name: str) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """(3, H, W) images in [0, 1] and masks of one concept, where it is of some size."""
    number = next(concept.number for concept in data.concepts if concept.name == name)
    found = [(item.image / 255, item.label_maps()[0] == number) for item in (data[i] for i in range(len(data)))]
    return [(image, mask) for image, mask in found if mask.sum() > 400]


def test_pictures_are_the_same_at_every_call_and_change_with_the_seed(data: PlantedConcepts) -> None:
    again, other = PlantedConcepts(count=64, size=128), PlantedConcepts(count=64, size=128, seed=1)
    assert torch.equal(data[5].image, again[5].image)
    assert torch.equal(data[5].label_maps(), again[5].label_maps())
    assert not torch.equal(data[5].image, other[5].image)
    assert not torch.equal(data[5].image, data[7].image)


def test_every_concept_is_there_and_none_is_everywhere(data: PlantedConcepts) -> None:
    counts = torch.zeros(len(data.concepts) + 1)
    for index in range(len(data)):
        item = data[index]
        (category,) = item.labels
        assert category == ("pattern", "colour")[index % 2]
        assert item.name == data.names[index]
        assert item.image.shape[1:] == data.sizes[index]
        counts += torch.bincount(item.label_maps().flatten(), minlength=len(counts))
    share = counts / counts.sum()
    assert share[1:].min() > 0.002
    # A mask of .5 % of the pixels has IoU > .04 only with concepts of less than 12.5 %.
    assert share[1:].max() < 0.05


@pytest.mark.parametrize(
    ("name", "degrees"),
    [
        ("vertical stripes", 0),
        ("horizontal stripes", 90),
        ("diagonal stripes (/)", 45),
        ("diagonal stripes (\\)", 135),
    ],
)
def test_stripes_run_as_they_are_called(data: PlantedConcepts, name: str, degrees: float) -> None:
    """Brightness changes across the stripes: the main axis of the structure tensor, in image coordinates (y down)."""
    patches = _named(data, name)
    assert len(patches) >= 4
    for image, mask in patches:
        grey = image.mean(0)
        dx, dy = grey[1:-1, 2:] - grey[1:-1, :-2], grey[2:, 1:-1] - grey[:-2, 1:-1]
        inside = -torch.nn.functional.max_pool2d(-mask[None].float(), 5, 1)[0] > 0  # off the patch's edge
        dx, dy = dx[1:-1, 1:-1][inside], dy[1:-1, 1:-1][inside]
        angle = math.degrees(0.5 * math.atan2(2 * float((dx * dy).sum()), float((dx**2 - dy**2).sum()))) % 180
        off = (angle - degrees + 90) % 180 - 90
        assert abs(off) < 12, (name, angle)  # turned by up to 6 degrees; the rest is from a few periods in a patch


@pytest.mark.parametrize(
    ("name", "hue"), [("red", 0), ("orange", 30), ("yellow", 57), ("green", 120), ("blue", 230), ("purple", 282)]
)
def test_hues_are_those_of_their_names(data: PlantedConcepts, name: str, hue: float) -> None:
    patches = _named(data, name)
    assert len(patches) >= 3
    for image, mask in patches:
        found, saturation, _ = colorsys.rgb_to_hsv(*image[:, mask].mean(1).tolist())
        assert abs((360 * found - hue + 180) % 360 - 180) < 30
        assert saturation > 0.5


@pytest.mark.parametrize(("name", "darkest", "brightest"), [("black", 0, 0.15), ("grey", 0.3, 0.8), ("white", 0.85, 1)])
def test_greys_are_as_bright_as_their_names(data: PlantedConcepts, name: str, darkest: float, brightest: float) -> None:
    patches = _named(data, name)
    assert len(patches) >= 3
    for image, mask in patches:
        middle = image[:, mask].mean(1)
        assert darkest <= middle.min()
        assert middle.max() <= brightest
        assert middle.max() - middle.min() < 0.06


def test_labels_end_where_the_patch_ends(data: PlantedConcepts) -> None:
    """White patches on the darker ground: brightness tells each pixel's side, but on the edge itself."""
    for image, mask in _named(data, "white"):
        wide = torch.nn.functional.max_pool2d(mask[None].float(), 3, 1, 1)[0] > 0
        narrow = torch.nn.functional.max_pool2d((~mask)[None].float(), 3, 1, 1)[0] == 0
        bright = image.amin(0) > 0.85
        assert bright[narrow].float().mean() > 0.98  # the grain's extremes
        assert bright[~wide].float().mean() < 0.02  # a few of the ground's lightest grains


def test_no_such_pictures() -> None:
    with pytest.raises(InputError, match="at least one picture"):
        PlantedConcepts(count=0)
    with pytest.raises(InputError, match="32 pixels"):
        PlantedConcepts(size=20)
    small = PlantedConcepts(count=3, size=32)
    assert len(list(small)) == 3
    with pytest.raises(IndexError):
        small[3]
    assert np.asarray(small[2].image).dtype == np.uint8
