"""LIVE, release 2: 29 references, 5 distortion types, 779 distorted images with DMOS.

Source: H. R. Sheikh, M. F. Sabir, A. C. Bovik, "A statistical evaluation of recent full reference image quality
assessment algorithms", IEEE Transactions on Image Processing 15(11) (2006).
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fmiqa.datasets.base import Record
from fmiqa.datasets.folders import Folder
from fmiqa.datasets.mat import numbers, read_mat
from fmiqa.datasets.published import Found, PublishedDataset, Whole
from fmiqa.datasets.table import read_lines

__all__ = ["LIVE"]

_TYPES = {  # in the order of the scores: number of images, originals among them, and published name
    "jp2k": (227, "JPEG2000 compression"),
    "jpeg": (233, "JPEG compression"),
    "wn": (174, "white noise"),
    "gblur": (174, "Gaussian blur"),
    "fastfading": (174, "fast fading"),
}
_COUNT = sum(count for count, _ in _TYPES.values())
_TABLES = {"dmos_realigned.mat": "dmos_new", "dmos.mat": "dmos"}


class LIVE(PublishedDataset):
    """LIVE release 2 as it is distributed; the published scores are DMOS, lower = better, and are negated.

    The folder holds `refimgs/bikes.bmp` ..., the folders jp2k, jpeg, wn, gblur and fastfading with `img1.bmp` ... and
    an `info.txt` each (a line an image: reference, image, strength), and `dmos_realigned.mat` (dmos_new, orgs and, if
    you like, dmos_std: the scores to use) or `dmos.mat` (dmos, orgs). Scores go by these folders in that order, then by
    the number in the image's name. Originals hidden among the images (orgs = 1) are left out. A sample's name is
    "jp2k/img1.bmp", its reference id "bikes"; it has no level, since no two references share their strengths.

    Args:
        root: The folder that holds those entries, in any letter case.
        partial: Take a part as it is: scores without an image are left out.
        name: The name for reports; by default "LIVE", and "LIVE (partial, n of 779)" for a part.

    Raises:
        DatasetError: Entries, images or scores are missing, malformed or contradictory; all are named.

    Example:
        >>> LIVE("/data/live")  # doctest: +SKIP
        <LIVE: 779 images, 29 references, 5 distortion types, scores ...>
    """

    whole = Whole(
        key="live",
        name="LIVE",
        images=779,
        references=29,
        distortions=5,
        made_of="29 references, 5 types, 982 images less 203 originals",
        scores="DMOS, roughly 0 to 112, lower = better",
        scale=(-20, 130),  # differences from the hidden original, realigned: there are no ends to the scale
        terms=("free to use and to pass on, copyright notice included and source acknowledged; password by form"),
        available_from=(
            "LIVE Image Quality Assessment Database Release 2, page of the Laboratory for Image and "
            "Video Engineering, University of Texas at Austin"
        ),
        citation=(
            "Sheikh, Sabir, Bovik, A statistical evaluation of recent full reference image quality "
            "assessment algorithms, IEEE Transactions on Image Processing 15(11), 2006"
        ),
        layout={
            "refimgs": "the references, bikes.bmp to womanhat.bmp",
            " or ".join(_TABLES): "982 scores, and which of them are of originals (orgs)",
        },
        parts={folder: f"img1.bmp to img{count}.bmp, and info.txt" for folder, (count, _) in _TYPES.items()},
    )

    def _read(self, root: Folder, problems: list[str]) -> Found:
        name, table = next((name, path) for name in _TABLES if (path := root.find(name)))
        arrays = read_mat(table)
        dmos, orgs = (_vector(arrays, variable, table, problems) for variable in (_TABLES[name], "orgs"))
        deviations = _vector(arrays, "dmos_std", table, problems) if "dmos_std" in arrays else np.full(_COUNT, np.nan)
        if dmos is None or orgs is None or deviations is None:
            return Found([], [], [])
        records: list[Record] = []
        places, images = [], []
        position = 0
        for kind, (count, distortion) in _TYPES.items():
            folder = root.folder(kind)
            files = {f for f in folder.names if re.fullmatch(r"img\d+\.bmp", f)}
            references = _references(folder, problems)
            for number in range(1, count + 1):
                raw, deviation, original = (float(v[position]) for v in (dmos, deviations, orgs))
                position += 1
                file = f"img{number}.bmp"
                if original:
                    files.discard(file)
                elif file in references:
                    record = Record(
                        reference=root.folder("refimgs").at(references[file]),
                        distorted=folder.at(file),
                        score=-raw,
                        reference_id=references[file].removesuffix(".bmp"),
                        name=f"{kind}/{file}",
                        distortion=distortion,
                        score_std=deviation if math.isfinite(deviation) else None,
                        raw_score=raw,
                    )
                    records.append(record)
                    places.append(f"{table}, score {position}")
                elif file in files:
                    files.discard(file)
                    problems.append(f"{folder.at('info.txt')} does not name the reference of {file}; fetch it again")
            images += [f"{kind}/{file}" for file in files]
        return Found(records, places, images)


def _vector(arrays: dict[str, NDArray[Any]], name: str, path: Path, problems: list[str]) -> NDArray[np.float64] | None:
    """One number for each image; None, and a line in `problems`, if there is none."""
    values = numbers(arrays, name, path, problems)
    if values is not None and values.size != _COUNT:
        counts = " + ".join(str(count) for count, _ in _TYPES.values())
        problems.append(
            f"{path}: {name} has {values.size} values, expected {_COUNT} ({counts}); without names, no part of it can "
            "be told; fetch the whole file"
        )
        return None
    return None if values is None else values.ravel()


def _references(folder: Folder, problems: list[str]) -> dict[str, str]:
    """The reference of each image of a folder, by the images' names, both in lower case."""
    info = folder.find("info.txt")
    if info is None:
        if folder.names:
            problems.append(f"{folder.path} has no info.txt, which names the references; fetch it again")
        return {}
    found: dict[str, str] = {}
    for number, line in read_lines(info):
        parts = re.fullmatch(r"(\S+\.bmp) (img\d+\.bmp)( \S+)?", line.lower())
        place = f"{info}, line {number}"
        if parts is None:
            problems.append(f"{place}: expected 'bikes.bmp img1.bmp 0.5', got {line!r}")
        elif found.setdefault(parts[2], parts[1]) != parts[1]:
            problems.append(f"{place}: {parts[2]} is of {parts[1]}, and of {found[parts[2]]} before; keep one")
    return found
