"""Splits keep groups whole and deal each out once."""

from __future__ import annotations

import pytest
import torch

import fmiqa
from fmiqa.selection.splits import counts_of, grouped_folds, grouped_subsamples

GROUPS = [f"r{i % 7}" for i in range(50)]


@pytest.mark.parametrize("folds", [2, 5, 7, "leave_one_out"])
def test_folds_hold_each_image_out_once_and_split_no_group(folds: int | str) -> None:
    splits = grouped_folds(GROUPS, folds=folds, repeats=2)  # type: ignore[arg-type]
    held = torch.cat([s.held_out for s in splits])
    assert torch.equal(held.bincount(), torch.full((50,), 2))
    for split in splits:
        train = {GROUPS[i] for i in split.train.tolist()}
        assert not train & {GROUPS[i] for i in split.held_out.tolist()}
        assert len(split.train) + len(split.held_out) == 50


def test_seed_decides_the_dealing() -> None:
    first, again, other = (grouped_folds(GROUPS, folds=3, seed=s)[0].held_out for s in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_subsamples_take_the_share_of_groups() -> None:
    for split in grouped_subsamples(GROUPS, fraction=0.5, repeats=9):
        assert len({GROUPS[i] for i in split.train.tolist()}) == 4  # round(3.5) to even
        assert not set(split.train.tolist()) & set(split.held_out.tolist())


def test_counts() -> None:
    counts = counts_of([torch.tensor([0, 0, 2]), torch.tensor([1])], 4)
    assert counts.tolist() == [[2, 0, 1, 0], [0, 1, 0, 0]]


@pytest.mark.parametrize("folds", [1, 8, "five"])
def test_impossible_folds_are_refused(folds: object) -> None:
    with pytest.raises(fmiqa.InputError, match="number of groups"):
        grouped_folds(GROUPS, folds=folds)  # type: ignore[arg-type]
    with pytest.raises(fmiqa.InputError, match="both sides"):
        grouped_subsamples(GROUPS, fraction=0.99)
