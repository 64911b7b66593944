"""Splits of a data set that keep the images of one reference together."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from fmiqa._checks import is_count
from fmiqa.correlation.bootstrap import group_names, group_numbers
from fmiqa.errors import InputError
from fmiqa.scoring.matrix import ScoreMatrix

__all__ = [
    "Groups",
    "Split",
    "counts_of",
    "grouped_folds",
    "grouped_subsamples",
    "groups_of",
    "kind_of_groups",
    "mean_and_error",
]

Groups = Literal["reference", "distortion", "dataset"] | Sequence[str]
"""What is kept together: references, distortion types, data sets, or a name for each image."""


class Split(NamedTuple):
    """Row numbers of the images to choose on, and of those to judge on."""

    train: Tensor
    held_out: Tensor


def grouped_folds(
    groups: Sequence[Hashable] | Tensor, *, folds: int | Literal["leave_one_out"] = 5, repeats: int = 1, seed: int = 0
) -> list[Split]:
    """Folds of whole groups: each group is held out once a repeat.

    Args:
        groups: The group of each image: its reference (or its distortion type).
        folds: How many folds, or `"leave_one_out"` for one a group.
        repeats: How often to deal the groups out again.
        seed: Seed of the dealing.

    Raises:
        InputError: Fewer groups than folds, or fewer than two folds.

    Example:
        >>> for split in grouped_folds(["a", "a", "b", "c", "c"], folds="leave_one_out"):
        ...     print(split.held_out.tolist())
        [3, 4]
        [0, 1]
        [2]
    """
    groups = group_names(groups)
    names = list(dict.fromkeys(groups))
    number = len(names) if folds == "leave_one_out" else folds
    if not isinstance(number, int) or not 2 <= number <= len(names):
        raise InputError(f"folds is from 2 to the number of groups ({len(names)}), or 'leave_one_out', got {folds!r}")
    if not is_count(repeats):
        raise InputError(f"repeats is a whole number from 1, got {repeats!r}")
    of_image = group_numbers(groups, len(groups))
    generator = torch.Generator().manual_seed(seed)
    splits = []
    for _ in range(repeats):
        dealt = torch.randperm(len(names), generator=generator, device="cpu")
        for fold in range(number):
            held = torch.isin(of_image, dealt[fold::number])
            splits.append(Split((~held).nonzero()[:, 0], held.nonzero()[:, 0]))
    return splits


def grouped_subsamples(
    groups: Sequence[Hashable] | Tensor, *, fraction: float = 0.5, repeats: int = 100, seed: int = 0
) -> list[Split]:
    """Random subsamples of whole groups without replacement; the groups left out are held out.

    Args:
        groups: The group of each image.
        fraction: The share of groups to choose on.
        repeats: How many subsamples.
        seed: Seed of the drawing.

    Raises:
        InputError: A fraction that leaves no group on one of the sides.
    """
    groups = group_names(groups)
    names = list(dict.fromkeys(groups))
    taken = round(fraction * len(names))
    if not 1 <= taken < len(names) or repeats < 1:
        raise InputError(
            f"fraction {fraction} of {len(names)} groups must leave some on both sides, "
            f"and repeats be positive, got {repeats}"
        )
    of_image = group_numbers(groups, len(groups))
    generator = torch.Generator().manual_seed(seed)
    splits = []
    for _ in range(repeats):
        kept = torch.isin(of_image, torch.randperm(len(names), generator=generator, device="cpu")[:taken])
        splits.append(Split(kept.nonzero()[:, 0], (~kept).nonzero()[:, 0]))
    return splits


def groups_of(scores: ScoreMatrix | Tensor, groups: Groups, images: int) -> Sequence[str]:
    """The group of each image, checked."""
    if isinstance(groups, str):
        if not isinstance(scores, ScoreMatrix):
            raise InputError(f"a plain tensor of scores has no {groups} names; pass groups=[a name for each image]")
        kinds = {"reference": scores.groups, "distortion": scores.distortions, "dataset": scores.datasets}
        if groups not in kinds:
            raise InputError(f"groups is 'reference', 'distortion', 'dataset' or a name for each image, got {groups!r}")
        found = kinds[groups]
        if found is None:
            lacking = {"distortion": "distortion types", "dataset": "several data sets (ScoreMatrix.stack joins them)"}
            raise InputError(f"this score matrix has no {lacking[groups]}; group by 'reference'")
        return found
    names = group_names(groups)
    if len(names) != images:
        raise InputError(f"groups needs a name for each of {images} images, got {len(names)}")
    return [str(name) for name in names]


def kind_of_groups(groups: Groups) -> str:
    """What results record of the groups that were asked for."""
    return groups if isinstance(groups, str) else "given"


def counts_of(rows: Sequence[Tensor], images: int) -> Tensor:
    """(B, N) how often each image counts, from row numbers that may repeat."""
    return torch.stack([torch.bincount(r.cpu(), minlength=images) for r in rows]).double()


def mean_and_error(values: Tensor) -> tuple[Tensor, Tensor]:
    """Mean over folds and its standard error; folds share training images, so the error is a little too small.

    Args:
        values: (F, ...) a figure for each of F folds.

    Returns:
        Two tensors (...); the error is NaN for a single fold.

    Example:
        >>> mean_and_error(torch.tensor([0.8, 0.9, 1.0]))
        (tensor(0.9000), tensor(0.0577))
    """
    spread = values.std(0) if len(values) > 1 else torch.full_like(values[0], torch.nan)
    return values.mean(0), spread / len(values) ** 0.5
