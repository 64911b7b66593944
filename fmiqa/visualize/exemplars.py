"""Where feature maps look in real images: the patches that excite them most, and where their SSIM falls."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from fmiqa._checks import check_picture
from fmiqa._progress import progress_bar
from fmiqa._runtime.precision import strict_float32
from fmiqa.errors import InputError
from fmiqa.features.enlarging import enlarged
from fmiqa.features.extractor import FeatureExtractor, check_extractor
from fmiqa.features.receptive_field import Reach, reaches
from fmiqa.features.viewing import Viewing
from fmiqa.maps import FeatureMap, MapIndex
from fmiqa.measures import SSIM
from fmiqa.scoring.loading import reference_ids
from fmiqa.scoring.scorer import MapScorer

__all__ = ["Exemplar", "as_seen", "exemplars", "local_quality", "mean_activations", "native", "ReferenceImages"]


class Images(Protocol):
    """Any sequence of images (3, H, W), decoded when asked for."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Tensor: ...


class Exemplar(NamedTuple):
    """A patch that excites a feature map.

    Args:
        image: Number of the image.
        value: The value of the map there.
        box: Top, left, bottom and right of what the position sees, in pixels of the image as the network sees it.
        patch: (3, h, w) uint8, that part of the image; smaller at its borders.
    """

    image: int
    value: float
    box: tuple[int, int, int, int]
    patch: Tensor


@torch.inference_mode()
def exemplars(
    extractor: FeatureExtractor,
    images: Images,
    maps: Iterable[FeatureMap | str],
    *,
    count: int = 9,
    progress: bool = False,
) -> dict[FeatureMap, list[Exemplar]]:
    """The patches that excite each map most, one an image, cropped to what a position of the map sees.

    Args:
        extractor: The network.
        images: (3, H, W) each, uint8 or float in [0, 1], of any sizes.
        maps: The feature maps.
        count: Patches a map, or as many as there are images.
        progress: Show a progress bar.

    Returns:
        Map -> its exemplars, the most exciting first.

    Raises:
        InputError: No images, unknown maps, or a network whose maps do not see parts of the image.

    Example:
        >>> import warnings; warnings.simplefilter("ignore")
        >>> extractor = FeatureExtractor("alexnet", weights=None)
        >>> found = exemplars(extractor, torch.rand(3, 3, 80, 80), ["conv1:3"], count=2, progress=False)
        >>> [patch.shape for *_, patch in found[FeatureMap("conv1", 3)]]  # doctest: +ELLIPSIS
        [torch.Size([3, ...
    """
    chosen = maps if isinstance(maps, MapIndex) else MapIndex(maps)
    check_extractor(extractor)
    if not (hasattr(images, "__len__") and hasattr(images, "__getitem__")) or isinstance(images, str):
        raise InputError(f"images is a sequence of images (3, H, W), got {type(images).__name__}")
    if not len(images) or count < 1:
        raise InputError(f"at least one image and one patch, got {len(images)} images and count {count}")
    seen = reaches(extractor, chosen)
    values, places = [], []
    with strict_float32(extractor.device):
        for number in progress_bar(range(len(images)), show=progress, desc="exemplars", unit="image"):
            best = [_best(m) for m in _by_map(extractor, images[number], chosen)]
            values.append([value for value, _ in best])
            places.append([place for _, place in best])
    top = torch.tensor(values, device="cpu").topk(min(count, len(images)), dim=0)
    cut: dict[tuple[int, int], Exemplar] = {}
    for number in top.indices.unique().tolist():  # each image is decoded once more, for all maps that it excites
        image = _visible(extractor, images[number])
        for column in (top.indices == number).any(0).nonzero()[:, 0].tolist():
            place, value = places[number][column], values[number][column]
            cut[number, column] = _exemplar(image, number, place, value, seen[chosen[column].layer])
    return {
        map: [cut[number, column] for number in top.indices[:, column].tolist()] for column, map in enumerate(chosen)
    }


@torch.inference_mode()
def mean_activations(extractor: FeatureExtractor, images: Iterable[Tensor], maps: Iterable[FeatureMap | str]) -> Tensor:
    """The spatial mean of each map on each image: what activation maximisation raises.

    Args:
        extractor: The network.
        images: (3, H, W) each, of any size, float in [0, 1] or uint8.
        maps: The M feature maps.

    Returns:
        (N, M), on the CPU.

    Example:
        >>> import warnings; warnings.simplefilter("ignore")
        >>> extractor = FeatureExtractor("alexnet", weights=None)
        >>> mean_activations(extractor, torch.rand(3, 3, 64, 64), ["conv1:3", "conv2:5"]).shape
        torch.Size([3, 2])
    """
    chosen = maps if isinstance(maps, MapIndex) else MapIndex(maps)
    check_extractor(extractor)
    with strict_float32(extractor.device):
        rows = [torch.stack([m.mean() for m in _by_map(extractor, image, chosen)]).cpu() for image in images]
    if not rows:
        raise InputError("no images; give at least one")
    return torch.stack(rows)


