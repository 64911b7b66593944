"""Network dissection: which concept, if any, each feature map detects.

Source: D. Bau, B. Zhou, A. Khosla, A. Oliva, A. Torralba, "Network Dissection: Quantifying Interpretability of Deep
Visual Representations", CVPR 2017, https://arxiv.org/abs/1704.05796, section 2.3.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from fmiqa._io import check_output
from fmiqa._progress import progress_bar
from fmiqa._result import Saved
from fmiqa._runtime.precision import strict_float32
from fmiqa.errors import InputError, ResumeError
from fmiqa.features.enlarging import enlarged, seen_by
from fmiqa.features.extractor import FeatureExtractor
from fmiqa.maps import FeatureMap, MapIndex
from fmiqa.scoring.checkpoint import Checkpoint
from fmiqa.visualize.dissection.concepts import Concept, ConceptData, ConceptImage
from fmiqa.visualize.dissection.quantiles import StreamingQuantiles
from fmiqa.visualize.dissection.result import BestConcept, Dissection, Segment

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["BestConcept", "Dissection", "Segment", "dissect"]

_RUN = "fmiqa dissection run 1"
_COUNTS = "counts.safetensors"

_SAVE_SECONDS = 60.0  # a kill in the second pass costs at most so much
_UPSAMPLED = 2**25  # elements of upsampled maps at once, 128 MiB


def dissect(
    extractor: FeatureExtractor,
    data: ConceptData,
    maps: Iterable[FeatureMap | str] | None = None,
    *,
    quantile: float = 0.995,
    threshold: float = 0.04,
    top: int = 10,
    batch_size: int = 16,
    progress: bool = False,
    save: str | os.PathLike[str] | None = None,
) -> Dissection:
    """Which concept each feature map detects.

    A first pass over the images finds each map's threshold, a quantile of its values over all positions of all images
    (see `StreamingQuantiles` for how closely), and its top images. In a second pass each map is upsampled bilinearly to
    the label maps' size, and its segments, where it exceeds the threshold, are counted against the concepts:

        IoU = both / (segments in images that carry the concept's category + label - both)

    in pixels of all images. An image carries a category if it has a label whose primary category that is.
    A map's values lie at the centres of what its positions see, as in NetDissect; those of a network that does not tell
    are spread evenly over the image.

    Args:
        extractor: The network; images are moved to its device.
        data: Images with labelled concepts; of one size or several.
        maps: The maps to dissect, all by default.
        quantile: The threshold's, 0 < quantile < 1.
        threshold: Above which IoU a map counts as a detector.
        top: How many top images to keep for each map.
        batch_size: How many images go through the network at once.
        progress: Show a progress bar.
        save: File for the result (safetensors). The first pass, and each minute the counts of the second, are kept
            beside it in `<save>.parts` and taken up when a stopped run is called again; they are removed at the end.

    Returns:
        IoUs, thresholds and top images.

    Raises:
        InputError: No images, no concepts, concepts that share a number, labels that are not among the concepts,
            options out of range, images too small for a layer; `save` cannot be written.
        ResumeError: `save` has parts of a run with other options or images.

    Example:
        >>> import warnings; warnings.simplefilter("ignore")
        >>> from fmiqa.visualize.dissection.planted import PlantedConcepts
        >>> extractor = FeatureExtractor("alexnet", weights=None)
        >>> dissection = dissect(extractor, PlantedConcepts(count=4, size=96), ["conv1:3", "conv1:9"], progress=False)
        >>> dissection.iou.shape, dissection.top_images.shape
        (torch.Size([2, 19]), torch.Size([2, 4]))
    """
    if top < 1 or batch_size < 1 or not 0 < quantile < 1:
        raise InputError(
            f"top and batch_size are at least 1, 0 < quantile < 1, got top {top}, batch_size {batch_size}, "
            f"quantile {quantile}"
        )
    if save is not None:
        check_output(save, beside=".parts/run.json")
    chosen = extractor.maps if maps is None else MapIndex(maps)
    run = _DissectionRun(extractor, data, chosen, quantile, top, batch_size, progress)
    checkpoint = Checkpoint.beside(save)
    checkpoint.open(_RUN, run.describe())
    with torch.inference_mode(), strict_float32(extractor.device):
        first = checkpoint.take("thresholds.safetensors", _FirstPass, run.first_pass)
        iou = run.second_pass(first, checkpoint)
    # Tensors made in inference mode cannot be used in autograd; copies can.
    result = Dissection(
        chosen,
        run.concepts,
        iou.clone(),
        first.thresholds.clone(),
        first.top_images.clone(),
        tuple(first.names),
        threshold,
        run.options(),
    )
    if save is not None:
        result.save(save)
        checkpoint.remove()
    return result


@dataclass(frozen=True, eq=False)
class _FirstPass(Saved):
    thresholds: Tensor  # (M,)
    top_images: Tensor  # (M, top) int64
    names: list[str]

    kind: ClassVar[str] = "fmiqa dissection thresholds 1"
    binary: ClassVar[bool] = True

    def to_dict(self) -> dict[str, Any]:
        return {"names": self.names}

    def tensors(self) -> dict[str, Tensor]:
        return {"thresholds": self.thresholds, "top_images": self.top_images}

    @classmethod
    def from_dict(cls, content: dict[str, Any], tensors: dict[str, Tensor]) -> Self:
        return cls(tensors["thresholds"], tensors["top_images"], content["names"])


@dataclass(eq=False)
class _Counts(Saved):
    """In pixels; (M, K), (M, categories), (K,) int64; of the first `done` images."""

    both: Tensor
    active: Tensor
    labelled: Tensor
    done: int = 0

    kind: ClassVar[str] = "fmiqa dissection counts 1"
    binary: ClassVar[bool] = True

    def to_dict(self) -> dict[str, Any]:
        return {"done": self.done}

    def tensors(self) -> dict[str, Tensor]:
        return {"both": self.both, "active": self.active, "labelled": self.labelled}

    @classmethod
    def from_dict(cls, content: dict[str, Any], tensors: dict[str, Tensor]) -> Self:
        return cls(**tensors, done=int(content["done"]))


class _DissectionRun:
    """One dissection: what is computed, in which order."""

    def __init__(
        self,
        extractor: FeatureExtractor,
        data: ConceptData,
        maps: MapIndex,
        quantile: float,
        top: int,
        batch_size: int,
        progress: bool,
    ) -> None:
        self.extractor, self.data, self.maps = extractor, data, maps
        self.quantile, self.top, self.progress = quantile, top, progress
        self.concepts = tuple(data.concepts)
        if not len(data) or not self.concepts:
            raise InputError(f"nothing to dissect with: {len(data)} images, {len(self.concepts)} concepts")
        self.categories = sorted({concept.category for concept in self.concepts})
        self.table = _column_table(self.concepts)
        given = getattr(data, "sizes", None)
        self.sizes: list[tuple[int, int]] = (
            [_image_size(data[i]) for i in range(len(data))] if given is None else [(h, w) for h, w in given]
        )
        order = sorted(range(len(data)), key=lambda i: self.sizes[i])
        self.batches = list(_batches(order, self.sizes, batch_size))
        self.seen = seen_by(extractor, maps)
        self.columns = {
            layer: torch.tensor([i for i, m in enumerate(maps) if m.place == layer], device="cpu")
            for layer in maps.layers
        }

    def options(self) -> dict[str, Any]:
        return {
            "dataset": str(getattr(self.data, "name", type(self.data).__name__)),
            "network": self.extractor.network_name,
            "weights_sha256": self.extractor.weights_sha256,
            "stage": self.extractor.stage,
            "viewing": str(self.extractor.viewing),
            "precision": self.extractor.precision,
            "quantile": self.quantile,
            "top": self.top,
        }

    def describe(self) -> dict[str, Any]:
        """What a stopped run must share with this one to be taken up."""
        concepts = [(c.number, c.name, c.categories) for c in self.concepts]
        digest = hashlib.sha256(json.dumps([self.sizes, concepts, [str(m) for m in self.maps]]).encode())
        return {
            **self.options(),
            "images": len(self.data),
            "maps": len(self.maps),
            "concepts": len(concepts),
            "device": self.extractor.device.type,
            "sizes_concepts_and_maps_sha256": digest.hexdigest(),
        }

    def first_pass(self) -> _FirstPass:
        totals = self._positions()
        streams = {
            layer: StreamingQuantiles(len(columns), self.quantile, total=totals[layer])
            for layer, columns in self.columns.items()
        }
        names = [""] * len(self.data)
        peaks = torch.full((len(self.maps), 0), 0.0, device="cpu")
        images = torch.zeros(len(self.maps), 0, dtype=torch.long, device="cpu")
        for batch, items in self._items("thresholds", 0):
            now = torch.empty(len(self.maps), len(batch), device="cpu")
            for index, item in zip(batch, items, strict=True):
                names[index] = item.name
            for layer, features in self._features(items):
                streams[layer].update(features.transpose(0, 1).flatten(1))
                now[self.columns[layer]] = features.amax((2, 3)).T.float().cpu()
            peaks = torch.cat([peaks, now], 1)
            images = torch.cat([images, torch.tensor(batch, device="cpu").expand(len(self.maps), -1)], 1)
            # Stable, so that of equal peaks the earlier image stays.
            peaks, order = peaks.sort(dim=1, descending=True, stable=True)
            peaks, images = peaks[:, : self.top], images.gather(1, order[:, : self.top])
        thresholds = torch.empty(len(self.maps), dtype=self.extractor.dtype, device="cpu")
        for layer, columns in self.columns.items():
            thresholds[columns] = streams[layer].values().cpu()
        return _FirstPass(thresholds, images, names)

    def second_pass(self, first: _FirstPass, checkpoint: Checkpoint) -> Tensor:
        """(M, K) IoU."""
        none = _no_counts(len(self.maps), len(self.concepts), len(self.categories))
        kept = checkpoint.read(_COUNTS, _Counts)
        counts = kept if kept is not None and kept.both.shape == none.both.shape else none
        saved = time.monotonic()
        for batch, items in self._items("concepts", counts.done):
            for index, item in zip(batch, items, strict=True):
                if item.name != first.names[index]:
                    raise ResumeError(
                        f"image {index} is {item.name!r}, in the first pass it was {first.names[index]!r}; "
                        "delete the .parts folder beside the result to start again"
                    )
            self._count(items, first.thresholds, counts)
            counts.done += len(batch)
            if time.monotonic() - saved >= _SAVE_SECONDS:
                checkpoint.write(_COUNTS, counts)
                saved = time.monotonic()
        own = torch.tensor([self.categories.index(concept.category) for concept in self.concepts], device="cpu")
        union = counts.active[:, own] + counts.labelled - counts.both
        return counts.both.double() / union.clamp(min=1)

    def _count(self, items: Sequence[ConceptImage], thresholds: Tensor, counts: _Counts) -> None:
        device = self.extractor.device
        labels = [self._labels(item) for item in items]
        for present, where, _ in labels:
            counts.labelled[present] += where.sum(0).long().cpu()
        for layer, features in self._features(items):
            limits = thresholds[self.columns[layer]].to(device, features.dtype)
            firing = (features.amax((2, 3)) > limits).cpu()  # upsampled, a map does not rise above its maximum
            for maps, item, some, (present, where, categories) in zip(features, items, firing, labels, strict=True):
                if not some.any():
                    continue
                height, width = item.label_size
                image = self.extractor.viewing.size(*item.image.shape[1:])
                for rows in some.nonzero()[:, 0].split(max(1, _UPSAMPLED // (height * width))):
                    here = rows.to(device)
                    mask = enlarged(maps[here], (height, width), self.seen[layer], image) > limits[here, None, None]
                    segments = mask.flatten(1).float()
                    own = self.columns[layer][rows][:, None]
                    # Sums of ones, exact in float32 up to 2^24 pixels an image.
                    counts.both[own, present] += (segments @ where).long().cpu()
                    counts.active[own, categories] += segments.sum(1, keepdim=True).long().cpu()

    def _labels(self, item: ConceptImage) -> tuple[Tensor, Tensor, Tensor]:
        """The columns of the concepts in an image, (P, k) where they are, and their categories."""
        numbers = item.label_maps().flatten(1)
        whole = torch.tensor(item.whole_image(), dtype=torch.long, device="cpu")
        given = torch.cat([numbers.unique(), whole])
        known = (given >= 0) & (given < len(self.table))
        if not bool(known.all()) or bool((self.table[given] < 0).logical_and(given > 0).any()):
            strange = [n for n in given.tolist() if n and not (0 < n < len(self.table) and self.table[n] >= 0)]
            raise InputError(f"image {item.name!r} has labels that are not among the data set's concepts: {strange}")
        present = self.table[given[given > 0]].unique()
        height, width = item.label_size
        where = torch.zeros(height * width, len(present), dtype=torch.bool, device="cpu")
        for layer in self.table[numbers]:
            where |= layer[:, None] == present
        where[:, torch.isin(present, self.table[whole])] = True
        categories = {self.categories.index(self.concepts[column].category) for column in present.tolist()}
        columns = torch.tensor(sorted(categories), dtype=torch.long, device="cpu")
        return present, where.float().to(self.extractor.device), columns

    def _features(self, items: Sequence[ConceptImage]) -> Iterator[tuple[str, Tensor]]:
        images = torch.stack([item.image for item in items]).to(self.extractor.device)
        return self.extractor.features(images, self.maps)

    def _items(self, what: str, done: int) -> Iterator[tuple[list[int], list[ConceptImage]]]:
        """The batches, without the first `done` images."""
        with progress_bar(show=self.progress, total=len(self.data), initial=done, desc=what, unit="image") as bar:
            for batch in self.batches:
                rest = batch[done:] if done else batch
                done -= len(batch) - len(rest)
                if not rest:
                    continue
                items = [self.data[index] for index in rest]
                for index, item in zip(rest, items, strict=True):
                    if _image_size(item) != self.sizes[index]:
                        given = f"{_image_size(item)}, its data set says {self.sizes[index]}"
                        raise InputError(f"image {item.name!r} is of size (height, width) {given}")
                yield rest, items
                bar.update(len(rest))

    def _positions(self) -> dict[str, int]:
        """How many values each map of a layer has over all images."""
        totals = dict.fromkeys(self.columns, 0)
        for (height, width), images in Counter(self.sizes).items():
            for layer, (_, h, w) in self.extractor.layer_shapes(height, width, self.maps).items():
                totals[layer] += h * w * images
        return totals


def _no_counts(maps: int, concepts: int, categories: int) -> _Counts:
    def zeros(*shape: int) -> Tensor:
        return torch.zeros(shape, dtype=torch.long, device="cpu")

    return _Counts(zeros(maps, concepts), zeros(maps, categories), zeros(concepts))


def _column_table(concepts: Sequence[Concept]) -> Tensor:
    """(greatest number + 1,) from a concept's number to its column; -1 for none."""
    table = torch.full((max(concept.number for concept in concepts) + 1,), -1, device="cpu")
    for column, concept in enumerate(concepts):
        if table[concept.number] >= 0:
            other = concepts[int(table[concept.number])].name
            raise InputError(f"concepts {other!r} and {concept.name!r} share the number {concept.number}")
        table[concept.number] = column
    return table


def _batches(order: Sequence[int], sizes: Sequence[tuple[int, int]], most: int) -> Iterator[list[int]]:
    """Runs of images of one size, at most so many."""
    batch: list[int] = []
    for index in order:
        if batch and (len(batch) == most or sizes[index] != sizes[batch[0]]):
            yield batch
            batch = []
        batch.append(index)
    yield batch


def _image_size(item: ConceptImage) -> tuple[int, int]:
    return int(item.image.shape[-2]), int(item.image.shape[-1])
