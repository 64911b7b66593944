"""PIPAL, its public training part: 200 references x 116 distortions, 23200 images with Elo scores.

Source: J. Gu, H. Cai, H. Chen, X. Ye, J. S. Ren, C. Dong, "PIPAL: a Large-Scale Image Quality Assessment Dataset for
Perceptual Image Restoration", European Conference on Computer Vision (2020).
"""

from __future__ import annotations

import re
from pathlib import Path

from fmiqa.datasets.base import Record
from fmiqa.datasets.folders import Folder
from fmiqa.datasets.published import Found, PublishedDataset, Whole
from fmiqa.datasets.table import read_lines
from fmiqa.errors import DatasetError

__all__ = ["PIPAL"]

_NAME = re.compile(r"([a-z]\d{4})_(\d\d)_\d\d\.bmp")
_DISTORTED = re.compile(r"(train_)?dist(ort|ortion)?(_imgs)?(_?\d+)?")


class PIPAL(PublishedDataset):
    """PIPAL's training part as it is distributed; the scores are Elo ratings, 917 to 1836, higher = better.

    The folder holds `Train_Ref/A0000.bmp` ..., `Train_Label` with text files of lines "A0000_00_00.bmp,1446.76", and
    the distorted images in `Train_Dist` or in parts of it (`Train_Dist_1`, `Distortion_1`, `Dist_Imgs`, ...). A
    sample's name is the file's in lower case ("a0000_00_00.bmp"), its reference id "A0000". Its distortion is the
    group that the first number names ("group 00" to "group 06", seven kinds of damage and of restoration); the second
    number tells the algorithms of a group apart, and is no level.

    Args:
        root: The folder that holds those entries, in any letter case.
        partial: Take a part as it is: scores without an image are left out.
        name: The name for reports; by default "PIPAL", and "PIPAL (partial, n of 23200)" for a part.

    Raises:
        DatasetError: Entries, images or scores are missing, malformed or contradictory; all are named.

    Example:
        >>> PIPAL("/data/pipal")  # doctest: +SKIP
        <PIPAL: 23200 images, 200 references, 7 distortion types, scores 917 to 1836>
    """

    whole = Whole(
        key="pipal",
        name="PIPAL",
        images=23200,
        references=200,
        distortions=7,
        made_of="200 references x 116 distortions in 7 groups",
        scores="Elo rating 917 to 1836, higher = better",
        scale=(900, 1900),  # a rating has no ends; these enclose the published ones
        terms="training part public for research, other parts held back for challenges",
        available_from="PIPAL project page; NTIRE 2021 challenge on perceptual image quality assessment",
        citation=(
            "Gu et al., PIPAL: a Large-Scale Image Quality Assessment Dataset for Perceptual Image "
            "Restoration, ECCV 2020"
        ),
        layout={
            "Train_Ref": "the references, A0000.bmp and so on",
            "Train_Label": "text files with a line an image: name, score",
        },
    )

    def _read(self, root: Folder, problems: list[str]) -> Found:
        folders = [root.folder(name) for name in root.names if _DISTORTED.fullmatch(name) and root.at(name).is_dir()]
        if not folders:
            raise DatasetError(
                f"PIPAL is not at {root.path}: Train_Dist missing; the distorted images lie there, or in parts of it "
                "(Train_Dist_1, Distortion_1, ...)"
            )
        places_of: dict[str, list[Path]] = {}
        for folder in folders:
            for name in folder.names:
                if _NAME.fullmatch(name):
                    places_of.setdefault(name, []).append(folder.at(name))
        problems += [
            f"{name} is in {' and in '.join(str(path.parent) for path in paths)}; keep one"
            for name, paths in places_of.items()
            if len(paths) > 1
        ]
        labels = root.folder("Train_Label")
        records, places = [], []
        for table in (labels.at(name) for name in labels.names if name.endswith(".txt")):
            for number, line in read_lines(table):
                place = f"{table}, line {number}"
                name, _, score = (part.strip() for part in line.lower().partition(","))
                parsed = _NAME.fullmatch(name)
                try:
                    value = float(score)
                except ValueError:
                    value = None
                if parsed is None or value is None:
                    problems.append(f"{place}: expected 'A0000_00_00.bmp,1446.76', got {line!r}")
                    continue
                reference = parsed[1].upper()
                record = Record(
                    reference=root.folder("Train_Ref").at(f"{reference}.bmp"),
                    distorted=places_of.get(name, [folders[0].path / name])[0],
                    score=value,
                    reference_id=reference,
                    name=name,
                    distortion=f"group {parsed[2]}",
                    raw_score=value,
                )
                records.append(record)
                places.append(place)
        return Found(records, places, places_of)
