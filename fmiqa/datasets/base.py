"""What every data set gives: `Sample` objects and scores (`IQADataset`), and how image files become one."""

from __future__ import annotations

import hashlib
import json
import math
import operator
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.utils.data import Dataset
from torch.utils.data._utils.collate import default_collate_fn_map  # the way that torch documents for own types

from fmiqa._checks import check_tensor, is_number
from fmiqa._progress import progress_bar
from fmiqa.datasets.colours import Background, background_colour
from fmiqa.datasets.folders import file_key
from fmiqa.datasets.images import image_size, is_converted, read_image
from fmiqa.errors import DatasetError, InputError

__all__ = [
    "Batch",
    "IQADataset",
    "ImageDataset",
    "Record",
    "Sample",
    "SampleSource",
    "check_data",
    "checked_sample",
    "collate",
    "same_image",
    "share_reference",
]


@dataclass(frozen=True)
class Record:
    """One scored image as it lies on disk.

    Args:
        reference: Path of the reference image.
        distorted: Path of the test (distorted) image.
        score: Subjective score, higher = better.
        reference_id: Names the reference: the group for folds and bootstraps.
        name: Names the distorted image, unique within its data set.
        distortion: Distortion type, where the set has one.
        level: Distortion level, where the set has one.
        score_std: Standard deviation of the score over observers, where known.
        raw_score: The score as published (differs from `score` where lower is better).
    """

    reference: Path
    distorted: Path
    score: float
    reference_id: str
    name: str
    distortion: str | None = None
    level: int | None = None
    score_std: float | None = None
    raw_score: float | None = None


@dataclass(frozen=True)
class Sample:
    """One scored image pair, decoded.

    Args:
        reference: (3, H, W), RGB: uint8, or float in [0, 1].
        distorted: (3, H, W), RGB, of the same size: uint8, or float in [0, 1].
        score: Subjective score, higher = better.
        reference_id: Names the reference: the group for folds and bootstraps.
        name: Names the distorted image, unique within its data set.
        distortion: Distortion type, where the set has one.
        level: Distortion level, where the set has one.
        score_std: Standard deviation of the score over observers, where known.
    """

    reference: Tensor
    distorted: Tensor
    score: float
    reference_id: str
    name: str
    distortion: str | None = None
    level: int | None = None
    score_std: float | None = None


class Batch(NamedTuple):
    """Several scored image pairs of one size, as a `torch.utils.data.DataLoader` gives them.

    Args:
        reference: (N, 3, H, W), RGB: uint8, or float in [0, 1] where any of the images is.
        distorted: (N, 3, H, W), RGB, likewise.
        score: (N,) float64, subjective scores, higher = better.
        reference_id: The names of the references.
        name: The names of the distorted images.
        distortion: Distortion types; None where an image has none.
        level: Distortion levels; None where an image has none.
        score_std: Standard deviations of the scores over observers; None where they are not known.
    """

    reference: Tensor
    distorted: Tensor
    score: Tensor
    reference_id: list[str]
    name: list[str]
    distortion: list[str | None]
    level: list[int | None]
    score_std: list[float | None]


def collate(samples: Sequence[Sample], *, collate_fn_map: object = None) -> Batch:
    """Samples as one batch. A `torch.utils.data.DataLoader` does this by default.

    Args:
        samples: Pairs of images, all of one size.
        collate_fn_map: Not used; torch gives it.

    Raises:
        InputError: Images of different sizes.

    Example:
        >>> from torch.utils.data import DataLoader
        >>> from fmiqa.datasets import Demo
        >>> batch = next(iter(DataLoader(Demo(references=1, size=96), batch_size=4)))
        >>> batch.distorted.shape, batch.score.shape, batch.name[0]
        (torch.Size([4, 3, 96, 96]), torch.Size([4]), 'scene01_white_noise_1')
    """
    first = samples[0]
    for sample in samples:
        if not sample.reference.shape == sample.distorted.shape == first.reference.shape:
            raise InputError(
                f"one batch has images of one size: {first.name} is {_size(first.reference.shape)}, "
                f"{sample.name} is {_size(sample.distorted.shape)}; give the DataLoader batch_size=None "
                "(single samples), collate_fn=list (lists of samples), or a data set that crops them to one size"
            )
    return Batch(
        reference=_stacked([s.reference for s in samples]),
        distorted=_stacked([s.distorted for s in samples]),
        score=torch.tensor([s.score for s in samples], dtype=torch.float64, device="cpu"),
        reference_id=[s.reference_id for s in samples],
        name=[s.name for s in samples],
        distortion=[s.distortion for s in samples],
        level=[s.level for s in samples],
        score_std=[s.score_std for s in samples],
    )


