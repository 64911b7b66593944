"""A part of a score matrix, as it is kept while the rest is computed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from fmiqa._result import Saved
from fmiqa.datasets.base import Sample
from fmiqa.errors import ResumeError
from fmiqa.maps import MapIndex
from fmiqa.scoring.matrix import ScoreMatrix

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["LookAgain", "ScorePart", "in_order", "refuse_other_items", "scores_of"]

LookAgain = Callable[[list[int]], Iterable[tuple[int, str | None, str]]]
"""From rows to the row, name (None: not looked at) and digest of some of them."""


@dataclass(frozen=True, eq=False)
class ScorePart(Saved):
    """Some rows of a score matrix.

    Args:
        scores: The scores.
        rows: Their positions in the data set; an interrupted run finds them by the part's number.
        digests: What tells each image and score from others of the same name; none in parts of version 0.1.
    """

    scores: ScoreMatrix
    rows: list[int] = field(default_factory=list)
    digests: list[str] = field(default_factory=list)

    kind: ClassVar[str] = "fmiqa score matrix part 1"
    binary: ClassVar[bool] = True

    def __len__(self) -> int:
        return len(self.scores)

    def placed(self, rows: list[int], maps: MapIndex) -> ScorePart | None:
        """The part with its rows and maps, which its file does not hold; None if it cannot be theirs."""
        if self.scores.values.shape != (len(rows), len(maps)):
            return None
        return replace(self, scores=replace(self.scores, maps=maps), rows=rows)

    def to_dict(self) -> dict[str, Any]:
        """Everything but values, as plain values for JSON."""
        return {
            "targets": self.scores.targets.tolist(),
            "groups": self.scores.groups,
            "names": self.scores.names,
            "distortions": self.scores.distortions,
            "digests": self.digests,
        }

    def tensors(self) -> dict[str, Tensor]:
        """The values."""
        return {"values": self.scores.values}

    @classmethod
    def from_dict(cls, content: dict[str, Any], tensors: dict[str, Tensor]) -> Self:
        """The part again; which maps and rows it is of, the run knows."""
        values, distortions = tensors["values"], content["distortions"]
        scores = ScoreMatrix(
            values=values,
            maps=MapIndex.of_layers({"map": values.shape[1]}),
            targets=torch.tensor(content["targets"], dtype=torch.float64, device="cpu"),
            groups=content["groups"],
            names=content["names"],
            distortions=None if distortions is None or None in distortions else distortions,
        )
        return cls(scores, [], content.get("digests", []))


def scores_of(values: Tensor, samples: Sequence[Sample], maps: MapIndex) -> ScoreMatrix:
    """The scores (n, M) of n samples at M maps, with what the samples say of themselves."""
    distortions = [s.distortion for s in samples if s.distortion is not None]
    return ScoreMatrix(
        values=values,
        maps=maps,
        targets=torch.tensor([float(s.score) for s in samples], dtype=torch.float64, device="cpu"),
        groups=[s.reference_id for s in samples],
        names=[s.name for s in samples],
        distortions=distortions if len(distortions) == len(samples) else None,
    )


def in_order(parts: Iterable[ScorePart]) -> ScoreMatrix:
    """Parts as one matrix, in the order of the data set, with the options of the first."""
    given = list(parts)
    order = torch.argsort(torch.tensor([row for part in given for row in part.rows], device="cpu"))
    matrix = ScoreMatrix.stack([part.scores for part in given]).rows(order)
    digests = [digest for part in given for digest in part.digests]
    return replace(matrix, digests=[digests[i] for i in order.tolist()]) if len(digests) == len(order) else matrix


def refuse_other_items(
    path: Path,
    parts: Mapping[int, ScorePart],
    look_again: LookAgain,
) -> None:
    """Compare the items of finished parts with those that the data set has now.

    Args:
        path: Where the parts are, for the error.
        parts: The finished parts by number.
        look_again: What is known of their items now.

    Raises:
        ResumeError: An item has another name, or is another image or score under the same name.
    """
    for number, part in parts.items():
        for row, name, digest in look_again(part.rows):
            place = part.rows.index(row)
            before = part.scores.names[place]
            if name not in (None, before):
                difference = f"item {row} was {before!r} in part {number}, now it is {name!r}"
            elif part.digests and part.digests[place] != digest:
                difference = f"item {row}, {before!r}, has changed since part {number} was finished"
            else:
                continue
            raise ResumeError(
                f"{path} holds finished parts of other images ({difference}); save under another name, or delete it"
            )
