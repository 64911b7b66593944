"""What the loaders of published sets share: the layout, the counts and the scale that a copy is checked against."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from fmiqa.datasets.base import ImageDataset, Record
from fmiqa.datasets.folders import Folder
from fmiqa.errors import DatasetError

__all__ = ["Found", "PublishedDataset", "Whole"]


@dataclass(frozen=True)
class Whole:
    """A published set with nothing missing.

    Args:
        key: What the command line calls it.
        name: The name as papers write it.
        images: The number of scored images; None where it is not known.
        references: The number of references; None where it is not known.
        distortions: The number of distortion types; None where it is not known.
        made_of: How the images come about, such as "25 references x 24 types x 5 levels".
        scores: Kind, range and direction of the scores as published.
        scale: The least and the greatest score that can be.
        terms: Under which terms it can be had, in short; those that come with the set count.
        available_from: Where people get it, by the name of the page.
        citation: The publication to cite.
        layout: What the folder must hold, and what that is; " or " stands between names of which one will do.
        parts: What only the whole set must hold.
        optional: What else is read if it is there.
    """

    key: str
    name: str
    images: int | None
    references: int | None
    distortions: int | None
    made_of: str
    scores: str
    scale: tuple[float, float]
    terms: str
    available_from: str
    citation: str
    layout: Mapping[str, str]
    parts: Mapping[str, str] = field(default_factory=dict)
    optional: Sequence[str] = ()


class Found(NamedTuple):
    """What a loader read: records, where each was written, names of the images on disk, and ratings (N, O)."""

    records: list[Record]
    places: list[str]
    images: Iterable[str]
    ratings: Tensor | None = None


class PublishedDataset(ImageDataset):
    """A published set in the layout it is distributed in.

    A subclass says what is `whole`, and reads what there is in `_read`.

    Args:
        root: The folder of the set. Letter case does not matter, of folders nor of files.
        partial: Take a part as it is: scores without an image are left out. Otherwise everything must be there.
        name: The name for reports; by default that of the set, and "TID2013 (partial, 120 of 3000)" for a part.

    Raises:
        DatasetError: Entries, images or scores are missing, malformed or contradictory; all are named.
    """

    whole: Whole

    def __init__(self, root: str | os.PathLike[str], *, partial: bool = False, name: str | None = None) -> None:
        folder = _opened(Path(root), self.whole, partial)
        problems: list[str] = []
        found = _without_repeats(self._read(folder, problems), problems)
        images, complete = set(found.images), self.whole.images or len(found.records)
        if partial:
            found = _at(found, [i for i, record in enumerate(found.records) if record.name in images])
        if found.records:
            problems[:0] = [] if partial else _miscounts(found, images, self.whole)
            problems += [
                f"{image} has an image but no score; is {self.whole.name}'s own score table there, unchanged?"
                for image in sorted(images - {record.name for record in found.records})
            ]
            problems += _off_scale(found, self.whole) + _clashes(found)
        if name is None:
            name = self.whole.name
            if partial and len(found.records) < complete:
                name += f" (partial, {len(found.records)} of {complete})"
        super().__init__(found.records, name=name, problems=problems, places=found.places, ratings=found.ratings)

    @classmethod
    def editions(cls) -> list[tuple[Whole, Callable[..., ImageDataset]]]:
        """What the catalogue lists: the set, and a function that loads it."""
        return [(cls.whole, cls)]

    def _read(self, root: Folder, problems: list[str]) -> Found:
        """The records of all scores, whether their images are there or not; what cannot be read joins `problems`."""
        raise NotImplementedError


def _opened(path: Path, whole: Whole, partial: bool) -> Folder:
    """The folder, if it holds what it must."""
    if not path.is_dir():
        raise DatasetError(f"{whole.name} is not at {path}: there is no such folder")
    root = Folder(path)
    needed = {**whole.layout, **({} if partial else whole.parts)}
    missing = [entry for entry in needed if not any(root.find(name) for name in entry.split(" or "))]
    if missing:
        some = " (partial=True takes a part as it is)" if any(entry in whole.parts for entry in missing) else ""
        raise DatasetError(
            f"{whole.name} is not at {path}: {', '.join(missing)} missing{some}; the folder must hold:",
            [f"{entry}: {what}" for entry, what in needed.items()],
        )
    names = [name for entry in (*needed, *whole.optional) for name in entry.split(" or ")]
    clashes = list(dict.fromkeys(line for name in names for line in root.clashes(name)))
    if clashes:
        raise DatasetError(f"{whole.name} at {path} is ambiguous:", clashes)
    return root


def _without_repeats(found: Found, problems: list[str]) -> Found:
    """The first score of each image."""
    first: dict[str, int] = {}
    for i, record in enumerate(found.records):
        if first.setdefault(record.name, i) != i:
            before = found.places[first[record.name]]
            problems.append(f"{found.places[i]}: {record.name} has a second score (first in {before}); keep one")
    return _at(found, list(first.values()))


def _at(found: Found, rows: Sequence[int]) -> Found:
    return Found(
        [found.records[i] for i in rows],
        [found.places[i] for i in rows],
        found.images,
        None if found.ratings is None else found.ratings[list(rows)],
    )


def _miscounts(found: Found, images: set[str], whole: Whole) -> list[str]:
    """A line if not everything is there, or more than that."""
    scores, references = len(found.records), len({record.reference_id for record in found.records})
    if whole.images is not None and (len(images), scores) != (whole.images, whole.images):
        return [
            f"found {len(images)} images and {scores} scores, the whole set has {whole.images} ({whole.made_of}); "
            "partial=True takes a part as it is"
        ]
    if whole.references is not None and references != whole.references:
        return [f"the scores are of {references} references, the whole set has {whole.references} ({whole.made_of})"]
    return []


def _off_scale(found: Found, whole: Whole) -> list[str]:
    low, high = whole.scale
    lines = []
    for i, (place, record) in enumerate(zip(found.places, found.records, strict=True)):
        given = [math.nan if record.raw_score is None else record.raw_score]
        given += [] if found.ratings is None else found.ratings[i].tolist()
        off = next((value for value in given if math.isfinite(value) and not low <= value <= high), None)
        if off is not None:
            lines.append(
                f"{place}: {record.name} has the score {off:g}, expected {low:g} to {high:g}; "
                f"take the score table that {whole.name} comes with"
            )
    return lines


def _clashes(found: Found) -> list[str]:
    """A line for each image of which there are two, told apart by letter case only."""
    folders: dict[Path, Folder] = {}
    lines = []
    for path in dict.fromkeys(path for r in found.records for path in (r.distorted, r.reference)):
        if path.parent not in folders:
            folders[path.parent] = Folder(path.parent)
        lines += folders[path.parent].clashes(path.name)
    return lines
