"""Batches of a score matrix: which items go through the network together, and how they are compared.

On a CPU a batch has test images of one reference. On other devices it may have several references, since a GPU is not
busy otherwise: their test images go through the network together. A reference of many of them has its side prepared by
itself, once, and kept for the next batch; references of few go through the network together, beside the test images.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fmiqa._runtime.compiled import ahead, compiling
from fmiqa.datasets.base import Sample
from fmiqa.errors import InputError
from fmiqa.scoring.loading import Item, Reference
from fmiqa.scoring.scorer import MapScorer, PreparedImages
from fmiqa.scoring.tiling import Tiling

__all__ = ["Batch", "BatchScorer", "to_host"]

# Test images a reference from which on preparing it by itself, some 200 short operations, takes a tenth of their time.
_MANY = 8

# Map elements of all images from which on compiling takes less time than it saves: on a CPU 40 s at some 5 ns an
# element; on a GPU some 50 s (two kernels for each size of maps) at some 60 ps.
_COMPILING_PAYS = {"cpu": 8e9}
_COMPILING_PAYS_ELSEWHERE = 8e11


@dataclass
class Batch:
    """Items of one size, those of one reference side by side."""

    items: list[Item] = field(default_factory=list)
    references: list[Reference] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)

    @property
    def samples(self) -> list[Sample]:
        """The items' samples."""
        return [item.sample for item in self.items]

    def add(self, item: Item, reference: Reference) -> None:
        """Take in another item."""
        self.items.append(item)
        if self.references and self.references[-1] is reference:
            self.counts[-1] += 1
        else:
            self.references.append(reference)
            self.counts.append(1)

    def is_like(self, item: Item) -> bool:
        """Whether an item has images of the same size and dtype."""
        return _form(self.items[0]) == _form(item)


def _form(item: Item) -> tuple[object, ...]:
    images = (item.sample.distorted, item.sample.reference)
    return tuple((image.dtype, image.shape, image.device) for image in images)


class _Footprint(NamedTuple):
    """What images of a size take: how many go into a batch, whether the prepared reference fits beside them."""

    images: int  # of one reference
    prepared: bool
    image: int  # bytes of one test image
    side: int  # bytes of one prepared reference
    elements: int  # of all maps of one image
    tiling: Tiling | None  # where not even one test image fits


