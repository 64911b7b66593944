"""CID:IQ: 23 references x 6 distortion types x 5 levels, 690 images judged by 17 observers at two distances.

Source: X. Liu, M. Pedersen, J. Y. Hardeberg, "CID:IQ - A New Image Quality Database", International Conference on
Image and Signal Processing (2014). The order of the scores is that of the evaluation code that comes with the set.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from functools import partial as bound
from itertools import product
from typing import Literal

import numpy as np
import torch

from fmiqa.datasets.base import ImageDataset, Record
from fmiqa.datasets.folders import Folder
from fmiqa.datasets.mat import numbers, read_mat
from fmiqa.datasets.published import Found, PublishedDataset, Whole
from fmiqa.errors import InputError

__all__ = ["CIDIQ"]

_REFERENCES, _LEVELS = 23, 5
_TYPES = {  # in the order of the scores
    "1_JPEG2000_Compression": "JPEG2000 compression",
    "2_JPEG_Compression": "JPEG compression",
    "3_Poisson_Noise": "Poisson noise",
    "4_Gaussian_Blur": "Gaussian blur",
    "5_SGCK_Gamut_Mapping": "SGCK gamut mapping",
    "6_DeltaE_Gamut_Mapping": "Delta E gamut mapping",
}
_IMAGES = "Images/Reproduction"


def _whole(distance: int, published: str) -> Whole:
    return Whole(
        key=f"cidiq{distance}",
        name=f"CID:IQ {distance} cm",
        images=690,
        references=_REFERENCES,
        distortions=len(_TYPES),
        made_of="23 references x 6 types x 5 levels",
        scores=f"MOS {published}, higher = better",
        scale=(1, 9),
        terms="free of charge for research and academic purposes",
        available_from=(
            "Colourlab Image Database: Image Quality, Norwegian Colour and Visual Computing Laboratory, NTNU Gjøvik"
        ),
        citation="Liu, Pedersen, Hardeberg, CID:IQ - A New Image Quality Database, ICISP 2014",
        layout={
            "Images/Original": "the references, final01.bmp to final23.bmp",
            _IMAGES: "folders of distorted images",
            f"MOS{distance}.mat": "690 scores without names: by folder, then image, then level",
        },
        parts={
            f"{_IMAGES}/{folder}": f"final01_d{number}_l1.bmp to final23_d{number}_l5.bmp"
            for number, folder in enumerate(_TYPES, start=1)
        },
    )


_WHOLE: dict[Literal[50, 100], Whole] = {50: _whole(50, "1.18 to 7.65"), 100: _whole(100, "1.00 to 7.76")}


class CIDIQ(PublishedDataset):
    """CID:IQ as it is distributed, at one of its two viewing distances; the scores are MOS, 1 to 9, higher = better.

    The folder holds `Images/Original/final01.bmp` ..., `Images/Reproduction/1_JPEG2000_Compression/final01_d1_l1.bmp`
    ... (six folders: image, type, level), and `MOS50.mat` or `MOS100.mat` with the variable of that name. Its 690
    scores have no names: they go by folder, image and level, and so they are given to the files by these numbers,
    never by the order of a directory. Where the variable is a matrix of 690 x 17, one column an observer, these are
    the `ratings`, and the scores are their means. A sample's name is "final01_d1_l1.bmp", its reference id "final01".

    Args:
        root: The folder that holds those entries, in any letter case.
        distance: The distance from which the images were seen, in cm: 50 or 100.
        partial: Take a part as it is: scores without an image are left out.
        name: The name for reports; by default "CID:IQ 50 cm", and "CID:IQ 50 cm (partial, n of 690)" for a part.

    Raises:
        InputError: Another distance.
        DatasetError: Entries, images or scores are missing, malformed or contradictory; all are named.

    Example:
        >>> CIDIQ("/data/cidiq", distance=100)  # doctest: +SKIP
        <CID:IQ 100 cm: 690 images, 23 references, 6 distortion types, scores ...>
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        distance: Literal[50, 100],
        partial: bool = False,
        name: str | None = None,
    ) -> None:
        if distance not in _WHOLE:
            raise InputError(f"distance is 50 or 100 (cm), got {distance!r}")
        self.distance = distance
        self.whole = _WHOLE[distance]
        super().__init__(root, partial=partial, name=name)

    @classmethod
    def editions(cls) -> list[tuple[Whole, Callable[..., ImageDataset]]]:
        """The set at each viewing distance."""
        return [(whole, bound(cls, distance=distance)) for distance, whole in _WHOLE.items()]

    def _read(self, root: Folder, problems: list[str]) -> Found:
        variable = f"MOS{self.distance}"
        table = root.at(f"{variable}.mat")
        images = [name for folder in _TYPES for name in root.folder(f"{_IMAGES}/{folder}").names if _is_image(name)]
        given = numbers(read_mat(table), variable, table, problems)
        order = list(product(enumerate(_TYPES.items(), start=1), range(1, _REFERENCES + 1), range(1, _LEVELS + 1)))
        if given is not None and given.size == len(order):
            given = given.reshape(-1, 1)
        elif given is not None and (given.ndim != 2 or len(given) != len(order)):
            shape = " x ".join(map(str, given.shape))
            problems.append(
                f"{table}: {variable} is {shape}, expected {len(order)} scores, or {len(order)} x observers; without "
                "names, no part of it can be told; fetch the whole file"
            )
            given = None
        if given is None:
            return Found([], [], images)
        records, places = [], []
        for row, (((number, (folder, distortion)), image, level), own) in enumerate(zip(order, given, strict=True)):
            rated = own[~np.isnan(own)]
            score = float(rated.mean()) if rated.size else float("nan")
            file = f"final{image:02d}_d{number}_l{level}.bmp"
            record = Record(
                reference=root.folder("Images/Original").at(f"final{image:02d}.bmp"),
                distorted=root.folder(f"{_IMAGES}/{folder}").at(file),
                score=score,
                reference_id=f"final{image:02d}",
                name=file,
                distortion=distortion,
                level=level,
                score_std=float(rated.std(ddof=1)) if rated.size > 1 else None,
                raw_score=score,
            )
            records.append(record)
            places.append(f"{table}, row {row + 1}")
        return Found(records, places, images, torch.from_numpy(given) if given.shape[1] > 1 else None)


def _is_image(name: str) -> bool:
    return re.fullmatch(r"final\d+_d\d+_l\d+\.bmp", name) is not None
