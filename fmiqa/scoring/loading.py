"""What a score matrix is computed of: items decoded ahead, and what is known of them without decoding any."""

from __future__ import annotations

import hashlib
import json
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset

from fmiqa._runtime.distributed import processes_here
from fmiqa.datasets.base import Sample, SampleSource, checked_sample, same_image
from fmiqa.features.checkpoints import fingerprint

__all__ = [
    "Item",
    "Reference",
    "dataset_name",
    "decodes_in_threads",
    "default_workers",
    "digest_of",
    "item_digests",
    "item_names",
    "loaded",
    "reference_ids",
]

_AHEAD = 2  # items a worker is ahead
_THREADS, _PROCESSES = 16, 8  # that decode for a GPU, at most
_KNOWN = 16  # tensors of one reference picture that are told without a look at their pixels


class Item(NamedTuple):
    """An item of a data set, decoded."""

    sample: Sample
    digest: str | None  # of the image and its score, where it was asked for
    reference: str | None  # digest of the reference's pixels, where each item has a tensor of its own


class Reference:
    """A reference picture, and what its tensors are told by.

    Args:
        item: An item of it.
    """

    def __init__(self, item: Item) -> None:
        self.id = item.sample.reference_id
        self.image = item.sample.reference
        self._digest = item.reference
        self._known: deque[Tensor] = deque([self.image], _KNOWN)

    def is_of(self, item: Item) -> bool:
        """Whether an item has the same id and reference picture."""
        image = item.sample.reference
        if item.sample.reference_id != self.id:
            return False
        if any(known is image for known in self._known):
            return True
        if item.reference is not None:
            return item.reference == self._digest
        same = same_image(self.image, image)
        if same:
            self._known.append(image)
        return same


def loaded(data: SampleSource, rows: Sequence[int], workers: int, *, digests: bool) -> Iterator[Item]:
    """Items of a data set in the order of `rows`, decoded ahead.

    Args:
        data: The data set.
        rows: Positions in it.
        workers: Threads, or processes where the data set does not say that it is `thread_safe`; 0: decode each item
            when it is asked for, as items in memory are in any case.
        digests: Whether items come with their digests.

    Raises:
        InputError: An item is not a `Sample` of two images of one size.
    """
    workers = 0 if isinstance(_innermost(data), list | tuple) else min(workers, len(rows))
    apart = workers > 0 and not decodes_in_threads(data)
    decode = _Decoder(data, digests=digests, apart=apart)
    if apart:
        return _in_processes(decode, rows, workers)
    return _in_threads(decode, rows, workers) if workers else map(decode.__getitem__, rows)


def decodes_in_threads(data: object) -> bool:
    """Whether several threads may decode items of this data set at once."""
    return bool(getattr(_innermost(data), "thread_safe", False))


def default_workers(data: object, device: torch.device) -> int:
    """How many threads or processes keep a device busy: on a CPU none, as they would take its time."""
    most = _THREADS if decodes_in_threads(data) else _PROCESSES
    return max(1, min(most, (os.cpu_count() or 1) // processes_here())) if device.type == "cuda" else 0


class _Decoder(Dataset[Item]):
    """Items with their digests, as workers decode them."""

    def __init__(self, data: SampleSource, *, digests: bool, apart: bool = False) -> None:
        self._data = data
        self._digests = digests
        self._apart = apart
        self._last: tuple[Tensor, str] | None = None

    def __getitem__(self, row: int) -> Item:
        sample = checked_sample(self._data[row], row)
        digest = None
        if self._digests:
            known = item_digests(self._data, [row])
            digest = digest_of(sample) if known is None else known[0]
        return Item(sample, digest, self._reference(sample) if self._apart else None)

    def _reference(self, sample: Sample) -> str:
        if self._last is None or self._last[0] is not sample.reference:
            self._last = sample.reference, fingerprint({"reference": sample.reference})
        return self._last[1]


def _in_threads(decode: _Decoder, rows: Sequence[int], workers: int) -> Iterator[Item]:
    with ThreadPoolExecutor(workers, thread_name_prefix="fmiqa-decoding") as pool:
        left = iter(rows)
        waiting: deque[Future[Item]] = deque(
            pool.submit(decode.__getitem__, row) for row in islice(left, _AHEAD * workers)
        )
        try:
            while waiting:
                item = waiting.popleft().result()
                waiting.extend(pool.submit(decode.__getitem__, row) for row in islice(left, 1))
                yield item
        finally:
            for future in waiting:
                future.cancel()


def _in_processes(decode: _Decoder, rows: Sequence[int], workers: int) -> Iterator[Item]:
    loader: DataLoader[Item] = DataLoader(
        decode,
        sampler=rows,
        batch_size=None,
        collate_fn=_as_it_is,
        num_workers=workers,
        prefetch_factor=_AHEAD,
        generator=torch.Generator(),  # or the caller's random numbers would move on
    )
    with torch.device("cpu"):  # it draws a number on the default device, which may not be the generator's
        return iter(loader)


def _as_it_is(item: object) -> object:
    return item


def reference_ids(data: object) -> list[str] | None:
    """The reference of each item without decoding any, where the data set knows it; through `Subset`s."""
    return _known(data, "reference_ids", "reference_id")


def item_names(data: object) -> list[str] | None:
    """The name of each item without decoding any, where the data set knows it; through `Subset`s."""
    return _known(data, "names", "name")


def item_digests(data: object, rows: Sequence[int]) -> list[str] | None:
    """What tells these items from others of the same names, without decoding any where the data set can; see `digest`.

    A data set in memory is looked at itself; of others that have no `digest(index)`, nothing is known.
    """
    if isinstance(data, Subset):
        return item_digests(data.dataset, [data.indices[row] for row in rows])
    if isinstance(data, list | tuple):
        return [digest_of(data[row]) for row in rows]
    known = getattr(data, "digest", None)
    return None if known is None else [str(known(row)) for row in rows]


def digest_of(sample: Sample) -> str:
    """What tells an item from others of the same name: its pixels, score and distortion."""
    described = [float(sample.score), sample.reference_id, sample.distortion]
    digest = hashlib.sha256(json.dumps(described).encode())
    digest.update(fingerprint({"reference": sample.reference, "distorted": sample.distorted}).encode())
    return digest.hexdigest()


def dataset_name(data: object) -> str:
    """The name of a data set, through `Subset`s."""
    inner = _innermost(data)
    return str(getattr(inner, "name", type(inner).__name__))


def _known(data: object, of_all: str, of_one: str) -> list[str] | None:
    if isinstance(data, Subset):
        inner = _known(data.dataset, of_all, of_one)
        return None if inner is None else [inner[i] for i in data.indices]
    if isinstance(data, list | tuple):
        return [str(getattr(sample, of_one, "")) for sample in data]
    known = getattr(data, of_all, None)
    return None if known is None else [str(item) for item in known]


def _innermost(data: Any) -> Any:
    return _innermost(data.dataset) if isinstance(data, Subset) else data