class BatchScorer:
    """Puts items into batches, and scores them.

    Args:
        scorer: Network, maps and measure.
        device: Where they are.
        memory: Bytes that images, features and moments may take there.
        batch_size: The largest number of test images in a batch.
        compile: Whether inner loops are compiled; None: where it pays.
        images: How many there are in all, on which that depends.
    """

    def __init__(
        self, scorer: MapScorer, device: torch.device, memory: int, batch_size: int, compile: bool | None, images: int
    ) -> None:
        self._scorer = scorer
        self._device = device
        self._memory = memory
        self._batch_size = batch_size
        self._compile = compile
        self._images = images
        self._footprints: dict[tuple[int, int], _Footprint] = {}
        self._last: Reference | None = None
        self._sides: dict[Reference, PreparedImages | Tensor] = {}
        self._mixing = device.type != "cpu"  # references
        self._copies = torch.cuda.Stream(device) if device.type == "cuda" else None

    def batches(self, items: Iterator[Item], count: int) -> Iterator[Batch]:
        """The next so many items, as many together as fit; no more are held at a time."""
        batch = Batch()
        for _ in range(count):
            item = next(items)
            reference = self._last if self._last is not None and self._last.is_of(item) else Reference(item)
            if batch.items and not (batch.is_like(item) and self._has_room(batch, reference)):
                yield batch
                batch = Batch()
            batch.add(item, reference)
            self._last = reference
        yield batch

    def scores(self, batch: Batch) -> Tensor:
        """(n, M) float32, on the device."""
        samples = batch.samples
        try:
            scores = self._compared(batch, self._moved([s.distorted for s in samples]))
        except InputError as error:
            names = ", ".join(s.name for s in samples)
            references = ", ".join(reference.id for reference in batch.references)
            raise InputError(f"{names}, or the reference {references}: {error}") from error
        return scores.to(self._device, torch.float32)

    def _has_room(self, batch: Batch, reference: Reference) -> bool:
        """Whether another item of this reference, of the batch's size, fits into the batch."""
        fitting = self._fitting(batch.items[0].sample)
        images = len(batch.items) + 1
        references = len(batch.references) + (batch.references[-1] is not reference)
        if references == 1:
            return images <= fitting.images
        if not self._mixing or fitting.tiling is not None or images > self._batch_size:
            return False
        beside = references * fitting.side if _are_many(images, references) else images * fitting.image
        return images * fitting.image + beside <= self._memory

    def _compared(self, batch: Batch, test: Tensor) -> Tensor:
        fitting = self._fitting(batch.items[0].sample)
        limit = _COMPILING_PAYS.get(self._device.type, _COMPILING_PAYS_ELSEWHERE)
        wanted = contextlib.nullcontext() if self._compile is None else compiling(self._compile)
        with wanted, ahead(pays=fitting.elements * self._images > limit):
            if len(batch.references) > 1:
                if not _are_many(len(batch.items), len(batch.references)):
                    references = self._moved([reference.image for reference in batch.references])
                    return self._scorer.grouped(test, references, batch.counts)
                return self._scorer.grouped(test, self._kept(batch, self._prepared), batch.counts)
            # A reference whose prepared side does not fit is run again beside each batch, layer by layer.
            (side,) = self._kept(batch, self._prepared if fitting.prepared else lambda image: self._moved([image]))
            if fitting.tiling is not None and isinstance(side, Tensor):
                return fitting.tiling(test, side)
            return self._scorer(test, side)  # type: ignore[no-any-return]

    def _kept(self, batch: Batch, make: Callable[[Tensor], PreparedImages | Tensor]) -> list[Any]:
        """The sides of the batch's references; they are kept for the next batch."""
        self._sides = {reference: side for reference, side in self._sides.items() if reference in batch.references}
        for reference in batch.references:
            if reference not in self._sides:
                self._sides[reference] = make(reference.image)
        return [self._sides[reference] for reference in batch.references]

    def _prepared(self, image: Tensor) -> PreparedImages:
        return self._scorer.prepare(self._moved([image]))

    def _moved(self, images: list[Tensor]) -> Tensor:
        """Images of one size as one tensor on the device; a GPU copies them while it computes what it was given before.

        They have memory of their own that the system cannot move (pinned), and a stream of their own.
        """
        if self._copies is None or not images[0].is_cpu:
            return torch.stack(images).to(self._device)
        pinned = torch.empty((len(images), *images[0].shape), dtype=images[0].dtype, device="cpu", pin_memory=True)
        torch.stack(images, out=pinned)
        with torch.cuda.stream(self._copies):
            moved = pinned.to(self._device, non_blocking=True)
        here = torch.cuda.current_stream(self._device)
        here.wait_stream(self._copies)
        moved.record_stream(here)  # or its memory could be taken for the next copy before it was read
        return moved

    def _fitting(self, sample: Sample) -> _Footprint:
        """What images of this size take."""
        height, width = sample.reference.shape[1:]
        if (height, width) not in self._footprints:
            extractor = self._scorer.extractor
            layers = [c * h * w for c, h, w in extractor.layer_shapes(height, width, self._scorer.asked).values()]
            item = max(4, extractor.dtype.itemsize)  # maps are compared in float32 at least
            # A layer, the next one, a convolution's workspace, and the moments of a few channels.
            size = 4 * max([*layers, 3 * height * width]) * item
            fixed = 3 * sum(layers) * item
            prepared = fixed + size <= self._memory
            room = self._memory - (fixed if prepared else 0)
            images = max(1, min(self._batch_size, room // size))
            tiled = 2 * size > self._memory and getattr(self._scorer.measure, "tile_window", None) is not None
            tiling = Tiling(self._scorer, *extractor.viewing.size(height, width), self._memory) if tiled else None
            self._footprints[height, width] = _Footprint(
                1 if tiled else images, prepared and not tiled, size, fixed, sum(layers), tiling
            )
        return self._footprints[height, width]


def _are_many(images: int, references: int) -> bool:
    return images >= _MANY * references


def to_host(scores: Tensor) -> Callable[[], Tensor]:
    """Begin to copy a tensor to the host; what comes back waits for it, and gives it."""
    if scores.device.type != "cuda":
        return scores.cpu
    pinned = torch.empty(scores.shape, dtype=scores.dtype, device="cpu", pin_memory=True)
    pinned.copy_(scores, non_blocking=True)
    copied = torch.cuda.Event()
    copied.record(torch.cuda.current_stream(scores.device))

    def wait() -> Tensor:
        copied.synchronize()
        return pinned.clone()  # into ordinary memory, of which there is more

    return wait
