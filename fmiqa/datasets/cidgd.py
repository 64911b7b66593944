"""CID:GD, the geometric distortions of the Colourlab Image Database, from a folder with a table.

Source: M. Pedersen, S. A. Amirshahi, "Colourlab Image Database: Geometric Distortions", Color and Imaging Conference
(2021).
"""

from __future__ import annotations

import math

import torch

from fmiqa.datasets.base import Record
from fmiqa.datasets.folders import Folder
from fmiqa.datasets.published import Found, PublishedDataset, Whole
from fmiqa.datasets.table import Row, deviation, finite, read_rows, whole_number

__all__ = ["CIDGD"]

_OBSERVER = "observer"


class CIDGD(PublishedDataset):
    """CID:GD in a form of this library's own, since the set is not public: ask its authors, and write this table.

    The folder holds `scores.csv` with a header line and a row an image, in the columns

    - `reference`, `distorted`: the paths of both images, from the folder on, in any letter case;
    - `score`: the mean opinion score, higher = better;
    - `distortion`, `level`, `score_std` if you like: type, level (a whole number) and standard deviation;
    - columns that begin with `observer`, if you like: each the ratings by one observer, higher = better, empty where
      there is none; they become the `ratings`.

    A sample's name is the distorted image's path as written, its reference id the reference's without its suffix. How
    many images there must be is not known here, so the table is believed.

    Args:
        root: The folder that holds the table and the images.
        partial: Take a part as it is: rows without an image are left out.
        name: The name for reports; by default "CID:GD".

    Raises:
        DatasetError: Images or scores are missing, malformed or contradictory; all are named.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from PIL import Image
        >>> folder = Path(tempfile.mkdtemp())
        >>> for file, grey in {"r1.png": 90, "r1_seam.png": 60}.items():
        ...     Image.new("L", (32, 24), grey).save(folder / file)
        >>> _ = (folder / "scores.csv").write_text(
        ...     "reference,distorted,score,distortion,observer_1,observer_2\\n"
        ...     "r1.png,r1_seam.png,3.5,seam carving,3,4\\n"
        ... )
        >>> data = CIDGD(folder)
        >>> data, data.ratings.tolist()
        (<CID:GD: 1 image, 1 reference, 1 distortion type, scores 3.5 to 3.5>, [[3.0, 4.0]])
    """

    whole = Whole(
        key="cidgd",
        name="CID:GD",
        images=None,
        references=None,
        distortions=None,
        made_of="",
        scores="MOS, higher = better",
        scale=(-math.inf, math.inf),
        terms="not public: agree with the authors",
        available_from="the authors of the paper, Colourlab, NTNU Gjøvik",
        citation=(
            "Pedersen, Amirshahi, Colourlab Image Database: Geometric Distortions, Color and Imaging Conference 2021"
        ),
        layout={"scores.csv": "a row an image: reference, distorted, score, and more if you like"},
    )

    def _read(self, root: Folder, problems: list[str]) -> Found:
        table = root.at("scores.csv")
        records, places, ratings = [], [], []
        for line, cells in read_rows(table, ("reference", "distorted", "score"), problems):
            place = f"{table}, line {line}"
            row = Row(cells)
            reference, distorted, score = row.path("reference"), row.path("distorted"), row.number("score")
            record = Record(
                reference=root.at(str(reference)),
                distorted=root.at(str(distorted)),
                score=score,
                reference_id=str(reference.with_suffix("")).lower(),
                name=str(distorted),
                distortion=row.text("distortion") if "distortion" in cells else None,
                level=row.optional("level" if "level" in cells else None, whole_number, "a whole number"),
                score_std=row.optional("score_std" if "score_std" in cells else None, deviation, "a number from 0"),
                raw_score=score,
            )
            observers = [column for column in cells if column.lower().startswith(_OBSERVER)]
            given = [row.optional(column, finite, "a finite number") for column in observers]
            problems += [f"{place}: {problem}" for problem in row.problems]
            if not row.problems:
                records.append(record)
                places.append(place)
                ratings.append([math.nan if rating is None else rating for rating in given])
        images = [record.name for record in records if record.distorted.is_file()]
        rated = torch.tensor(ratings, dtype=torch.float64, device="cpu") if ratings and ratings[0] else None
        return Found(records, places, images, rated)