@torch.inference_mode()
def local_quality(
    extractor: FeatureExtractor,
    test: Tensor,
    reference: Tensor,
    maps: Iterable[FeatureMap | str],
    *,
    measure: SSIM = SSIM(),  # noqa: B008, a frozen value
) -> Tensor:
    """Where in an image each map's SSIM falls: its SSIM map, enlarged to the image.

    Args:
        extractor: The network.
        test: (3, H, W) the test image, uint8 or float in [0, 1].
        reference: (3, H, W) the reference image.
        maps: The M feature maps.
        measure: SSIM with its options.

    Returns:
        (M, H, W), at most 1, of the images as the network sees them. Between the centres of the SSIM windows, as the
        map sees them, values are interpolated linearly; beyond the outermost they are held.

    Raises:
        InputError: Images of two sizes, unknown maps, or a network whose maps do not see parts of the image.

    Example:
        >>> import warnings; warnings.simplefilter("ignore")
        >>> extractor = FeatureExtractor("alexnet", weights=None)
        >>> local_quality(extractor, torch.rand(3, 80, 96), torch.rand(3, 80, 96), ["conv1:3", "conv2:1"]).shape
        torch.Size([2, 80, 96])
    """
    chosen = maps if isinstance(maps, MapIndex) else MapIndex(maps)
    check_extractor(extractor)
    check_picture(test, "test image")
    check_picture(reference, "reference")
    if test.shape != reference.shape:
        raise InputError(f"test image {tuple(test.shape)} and reference {tuple(reference.shape)} are of one size")
    seen = reaches(extractor, chosen)
    height, width = extractor.viewing.size(*test.shape[1:])
    asked = MapScorer(extractor, chosen, measure=measure).asked  # whole layers, where the other maps count too
    found = []
    with strict_float32(extractor.device):
        tests, references = (extractor(image[None].to(extractor.device), asked) for image in (test, reference))
        for layer, x in tests.items():
            local = measure.local(x, references[layer])[0]
            margins = (x.shape[2] - local.shape[1]) / 2, (x.shape[3] - local.shape[2]) / 2
            found.append(enlarged(local, (height, width), seen[layer], (height, width), margins=margins))
    return torch.cat(found)[asked.positions(chosen)]


def as_seen(extractor: FeatureExtractor, image: Tensor) -> tuple[FeatureExtractor, Tensor]:
    """The same network without viewing conditions, and the image (3, H, W) at the size it sees it at."""
    return native(extractor), _visible(extractor, image)


def native(extractor: FeatureExtractor) -> FeatureExtractor:
    """The same network without viewing conditions."""
    if extractor.viewing.is_native:
        return extractor
    other = copy.copy(extractor)
    other.viewing = Viewing()
    return other


class ReferenceImages(Sequence[Tensor]):
    """The distinct reference images of a data set, decoded when asked for.

    Args:
        data: Any data set of `Sample` objects.

    Attributes:
        names: their ids.
        ids: the reference's id of each item of the data set.
    """

    def __init__(self, data: Any) -> None:
        known = reference_ids(data)
        self.ids = [str(data[i].reference_id) for i in range(len(data))] if known is None else known
        self._data = data
        first: dict[str, int] = {}
        for row, name in enumerate(self.ids):
            first.setdefault(name, row)
        self.names, self._first = list(first), list(first.values())

    def __len__(self) -> int:
        return len(self._first)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return self._data[self._first[index]].reference


def _by_map(extractor: FeatureExtractor, image: Tensor, maps: MapIndex) -> Iterator[Tensor]:
    """(h, w) of each map in order."""
    channels = maps.channels
    check_picture(image, "an image")
    found = extractor(image[None].to(extractor.device), maps)
    return (found[m.layer][0, channels[m.layer].index(m.channel)] for m in maps)


def _best(values: Tensor) -> tuple[float, tuple[int, int]]:
    place = int(values.argmax())
    row, column = divmod(place, values.shape[1])
    return float(values[row, column]), (row, column)


def _exemplar(image: Tensor, number: int, place: tuple[int, int], value: float, seen: Reach) -> Exemplar:
    (top, bottom), (left, right) = (
        (max(0, at * seen.stride + seen.low), min(side, at * seen.stride + seen.high + 1))
        for at, side in zip(place, image.shape[1:], strict=True)
    )
    patch = image[:, top:bottom, left:right]
    if patch.is_floating_point():
        patch = (patch.clamp(0, 1) * 255).round().to(torch.uint8)
    return Exemplar(number, value, (top, left, bottom, right), patch.cpu().clone())


def _visible(extractor: FeatureExtractor, image: Tensor) -> Tensor:
    """An image (3, H, W) at the size that the network sees it at."""
    check_picture(image, "image")
    if extractor.viewing.is_native:
        return image
    pixels = image.float() / 255 if image.dtype == torch.uint8 else image
    resized: Tensor = extractor.viewing(pixels[None])[0]
    return resized