def _stacked(images: Sequence[Tensor]) -> Tensor:
    """Images as one tensor, of floats in [0, 1] where any of them is."""
    if any(image.dtype != images[0].dtype for image in images):
        images = [image.float() / 255 if image.dtype == torch.uint8 else image for image in images]
    return torch.stack(list(images))


default_collate_fn_map[Sample] = collate


class IQADataset(Dataset[Sample]):
    """A scored set of image pairs: `len(data)`, `data[i]`, and what is known of it without its images.

    A subclass gives `_sample(i)`. All lists are in the order of the items.

    Args:
        name: The data set's name for reports.
        scores: Subjective scores, higher = better.
        reference_ids: The reference of each item: the groups for folds and bootstraps.
        names: The names of the distorted images.
        distortions: The distortion type of each item, or None where the set has none.
    """

    name: str
    targets: Tensor
    """(N,) float64, subjective scores, higher = better."""
    reference_ids: list[str]
    names: list[str]
    distortions: list[str] | None
    thread_safe: bool = False
    """Whether several threads may decode items at once."""

    def __init__(
        self,
        name: str,
        scores: Iterable[float],
        *,
        reference_ids: Sequence[str],
        names: Sequence[str],
        distortions: Sequence[str] | None = None,
    ) -> None:
        self.name = name
        self.targets = torch.tensor(list(scores), dtype=torch.float64, device="cpu")
        self.reference_ids = list(reference_ids)
        self.names = list(names)
        self.distortions = None if distortions is None else list(distortions)

    def check(self, *, rows: Iterable[int] | None = None, progress: bool = False) -> None:
        """Decode every image completely, or those of some items; a set that needs no files has nothing to check."""

    def digest(self, index: int) -> str:
        """What tells item `index` from another one of the same name, as far as it is known without decoding it."""
        distortion = None if self.distortions is None else self.distortions[index]
        described = [self.targets[index].item(), self.reference_ids[index], distortion]
        return hashlib.sha256(json.dumps(described).encode()).hexdigest()

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        try:
            position = operator.index(index)
        except TypeError as error:
            raise TypeError(
                f"an item of {self.name} has a whole number, got {index!r}; "
                "torch.utils.data.Subset(data, indices) takes several"
            ) from error
        if not -len(self) <= position < len(self):
            raise IndexError(f"{self.name} has {len(self)} images, there is no item {position}")
        return self._sample(position % len(self))

    def __iter__(self) -> Iterator[Sample]:
        return (self[i] for i in range(len(self)))

    def _sample(self, index: int) -> Sample:
        raise NotImplementedError

    def __repr__(self) -> str:
        counts = [_count(len(self), "image"), _count(len(set(self.reference_ids)), "reference")]
        if self.distortions is not None:
            counts.append(_count(len(set(self.distortions)), "distortion type"))
        low, high = self.targets.aminmax()
        return f"<{self.name}: {', '.join(counts)}, scores {low:g} to {high:g}>"


