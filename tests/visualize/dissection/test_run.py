"""Network dissection: counts against a loop over pixels, planted detectors, stopped runs."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fmiqa import FeatureExtractor, FileFormatError, InputError, ResumeError
from fmiqa.visualize.dissection import run as module
from fmiqa.visualize.dissection.concepts import Concept, ConceptImage
from fmiqa.visualize.dissection.planted import PlantedConcepts
from fmiqa.visualize.dissection.run import Dissection, dissect


class Source:
    """A list of images; `sizes` are not told."""

    def __init__(self, items: Sequence[ConceptImage], concepts: Sequence[Concept]) -> None:
        self.items, self.concepts = list(items), tuple(concepts)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> ConceptImage:
        return self.items[index]


CONCEPTS = (
    Concept(2, "sea", ("object", "colour")),
    Concept(3, "boat", ("object",)),
    Concept(7, "blue", ("colour",)),
    Concept(300, "coast", ("scene",)),
    Concept(301, "harbour", ("scene",)),
)


@pytest.fixture(scope="module")
def source() -> Source:
    """Labels of every form: layers, whole images, numbers of another category's column, images without any."""
    rng = np.random.default_rng(5)

    def drawn(numbers: Sequence[int], *shape: int) -> Tensor:
        return torch.from_numpy(rng.choice([0, *numbers], shape))

    items = []
    for n in range(7):
        height, width = (24, 30) if n % 3 else (20, 18)
        h, w = height // 2, width // 2
        image = torch.from_numpy(rng.integers(0, 256, (3, height, width)).astype(np.uint8))
        labels: dict[str, Tensor | tuple[int, ...]] = {
            0: {"object": drawn([2, 3], 2, h, w), "scene": (300,)},
            1: {"object": drawn([3], h, w), "colour": drawn([7, 2], h, w)},
            2: {"colour": drawn([7], h, w)},
            3: {"scene": torch.tensor([300, 301])},
            4: {},
            5: {"colour": drawn([2], h, w)},  # "sea" by its second category only
            6: {"object": torch.zeros(h, w, dtype=torch.uint8), "scene": (301,)},
        }[n]
        items.append(ConceptImage(image, labels, f"image {n}", (h, w)))
    return Source(items, CONCEPTS)


@pytest.fixture(scope="module")
def extractor() -> FeatureExtractor:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 5, 2), nn.ReLU(), nn.Conv2d(4, 6, 3), nn.ReLU())
    return FeatureExtractor(network)


MAPS = ["0:3", "2:5", "0:0", "2:1", "2:2"]


def _bilinear(grid: np.ndarray, height: int, width: int, image: tuple[int, int], centre: int) -> np.ndarray:
    """Pixel by pixel: position i stands at the image's pixel 2 i + centre."""
    rows, columns = grid.shape
    result = np.empty((height, width))
    for i in range(height):
        y = min(max(((i + 0.5) * image[0] / height - 0.5 - centre) / 2, 0), rows - 1)
        top, below = int(y), min(int(y) + 1, rows - 1)
        for j in range(width):
            x = min(max(((j + 0.5) * image[1] / width - 0.5 - centre) / 2, 0), columns - 1)
            left, right = int(x), min(int(x) + 1, columns - 1)
            upper = grid[top, left] * (1 - x % 1) + grid[top, right] * (x % 1)
            lower = grid[below, left] * (1 - x % 1) + grid[below, right] * (x % 1)
            result[i, j] = upper * (1 - y % 1) + lower * (y % 1)
    return result


def _counted(extractor: FeatureExtractor, source: Source, name: str, quantile: float) -> tuple[float, list[float]]:
    """The threshold and each concept's IoU, counted in a loop over the pixels."""
    grids = [next(iter(extractor(item.image[None], [name]).values()))[0, 0].double().numpy() for item in source.items]
    threshold = np.quantile(np.concatenate([g.ravel() for g in grids]), quantile, method="inverted_cdf")
    ious = []
    for concept in source.concepts:
        both = active = labelled = 0
        for grid, item in zip(grids, source.items, strict=True):
            height, width = item.label_size
            carried = set(item.label_maps().flatten().tolist()) | set(item.whole_image())
            carries = any(c.categories[0] == concept.categories[0] for c in source.concepts if c.number in carried)
            # Kernels of 5 with steps of 2, then of 3: what a position sees is 5 and 9 pixels wide.
            centre = 2 if name.startswith("0:") else 4
            size = (int(item.image.shape[1]), int(item.image.shape[2]))
            up, layers = _bilinear(grid, height, width, size, centre), item.label_maps().numpy()
            for i in range(height):
                for j in range(width):
                    on = up[i, j] > threshold
                    has = concept.number in item.whole_image() or concept.number in layers[:, i, j]
                    both += on and has
                    labelled += has
                    active += on and carries
        ious.append(both / (active + labelled - both))
    return threshold, ious


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_iou_is_that_of_a_loop_over_pixels(extractor: FeatureExtractor, source: Source, batch_size: int) -> None:
    # In float64 no pixel lies so near the threshold that the order of sums in batches of other sizes moves it across.
    extractor = copy.deepcopy(extractor).double()
    found = dissect(extractor, source, MAPS, quantile=0.9, top=3, batch_size=batch_size, progress=False)
    for row, name in enumerate(MAPS):
        threshold, ious = _counted(extractor, source, name, 0.9)
        assert float(found.thresholds[row]) == pytest.approx(threshold, rel=1e-12)
        # Whole pixels are counted: a pixel more or less would change an IoU by some 1e-3.
        assert found.iou[row].tolist() == pytest.approx(ious, abs=1e-9)
    assert (found.iou > 0.02).any(1).all()


