"""What every data set gives: `Sample`, made from `Record`s by `ImageDataset`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

__all__ = ["Record", "Sample"]


@dataclass(frozen=True)
class Record:
    """One scored image as it lies on disk.

    Args:
        reference: path of the reference image.
        distorted: path of the test (distorted) image.
        score: subjective score, higher = better.
        reference_id: names the reference: the group for folds and bootstraps.
        name: names the distorted image, unique within its data set.
        distortion: distortion type, where the set has one.
        level: distortion level, where the set has one.
        score_std: standard deviation of the score over observers, where known.
        raw_score: the score as published (differs from `score` where lower is better).
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
        reference: (3, H, W) uint8, RGB.
        distorted: (3, H, W) uint8, RGB, of the same size.
        score: subjective score, higher = better.
        reference_id: names the reference: the group for folds and bootstraps.
        name: names the distorted image, unique within its data set.
        distortion: distortion type, where the set has one.
        level: distortion level, where the set has one.
        score_std: standard deviation of the score over observers, where known.
    """

    reference: Tensor
    distorted: Tensor
    score: float
    reference_id: str
    name: str
    distortion: str | None = None
    level: int | None = None
    score_std: float | None = None
