"""What TID2008 and TID2013 share: the layout, the score tables, and the names of the distortion types."""

from __future__ import annotations

import re
from pathlib import Path

from fmiqa.datasets.base import Record
from fmiqa.datasets.folders import Folder
from fmiqa.datasets.published import Found, PublishedDataset
from fmiqa.datasets.table import deviation, read_lines

__all__ = ["TID", "TID_DISTORTIONS", "tid_layout"]

TID_DISTORTIONS = (
    "additive Gaussian noise",
    "additive noise in color components",
    "spatially correlated noise",
    "masked noise",
    "high frequency noise",
    "impulse noise",
    "quantization noise",
    "Gaussian blur",
    "image denoising",
    "JPEG compression",
    "JPEG2000 compression",
    "JPEG transmission errors",
    "JPEG2000 transmission errors",
    "non eccentricity pattern noise",
    "local block-wise distortions of different intensity",
    "mean shift (intensity shift)",
    "contrast change",
    "change of color saturation",
    "multiplicative Gaussian noise",
    "comfort noise",
    "lossy compression of noisy images",
    "image color quantization with dither",
    "chromatic aberrations",
    "sparse sampling and reconstruction",
)


def tid_layout(types: int, levels: int) -> dict[str, str]:
    """What the folder of either set holds."""
    return {
        "reference_images": "the references, I01.BMP to I25.BMP",
        "distorted_images": f"the distorted images, i01_01_1.bmp to i25_{types:02d}_{levels}.bmp",
        "mos_with_names.txt": "a line an image: score, name",
    }


class TID(PublishedDataset):
    """TID2008 or TID2013: images are named i01_08_5.bmp (reference, type, level)."""

    levels: int

    def _read(self, root: Folder, problems: list[str]) -> Found:
        references, distorted = root.folder("reference_images"), root.folder("distorted_images")
        table = root.at("mos_with_names.txt")
        lines = read_lines(table)
        records, places = [], []
        deviations = _deviations(root.find("mos_std.txt"), table, len(lines), problems)
        for (number, line), score_std in zip(lines, deviations, strict=True):
            score, _, name = line.partition(" ")
            name = name.strip().lower()
            parsed = self._parse(name)
            try:
                value = float(score)
            except ValueError:
                value = None
            place = f"{table}, line {number}"
            if value is None or parsed is None:
                problems.append(f"{place}: expected 'score i01_01_1.bmp', got {line!r}")
                continue
            reference, kind, level = parsed
            record = Record(
                reference=references.at(f"{reference}.bmp"),
                distorted=distorted.at(name),
                score=value,
                reference_id=reference,
                name=name,
                distortion=TID_DISTORTIONS[kind - 1],
                level=level,
                score_std=score_std,
                raw_score=value,
            )
            records.append(record)
            places.append(place)
        return Found(records, places, [name for name in distorted.names if self._parse(name)])

    def _parse(self, name: str) -> tuple[str, int, int] | None:
        """Reference id, number of the type, and level of an image of this set."""
        parts = re.fullmatch(r"i(\d\d)_(\d\d)_(\d)\.bmp", name)
        if parts is None:
            return None
        reference, kind, level = map(int, parts.groups())
        if not (1 <= reference <= 25 and 1 <= kind <= (self.whole.distortions or 0) and 1 <= level <= self.levels):
            return None
        return f"I{reference:02d}", kind, level


def _deviations(path: Path | None, table: Path, count: int, problems: list[str]) -> list[float | None]:
    """A standard deviation for each line of the score table."""
    if path is None:
        return [None] * count
    lines = read_lines(path)
    if len(lines) != count:
        problems.append(f"{path} has {len(lines)} lines, {table} has {count}; they go in pairs")
        return [None] * count
    values: list[float | None] = []
    for number, text in lines:
        try:
            values.append(deviation(text))
        except ValueError:
            problems.append(f"{path}, line {number}: expected a standard deviation, got {text!r}")
            values.append(None)
    return values