def test_top_images_are_those_of_the_greatest_peaks(extractor: FeatureExtractor, source: Source) -> None:
    found = dissect(extractor, source, MAPS, top=3, progress=False)
    for row, name in enumerate(MAPS):
        peaks = [float(next(iter(extractor(i.image[None], [name]).values())).max()) for i in source.items]
        assert found.top_images[row].tolist() == list(np.argsort(peaks)[::-1][:3])
    assert found.names == tuple(f"image {n}" for n in range(7))


def _hand_made() -> FeatureExtractor:
    """Filter 0 fires on red, filter 1 on vertical stripes some 7 pixels wide, filter 2 never."""
    conv = nn.Conv2d(3, 3, 11, 2, 5)
    with torch.no_grad():
        conv.weight.zero_()
        conv.bias.zero_()
        # In images as the network sees them: pixels / deviation, mean removed.
        std = torch.tensor([0.229, 0.224, 0.225])
        mean = torch.tensor([0.485, 0.456, 0.406])
        conv.weight[0] = (torch.tensor([1.0, -1, -1]) * std)[:, None, None] / 121
        conv.bias[0] = float(torch.tensor([1.0, -1, -1]) @ mean) - 0.3
        x = torch.arange(11) - 5.0
        wave = (2 * math.pi * x / 7).cos() * (-(x**2) / 18).exp()
        wave -= wave.mean()
        conv.weight[1] = (std[:, None, None] * wave).expand(3, 11, 11) / 121
        conv.bias[2] = -1
    return FeatureExtractor(nn.Sequential(conv, nn.ReLU()))


def test_planted_detectors_are_named() -> None:
    found = dissect(_hand_made(), PlantedConcepts(count=60, size=128), progress=False)
    red, stripes, dead = found.best()
    assert (red.concept, red.category, red.detector) == ("red", "colour", True)
    assert (stripes.concept, stripes.category, stripes.detector) == ("vertical stripes", "pattern", True)
    assert dead == (found.maps[2], "", "", 0.0, False)
    assert found.unique_detectors == {"pattern": 1, "colour": 1}
    assert [b.map.channel for b in found.detectors()] == ([0, 1] if red.iou > stripes.iou else [1, 0])
    assert found.detectors(0.99) == []
    text = str(found)
    assert text.startswith("2 of 3 maps detect a concept (*, IoU > 0.04); different concepts: 1 pattern, 1 colour")
    assert "vertical stripes" in text
    assert "<td>red</td>" in found._repr_html_()


def test_segments_lie_on_the_concept() -> None:
    extractor, data = _hand_made(), PlantedConcepts(count=40, size=128)
    found = dissect(extractor, data, ["0:0"], progress=False)
    segments = found.segments(extractor, data, "0:0", 2)
    assert [s.name for s in segments] == [found.names[i] for i in found.top_images[0, :2]]
    number = next(c.number for c in data.concepts if c.name == "red")
    for segment, position in zip(segments, found.top_images[0].tolist(), strict=False):
        assert torch.equal(segment.image, data[position].image)
        assert segment.mask.shape == (128, 128)
        assert segment.mask.any()
        assert (data[position].label_maps()[0] == number)[segment.mask].float().mean() > 0.8
    with pytest.raises(InputError, match="no such feature map"):
        found.segments(extractor, data, "0:1")
    with pytest.raises(InputError, match="this data set is"):
        found.segments(extractor, Source([ConceptImage(data[0].image, {}, "other")] * 40, data.concepts), "0:0")
    other = FeatureExtractor(nn.Sequential(nn.Conv2d(3, 3, 11), nn.ReLU()))
    with pytest.raises(InputError, match="other weights"):
        found.segments(other, data, "0:0")


class _StopError(Exception):
    pass


class _Stopping(Source):
    """Raises at the n-th image that is asked for."""

    def __init__(self, source: Source, after: int) -> None:
        super().__init__(source.items, source.concepts)
        self.name, self.left = "Source", after
        self.sizes = [(i.image.shape[1], i.image.shape[2]) for i in source.items]

    def __getitem__(self, index: int) -> ConceptImage:
        self.left -= 1
        if self.left < 0:
            raise _StopError
        return super().__getitem__(index)


