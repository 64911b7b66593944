"""Anybody's own data set: a CSV table of reference image, distorted image and score."""

from __future__ import annotations

import math
import os
import posixpath
from collections.abc import Hashable, Sequence
from pathlib import Path

import torch

from fmiqa._io import printable
from fmiqa.datasets.base import ImageDataset, Record
from fmiqa.datasets.colours import Background
from fmiqa.datasets.folders import file_key
from fmiqa.datasets.table import Row, deviation, finite, read_rows, whole_number

__all__ = ["CSVDataset"]


class CSVDataset(ImageDataset):
    """A data set described by a CSV table with a header line, one scored image a row.

    UTF-8, or UTF-16 with a byte order mark; separated by comma, semicolon, tab or bar; cells may be quoted;
    numbers have a decimal point; paths have slashes of either kind. Columns that are not named here are ignored.

    Args:
        csv: The table's file.
        root: Where its image paths start; by default the table's folder.
        reference_root: Where the references' paths start, if elsewhere.
        distorted_root: Where the distorted images' paths start, if elsewhere.
        reference: Column of the reference images' paths.
        distorted: Column of the distorted images' paths.
        score: Column of the subjective scores.
        higher_is_better: False for scores that rise with damage (DMOS): they are negated, and the record
            keeps the published one as `raw_score`.
        reference_id: Column of the groups for folds; by default the reference's path without its suffix, as it is
            first written: one file under several paths (`./a.png`, `sub/../a.png`, a link) is one group.
        image_name: Column of the images' names; by default the distorted image's path as it is first written.
        distortion: Column of distortion types.
        level: Column of distortion levels, whole numbers; cells may be empty.
        score_std: Column of the scores' standard deviations; cells may be empty.
        ratings: The columns of single observers' ratings, or what the names of all such columns begin with;
            cells may be empty. They are on the scale of the scores, and are negated with them.
        delimiter: What separates the cells; by default found from the header line.
        background: What transparent pixels are laid on, as for `fmiqa.read_image`; without it they are refused.
        name: The data set's name for reports; by default the table's file name without its suffix.

    Raises:
        DatasetError: The table cannot be read, columns are missing (those there are, are listed), or rows are
            bad: every one is named with its line number, and so is every image that `ImageDataset` refuses.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> folder = Path(tempfile.mkdtemp())
        >>> for file, grey in {"a.png": 90, "b.png": 60}.items():
        ...     Image.new("L", (32, 24), grey).save(folder / file)
        >>> _ = (folder / "study.csv").write_text("ref;dist;dmos\\na.png;b.png;0.25\\n")
        >>> data = CSVDataset(folder / "study.csv", reference="ref", distorted="dist", score="dmos",
        ...                   higher_is_better=False)
        >>> data.targets.tolist(), data.reference_ids, data.names
        ([-0.25], ['a'], ['b.png'])
        >>> _ = (folder / "panel.csv").write_text("reference,distorted,score,o1,o2\\na.png,b.png,4.5,4,5\\n")
        >>> CSVDataset(folder / "panel.csv", ratings=["o1", "o2"]).ratings.tolist()
        [[4.0, 5.0]]
    """

    def __init__(
        self,
        csv: str | os.PathLike[str],
        *,
        root: str | os.PathLike[str] | None = None,
        reference_root: str | os.PathLike[str] | None = None,
        distorted_root: str | os.PathLike[str] | None = None,
        reference: str = "reference",
        distorted: str = "distorted",
        score: str = "score",
        higher_is_better: bool = True,
        reference_id: str | None = None,
        image_name: str | None = None,
        distortion: str | None = None,
        level: str | None = None,
        score_std: str | None = None,
        ratings: str | Sequence[str] | None = None,
        delimiter: str | None = None,
        background: Background | None = None,
        name: str | None = None,
    ) -> None:
        table = Path(csv)
        base = table.parent if root is None else Path(root)
        references = base if reference_root is None else Path(reference_root)
        images = base if distorted_root is None else Path(distorted_root)
        optional = (reference_id, image_name, distortion, level, score_std)
        columns = [reference, distorted, score, *(column for column in optional if column is not None)]
        prefix = ratings if isinstance(ratings, str) else None
        rated = [] if ratings is None or isinstance(ratings, str) else list(ratings)
        sign = 1.0 if higher_is_better else -1.0

        problems: list[str] = []
        records: list[Record] = []
        places: list[str] = []
        given: list[list[float]] = []
        ids: dict[Hashable, str] = {}
        names: dict[Hashable, str] = {}
        rows = read_rows(
            table,
            columns + rated,
            problems,
            delimiter=delimiter,
            prefix=prefix,
            advice=". Name yours, as in CSVDataset(file, score='mos') or --csv FILE --score mos",
        )
        for line, cells in rows:
            row = Row(cells)
            reference_path, distorted_path = row.path(reference), row.path(distorted)
            raw = row.number(score)
            reference_file, distorted_file = references / reference_path, images / distorted_path
            group = ids.setdefault(file_key(reference_file), str(reference_path.parent / reference_path.stem))
            # Links to one image may be images of their own, with scores of their own; spellings of one path may not.
            spelling = posixpath.normpath(distorted_path).casefold()
            image = names.setdefault((file_key(distorted_file), spelling), str(distorted_path))
            record = Record(
                reference=reference_file,
                distorted=distorted_file,
                score=sign * raw,
                reference_id=row.text(reference_id) if reference_id else group,
                name=row.text(image_name) if image_name else image,
                distortion=row.text(distortion) if distortion else None,
                level=row.optional(level, whole_number, "a whole number"),
                score_std=row.optional(score_std, deviation, "a number from 0"),
                raw_score=raw,
            )
            if prefix is not None:
                rated = [column for column in cells if column.startswith(prefix)]
            observed = [row.optional(column, finite, "a finite number") for column in rated]
            place = f"{table.name}, line {line}"
            problems += [f"{place}: {problem}" for problem in row.problems]
            if not row.problems:
                records.append(record)
                places.append(place)
                given.append([math.nan if rating is None else sign * rating for rating in observed])
        super().__init__(
            records,
            name=printable(table.stem if name is None else name),
            problems=problems,
            places=places,
            ratings=None if ratings is None else torch.tensor(given, dtype=torch.float64, device="cpu"),
            background=background,
        )
