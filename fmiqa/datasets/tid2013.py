"""TID2013: 25 references x 24 distortion types x 5 levels, 3000 images with mean opinion scores.

Source: N. Ponomarenko, L. Jin, O. Ieremeiev, V. Lukin, K. Egiazarian, J. Astola, B. Vozel, K. Chehdi,
M. Carli, F. Battisti, C.-C. Jay Kuo, "Image database TID2013: Peculiarities, results and perspectives",
Signal Processing: Image Communication 30 (2015).
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable
from pathlib import Path

from fmiqa.datasets.base import ImageDataset, Record
from fmiqa.datasets.folders import Folder
from fmiqa.errors import DatasetError

__all__ = ["TID2013"]


class TID2013(ImageDataset):
    """TID2013 as it is distributed; the scores are MOS, 0 to 9, higher = better.

    The folder holds `reference_images/I01.BMP` ..., `distorted_images/i01_01_1.bmp` ... (reference, type,
    level), `mos_with_names.txt` (a line an image: score, name) and, if you like, `mos_std.txt` (the scores'
    standard deviations in the same order). Letter case does not matter. A sample's name is the file's in
    lower case ("i01_08_5.bmp"), its reference id "I01", its distortion the published name of the type.

    Args:
        root: the folder that holds those entries.
        partial: take a subset as it is: scores without an image are left out. Otherwise all 3000 images
            must be there.
        name: the name for reports; by default "TID2013" for the whole set, and "TID2013 (partial, n of 3000)"
            for a part of it.

    Raises:
        DatasetError: entries, images or scores are missing, malformed or contradictory; all are named.

    Example:
        >>> data = TID2013("/data/tid2013")  # doctest: +SKIP
        >>> data  # doctest: +SKIP
        <TID2013: 3000 images, 25 references, 24 distortion types, scores 0.242424 to 7.21429>
        >>> part = TID2013("/data/tid2013_noise", partial=True, name="TID2013, noise types")  # doctest: +SKIP
    """

    def __init__(self, root: str | os.PathLike[str], *, partial: bool = False, name: str | None = None) -> None:
        folder = Folder(Path(root))
        references, distorted, scores_file = _entries(folder)
        problems: list[str] = []
        scores = _read_scores(scores_file, folder.find("mos_std.txt"), problems)

        images = [n for n in distorted.names if _IMAGE_NAME.fullmatch(n)]
        problems += [f"{n} has an image but no score in {scores_file}" for n in images if n not in scores]
        problems += [line for n in images for line in distorted.clashes(n)]
        kept = [n for n in scores if n in set(images)] if partial else list(scores)
        if not partial and (len(images) != _COUNT or len(scores) != _COUNT):
            problems.insert(
                0,
                f"found {len(images)} images and {len(scores)} scores, the whole set has {_COUNT} "
                "(25 references x 24 types x 5 levels); partial=True takes a subset as it is",
            )
        for reference in sorted({_reference_id(n) for n in kept}):
            problems += references.clashes(f"{reference}.bmp")
        records = [_record(n, *scores[n], references=references, distorted=distorted) for n in kept]
        if name is None:
            part = partial and len(records) < _COUNT
            name = f"TID2013 (partial, {len(records)} of {_COUNT})" if part else "TID2013"
        super().__init__(records, name=name, problems=problems)


_COUNT = 3000

_DISTORTIONS = (
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

_LAYOUT = {
    "reference_images": "the references, I01.BMP to I25.BMP",
    "distorted_images": "the distorted images, i01_01_1.bmp to i25_24_5.bmp",
    "mos_with_names.txt": "a line an image: score, name",
}

_IMAGE_NAME = re.compile(r"i(0[1-9]|1\d|2[0-5])_(0[1-9]|1\d|2[0-4])_([1-5])\.bmp")


def _entries(root: Folder) -> tuple[Folder, Folder, Path]:
    """The two image folders and the score table."""
    paths = [root.find(entry) for entry in _LAYOUT]
    if not root.path.is_dir():
        raise DatasetError(f"TID2013 is not at {root.path}: there is no such folder")
    found = [path for path in paths if path is not None]
    if len(found) < len(_LAYOUT):
        missing = [entry for entry, path in zip(_LAYOUT, paths, strict=True) if path is None]
        raise DatasetError(
            f"TID2013 is not at {root.path}: {', '.join(missing)} missing; the folder must hold:",
            [f"{entry}: {what}" for entry, what in _LAYOUT.items()],
        )
    clashes = [line for entry in (*_LAYOUT, "mos_std.txt") for line in root.clashes(entry)]
    if clashes:
        raise DatasetError(f"TID2013 at {root.path} is ambiguous:", clashes)
    references, distorted, scores_file = found
    return Folder(references), Folder(distorted), scores_file


def _read_scores(
    scores_file: Path, deviations_file: Path | None, problems: list[str]
) -> dict[str, tuple[float, float | None]]:
    """Score and deviation by image name; what cannot be read joins `problems`."""
    lines = list(_lines(scores_file))
    deviations: list[float | None] = [None] * len(lines)
    if deviations_file is not None:
        given = list(_lines(deviations_file))
        if len(given) == len(lines):
            deviations = [_deviation(text, f"{deviations_file}, line {n}", problems) for n, text in given]
        else:
            problems.append(
                f"{deviations_file} has {len(given)} lines, {scores_file} has {len(lines)}; they go in pairs"
            )
    scores: dict[str, tuple[float, float | None]] = {}
    for (number, line), deviation in zip(lines, deviations, strict=True):
        score, _, name = line.partition(" ")
        name = name.strip().lower()
        try:
            value = float(score)
        except ValueError:
            value = None
        if value is None or not _IMAGE_NAME.fullmatch(name):
            problems.append(f"{scores_file}, line {number}: expected 'score i01_01_1.bmp', got {line!r}")
        elif name in scores:
            problems.append(f"{scores_file}, line {number}: {name} has a second score")
        else:
            scores[name] = (value, deviation)
    return scores


def _lines(path: Path) -> Iterable[tuple[int, str]]:
    text = path.read_text(encoding="utf-8-sig", errors="replace")
    return [(n, " ".join(line.split())) for n, line in enumerate(text.splitlines(), start=1) if line.strip()]


def _deviation(text: str, place: str, problems: list[str]) -> float | None:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        problems.append(f"{place}: expected a standard deviation, got {text!r}")
        return None
    return value


def _record(name: str, score: float, deviation: float | None, *, references: Folder, distorted: Folder) -> Record:
    _, kind, level = name.removesuffix(".bmp").split("_")
    reference_id = _reference_id(name)
    reference = f"{reference_id}.bmp"
    return Record(
        reference=references.find(reference) or references.path / reference,
        distorted=distorted.find(name) or distorted.path / name,
        score=score,
        reference_id=reference_id,
        name=name,
        distortion=_DISTORTIONS[int(kind) - 1],
        level=int(level),
        score_std=deviation,
        raw_score=score,
    )


def _reference_id(name: str) -> str:
    return name[:3].upper()
