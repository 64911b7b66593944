"""KADID-10k: 81 references x 25 distortion types x 5 levels, 10125 images with crowdsourced scores.

Source: H. Lin, V. Hosu, D. Saupe, "KADID-10k: A Large-scale Artificially Distorted IQA Database", International
Conference on Quality of Multimedia Experience (2019).
"""

from __future__ import annotations

import math
import re

from fmiqa.datasets.base import Record
from fmiqa.datasets.folders import Folder
from fmiqa.datasets.published import Found, PublishedDataset, Whole
from fmiqa.datasets.table import Row, deviation, read_rows

__all__ = ["KADID10k"]

_DISTORTIONS = (
    "Gaussian blur",
    "lens blur",
    "motion blur",
    "color diffusion",
    "color shift",
    "color quantization",
    "color saturation 1",
    "color saturation 2",
    "JPEG2000 compression",
    "JPEG compression",
    "white noise",
    "white noise in color component",
    "impulse noise",
    "multiplicative noise",
    "denoise",
    "brighten",
    "darken",
    "mean shift",
    "jitter",
    "non-eccentricity patch",
    "pixelate",
    "quantization",
    "color block",
    "high sharpen",
    "contrast change",
)


class KADID10k(PublishedDataset):
    """KADID-10k as it is distributed; the scores are 1 to 5, higher = better, whatever their column's name says.

    The folder holds `images` with references (`I01.png`) and distorted images (`I01_08_5.png`: reference, type, level)
    and `dmos.csv` (dist_img, ref_img, dmos and, if you like, var, the variance over observers). The column "dmos" is a
    mean degradation category rating in which 5 is imperceptible: it rises with quality. A sample's name is the file's
    in lower case ("i01_08_5.png"), its reference id "I01".

    Args:
        root: The folder that holds those entries, in any letter case.
        partial: Take a part as it is: scores without an image are left out.
        name: The name for reports; by default "KADID-10k", and "KADID-10k (partial, n of 10125)" for a part.

    Raises:
        DatasetError: Entries, images or scores are missing, malformed or contradictory; all are named.

    Example:
        >>> KADID10k("/data/kadid10k")  # doctest: +SKIP
        <KADID-10k: 10125 images, 81 references, 25 distortion types, scores 1 to 4.93>
    """

    whole = Whole(
        key="kadid10k",
        name="KADID-10k",
        images=10125,
        references=81,
        distortions=25,
        made_of="81 references x 25 types x 5 levels",
        scores='mean rating (column "dmos") 1 to 4.93, higher = better',
        scale=(1, 5),
        terms="free for research; the pictures come from Pixabay",
        available_from="KADID-10k, image quality databases of the MMSP group, University of Konstanz",
        citation=("Lin, Hosu, Saupe, KADID-10k: A Large-scale Artificially Distorted IQA Database, QoMEX 2019"),
        layout={
            "images": "references and distorted images, I01.png and I01_01_01.png to I81_25_05.png",
            "dmos.csv": "a row an image: dist_img, ref_img, dmos, var",
        },
    )

    def _read(self, root: Folder, problems: list[str]) -> Found:
        table, folder = root.at("dmos.csv"), root.folder("images")
        records, places = [], []
        for line, cells in read_rows(table, ("dist_img", "ref_img", "dmos"), problems):
            place = f"{table}, line {line}"
            row = Row(cells)
            name, reference, score = row.text("dist_img").lower(), row.text("ref_img").lower(), row.number("dmos")
            variance = row.optional("var", deviation, "a variance, from 0") if "var" in cells else None
            parsed = _parse(name)
            if parsed is None:
                row.problems.append(f"column 'dist_img' holds {name!r}, expected I01_01_01.png to I81_25_05.png")
            elif reference != f"{parsed[0].lower()}.png":
                row.problems.append(f"column 'ref_img' holds {reference!r}, the reference of {name} is {parsed[0]}.png")
            problems += [f"{place}: {problem}" for problem in row.problems]
            if parsed is None or row.problems:
                continue
            record = Record(
                reference=folder.at(f"{parsed[0]}.png"),
                distorted=folder.at(name),
                score=score,
                reference_id=parsed[0],
                name=name,
                distortion=_DISTORTIONS[parsed[1] - 1],
                level=parsed[2],
                score_std=None if variance is None else math.sqrt(variance),
                raw_score=score,
            )
            records.append(record)
            places.append(place)
        return Found(records, places, [name for name in folder.names if _parse(name)])


def _parse(name: str) -> tuple[str, int, int] | None:
    """Reference id, number of the type, and level."""
    parts = re.fullmatch(r"i(\d\d)_(\d\d)_(\d\d)\.png", name)
    if parts is None:
        return None
    reference, kind, level = map(int, parts.groups())
    if not (1 <= reference <= 81 and 1 <= kind <= len(_DISTORTIONS) and 1 <= level <= 5):
        return None
    return f"I{reference:02d}", kind, level