class ImageDataset(IQADataset):
    """A data set of image files.

    Making one reads every image's header, and no more, and reports all that is wrong at once. Items are
    decoded when asked for. The last reference is kept, since items in a row mostly share one: their
    `Sample.reference` is the same tensor, so do not write into it. A subclass whose items cannot be decoded by several
    threads at once says `thread_safe = False`; `score_matrix` then decodes in processes.

    Args:
        records: One `Record` a scored image.
        name: The data set's name for reports.
        problems: What was found wrong while the records were made, to be reported with the rest.
        places: Where each record was written (such as "scores.csv, line 7"), to be said in front of what is
            wrong with it.
        ratings: (N, O) the ratings of O observers, higher = better; NaN where an observer did not rate.
        background: What transparent pixels are laid on, as for `fmiqa.read_image`; without it they are refused.

    Raises:
        DatasetError: Naming every missing or unreadable image, reference and distorted image that differ in
            size, score that is not finite, name that stands twice, and reference file under two ids.
        InputError: Ratings of another shape, or a background that is no colour.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> folder = Path(tempfile.mkdtemp())
        >>> for name, grey in {"a.png": 90, "a_dark.png": 60, "a_darker.png": 40}.items():
        ...     Image.new("L", (32, 24), grey).save(folder / name)
        >>> data = ImageDataset([
        ...     Record(folder / "a.png", folder / "a_dark.png", 3.5, reference_id="a", name="a_dark"),
        ...     Record(folder / "a.png", folder / "a_darker.png", 1.5, reference_id="a", name="a_darker"),
        ... ], name="Grey")
        >>> data
        <Grey: 2 images, 1 reference, scores 1.5 to 3.5>
        >>> sample = data[0]
        >>> sample.name, sample.score, sample.distorted.shape, sample.distorted[0, 0, 0].item()
        ('a_dark', 3.5, torch.Size([3, 24, 32]), 60)
        >>> data.check()
    """

    thread_safe = True
    ratings: Tensor | None
    """(N, O) float64, the ratings of O observers where the set has them, higher = better; NaN: not rated."""
    background: tuple[int, int, int] | None
    """Red, green and blue from 0 to 255 of what transparent pixels are laid on, if they are."""

    def __init__(
        self,
        records: Iterable[Record],
        *,
        name: str,
        problems: Sequence[str] = (),
        places: Sequence[str] | None = None,
        ratings: Tensor | None = None,
        background: Background | None = None,
    ) -> None:
        self.background = background_colour(background)
        self.records = list(records)
        found = [*problems, *_problems(self.records, places)]
        if not (found or self.records):
            found = ["there are no scored images"]
        if found:
            raise DatasetError(f"{name} cannot be used, {_count(len(found), 'finding')}:", found)
        if ratings is not None and (ratings.ndim != 2 or len(ratings) != len(self.records)):
            raise InputError(f"ratings is (N, O) of {len(self.records)} images, got {tuple(ratings.shape)}")
        self.ratings = None if ratings is None else ratings.to(torch.float64)
        typed = [r.distortion for r in self.records if r.distortion is not None]
        super().__init__(
            name,
            (r.score for r in self.records),
            reference_ids=[r.reference_id for r in self.records],
            names=[r.name for r in self.records],
            distortions=typed or None,
        )
        self._last_reference: tuple[Path, Tensor] | None = None

    def check(self, *, rows: Iterable[int] | None = None, progress: bool = False) -> None:
        """Decode every image file completely, so that a long run does not stop at a damaged one.

        Args:
            rows: Only the files of these items.
            progress: Show a progress bar.

        Raises:
            DatasetError: Naming every file that is damaged, truncated or has transparent pixels without a background.
        """
        records = self.records if rows is None else [self.records[row] for row in rows]
        files = list(dict.fromkeys(path for r in records for path in (r.reference, r.distorted)))
        with ThreadPoolExecutor() as pool:
            results: Iterable[str | None] = pool.map(self._decoding_problem, files)
            bar = progress_bar(results, show=progress, total=len(files), desc=f"checking {self.name}", unit="file")
            problems = [problem for problem in bar if problem is not None]
        if problems:
            raise DatasetError(f"{self.name}: {len(problems)} of {len(files)} image files cannot be used:", problems)

    def digest(self, index: int) -> str:
        """As of any data set, and of the bytes of both image files and how they become pixels."""
        record = self.records[index]
        told: list[Any] = [_file_sha256(path) for path in (record.reference, record.distorted)]
        told += [] if self.background is None else [self.background]
        return hashlib.sha256(json.dumps([super().digest(index), *told]).encode()).hexdigest()

    def _sample(self, index: int) -> Sample:
        record = self.records[index]
        try:
            reference = self._reference(record.reference)
            distorted = read_image(record.distorted, background=self.background)
        except InputError as error:
            raise DatasetError(f"{self.name}: item {index} ({record.name}) cannot be read:", [str(error)]) from error
        return Sample(
            reference,
            distorted,
            score=record.score,
            reference_id=record.reference_id,
            name=record.name,
            distortion=record.distortion,
            level=record.level,
            score_std=record.score_std,
        )

    def _reference(self, path: Path) -> Tensor:
        last = self._last_reference  # read once: another thread may replace it
        if last is None or last[0] != path:
            last = self._last_reference = (path, read_image(path, background=self.background))
        return last[1]

    def _decoding_problem(self, path: Path) -> str | None:
        try:
            read_image(path, background=self.background)
        except InputError as error:
            return str(error)
        return None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_last_reference": None}