@pytest.mark.parametrize("after", [3, 7, 9, 13])
def test_a_stopped_run_goes_on(
    extractor: FeatureExtractor, source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    monkeypatch.setattr(module, "_SAVE_SECONDS", 0.0)
    whole = dissect(extractor, source, MAPS, batch_size=2, progress=False)
    save = tmp_path / "dissection.safetensors"
    with pytest.raises(_StopError):
        dissect(extractor, _Stopping(source, after), MAPS, batch_size=2, progress=False, save=save)
    needed = _Stopping(source, 100)
    again = dissect(extractor, needed, MAPS, batch_size=2, progress=False, save=save)
    assert torch.equal(again.iou, whole.iou)
    assert torch.equal(again.thresholds, whole.thresholds)
    assert torch.equal(again.top_images, whole.top_images)
    # What was finished is not done again: the first pass, and whole batches of the second.
    finished = 0 if after < 7 else after - (after - 7) % 2
    assert 100 - needed.left <= 14 - finished + 2
    assert not (tmp_path / "dissection.safetensors.parts").exists()
    loaded = Dissection.load(save)
    assert str(loaded) == str(again)


def test_parts_of_another_run_are_refused(extractor: FeatureExtractor, source: Source, tmp_path: Path) -> None:
    save = tmp_path / "d.safetensors"
    with pytest.raises(_StopError):
        dissect(extractor, _Stopping(source, 9), MAPS, progress=False, save=save)
    with pytest.raises(ResumeError, match=r"quantile: then 0.995, now 0.9"):
        dissect(extractor, source, MAPS, quantile=0.9, progress=False, save=save)
    with pytest.raises(ResumeError, match="maps: then 5, now 1"):
        dissect(extractor, source, ["0:0"], progress=False, save=save)
    renamed = [ConceptImage(i.image, i.labels, f"new {i.name}", i.size) for i in source.items]
    with pytest.raises(ResumeError, match="in the first pass it was 'image"):
        dissect(extractor, Source(renamed, CONCEPTS), MAPS, progress=False, save=save)
    # A damaged part is as good as none.
    (tmp_path / "d.safetensors.parts" / "thresholds.safetensors").write_bytes(b"half")
    again = dissect(extractor, source, MAPS, progress=False, save=save)
    assert torch.equal(again.iou, dissect(extractor, source, MAPS, progress=False).iou)


def test_save_and_load(extractor: FeatureExtractor, source: Source, tmp_path: Path) -> None:
    found = dissect(extractor, source, MAPS, threshold=0.1, progress=False)
    found.save(tmp_path / "d.safetensors")
    loaded = Dissection.load(tmp_path / "d.safetensors")
    assert loaded.concepts == found.concepts
    assert loaded.best() == found.best()
    assert loaded.names == found.names
    assert loaded.options == found.options
    assert loaded.threshold == 0.1
    assert torch.equal(loaded.top_images, found.top_images)
    content = (tmp_path / "d.safetensors").read_bytes()
    (tmp_path / "d.safetensors").write_bytes(content[:-9])
    with pytest.raises(FileFormatError, match="damaged"):
        Dissection.load(tmp_path / "d.safetensors")
    with pytest.raises(FileFormatError, match="no file"):
        Dissection.load(tmp_path / "absent")


def test_errors(extractor: FeatureExtractor, source: Source, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="0 < quantile < 1"):
        dissect(extractor, source, quantile=1.0)
    with pytest.raises(InputError, match="nothing to dissect with"):
        dissect(extractor, Source([], CONCEPTS))
    with pytest.raises(InputError, match="nothing to dissect with"):
        dissect(extractor, Source(source.items, []))
    with pytest.raises(InputError, match="share the number 3"):
        dissect(extractor, Source(source.items, [*CONCEPTS, Concept(3, "ship", ("object",))]))
    with pytest.raises(InputError, match=r"'image 3' has labels .* \[301\]"):
        dissect(extractor, Source(source.items[:4], CONCEPTS[:4]), progress=False)
    with pytest.raises(InputError, match="is a folder"):
        dissect(extractor, source, save=tmp_path)
    with pytest.raises(InputError, match="no such feature map"):
        dissect(extractor, source, ["0:9"], progress=False)
    lying = _Stopping(source, 100)
    lying.sizes = [(24, 30)] * 7
    with pytest.raises(InputError, match="its data set says"):
        dissect(extractor, lying, progress=False)


def test_the_result_is_of_use_outside_inference_mode(extractor: FeatureExtractor, source: Source) -> None:
    found = dissect(extractor, source, MAPS, progress=False)
    for tensor in (found.iou, found.thresholds, found.top_images):
        assert not tensor.is_inference()


def test_on_any_device_alike(source: Source, device: torch.device) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 5, 2), nn.ReLU(), nn.Conv2d(4, 6, 3), nn.ReLU())
    here = dissect(FeatureExtractor(network), source, quantile=0.9, progress=False)
    there = dissect(FeatureExtractor(network).to(device), source, quantile=0.9, progress=False)
    # A pixel whose value is within rounding of the threshold may fall either way: about 1e-3 of an IoU.
    assert (here.iou - there.iou).abs().max() < 5e-3
    assert there.iou.device.type == "cpu"