def _problems(records: Sequence[Record], places: Sequence[str] | None) -> list[str]:
    headers = {path: _header(path) for r in records for path in (r.reference, r.distorted)}
    users = Counter(r.reference for r in records)
    problems = [
        f"reference of {_count(users[path], 'image')}: {header}"
        for path, header in headers.items()
        if path in users and isinstance(header, str)
    ]
    any_typed = any(r.distortion is not None for r in records)
    seen: dict[str, int] = {}
    keys = {path: file_key(path) for path in users}
    ids: dict[Hashable, str] = {}
    for i, r in enumerate(records):
        place = f"{places[i]}: " if places else ""
        reference, distorted = headers[r.reference], headers[r.distorted]
        if isinstance(distorted, str):
            problems.append(f"{place}{r.name} has a score but no usable image: {distorted}")
        elif not isinstance(reference, str) and distorted != reference:
            problems.append(
                f"{place}{r.name} is {_size(distorted)}, its reference {r.reference} is {_size(reference)}; "
                "they must be of one size"
            )
        if not math.isfinite(r.score):
            problems.append(f"{place}{r.name} has the score {r.score}, expected a finite number")
        if any_typed and r.distortion is None:
            problems.append(f"{place}{r.name} has no distortion type, although others have one")
        if r.name in seen:
            before = f"in {places[seen[r.name]]}" if places else f"as record {seen[r.name]}"
            problems.append(f"{place}{r.name} stands twice (first {before}); names must be unique")
        key = keys[r.reference]
        if ids.setdefault(key, r.reference_id) != r.reference_id:
            problems.append(
                f"{place}{r.name} has its reference {r.reference} under the id {r.reference_id!r}, "
                f"others under {ids[key]!r}; one file needs one id, or folds would share it"
            )
        seen.setdefault(r.name, i)
    return problems


def _file_sha256(path: Path) -> str:
    """Of the file's bytes; a reference serves many images, and is read once as long as it is not written to."""
    try:
        state = path.stat()
        return _sha256(path, state.st_mtime_ns, state.st_size)
    except OSError as error:
        return f"not readable: {type(error).__name__}"


@lru_cache(maxsize=64)
def _sha256(path: Path, changed: int, size: int) -> str:
    # Earlier versions did not apply colour profiles: what they computed of such a file is of other pixels.
    return hashlib.sha256(path.read_bytes()).hexdigest() + ("+sRGB" if is_converted(path) else "")


def _header(path: Path) -> tuple[int, int] | str:
    """The size of an image, or why it is of no use."""
    try:
        return image_size(path)
    except InputError as error:
        return str(error)


def _size(size: Sequence[int]) -> str:
    height, width = size[-2:]
    return f"{width}x{height} (width x height)"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def check_data(data: object) -> None:
    """Raise `InputError` unless `data` has a length over 0 and items by number."""
    unfit = isinstance(data, str | Mapping | Tensor)
    if unfit or not (hasattr(data, "__len__") and hasattr(data, "__getitem__")):
        raise InputError(f"data is a map-style data set of fmiqa.datasets.Sample, got {type(data).__name__}")
    if len(data) == 0:
        raise InputError("the data set is empty; there is nothing to score")


class SampleSource(Protocol):
    """Any map-style data set of `Sample` objects."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Sample: ...


def same_image(a: Tensor, b: Tensor) -> bool:
    """Whether two images have the same dtype, size and pixels."""
    return a is b or (a.dtype == b.dtype and torch.equal(a, b))


def share_reference(a: Sample, b: Sample) -> bool:
    """Whether two test images can share a batch: they have the same reference picture, whatever its id says."""
    return a.distorted.dtype == b.distorted.dtype and same_image(a.reference, b.reference)


def checked_sample(sample: object, row: int) -> Sample:
    """Item `row` of a data set, if it is a `Sample` of two images of one size and a number.

    Raises:
        InputError: It is something else.
    """
    if not isinstance(sample, Sample):
        raise InputError(f"item {row} of the data set is a {type(sample).__name__}, expected an fmiqa.datasets.Sample")
    for what, image in (("test image", sample.distorted), ("reference", sample.reference)):
        check_tensor(image, f"item {row} ({sample.name}): {what} (3, H, W)")
        if image.ndim != 3:
            raise InputError(f"item {row} ({sample.name}): {what} is a tensor (3, H, W), got {tuple(image.shape)}")
    if sample.reference.shape != sample.distorted.shape:
        raise InputError(
            f"item {row} ({sample.name}): test image {tuple(sample.distorted.shape)} and reference "
            f"{tuple(sample.reference.shape)} must have one size (3, H, W); fmiqa never resizes or crops"
        )
    if not (is_number(sample.score) or (isinstance(sample.score, Tensor) and sample.score.numel() == 1)):
        raise InputError(f"item {row} ({sample.name}): score is a number, got {sample.score!r}")
    return sample
