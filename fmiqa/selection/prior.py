"""What a search fits: the subjective scores, or a blend of them with the consensus of all maps.

A few maps that are selected by subjective scores alone fit the distortions, pictures and observers of these scores. The
mean of all maps uses no subjective score, and holds up on others. A search with `prior="consensus"` fits

    alpha x subjective scores + (1 - alpha) x consensus,

both on one scale. For least squares, this is a ridge penalty that draws the combined score towards the uniform mean of
all maps c instead of towards zero: |y - Xw|^2 + k |c - Xw|^2 is, up to a constant, (1 + k) |t - Xw|^2 with the blend
t = (y + k c) / (1 + k), so that alpha = 1 / (1 + k).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from fmiqa._checks import is_number
from fmiqa.errors import InputError
from fmiqa.scoring.matrix import ScoreMatrix
from fmiqa.selection.splits import Split

__all__ = ["Prior", "check_prior", "consensus", "dataset_rows", "fitted_targets", "held_out_rows"]

Prior = Literal["consensus"]
"""`consensus`: the mean of all maps of the score matrix."""


def check_prior(prior: Prior | None, alpha: float) -> None:
    """Raise `InputError` unless the prior is known and alpha a share."""
    if prior is not None and (not isinstance(prior, str) or prior not in get_args(Prior)):
        raise InputError(f"prior is {', '.join(map(repr, get_args(Prior)))} or None, got {prior!r}")
    if not is_number(alpha) or not 0 <= alpha <= 1:
        raise InputError(f"alpha is the share of the subjective scores, from 0 to 1, got {alpha!r}")


def consensus(values: Tensor) -> Tensor:
    """(N,) float64: the mean of the maps (N, M) whose scores are finite on all images.

    Example:
        >>> consensus(torch.tensor([[0.5, 1.0, torch.nan], [0.7, 0.9, 0.0]]))
        tensor([0.7500, 0.8000], dtype=torch.float64)
    """
    low, high = values.aminmax(dim=0)
    return values[:, low.isfinite() & high.isfinite()].mean(1, dtype=torch.float64)


def dataset_rows(matrix: ScoreMatrix, rows: Tensor | None = None) -> list[Tensor]:
    """The positions of the images of each data set of a matrix, or of those among `rows`."""
    rows = torch.arange(len(matrix), device="cpu") if rows is None else rows.cpu()
    if matrix.datasets is None:
        return [rows]
    names = [matrix.datasets[i] for i in rows.tolist()]
    return [rows[torch.tensor([name == own for name in names], device="cpu")] for own in dict.fromkeys(names)]


def held_out_rows(matrix: ScoreMatrix, splits: Sequence[Split], part: str) -> list[list[Tensor]]:
    """The positions of the images of each data set that each split holds out.

    Raises:
        InputError: They are too few for the logistic that is fitted to them; `part` names them.
    """
    found = [dataset_rows(matrix, split.held_out) for split in splits]
    smallest = min((len(rows) for datasets in found for rows in datasets), default=0)
    if smallest < 5:
        raise InputError(f"{part} has {smallest} images, too few for a logistic fit; use fewer folds")
    return found


def fitted_targets(targets: Tensor, prior: Tensor | None, alpha: float, datasets: Sequence[Tensor]) -> Tensor:
    """(N,) what a search fits; 0 for images of no data set.

    Args:
        targets: (N,) subjective scores; those of a data set without observers are all NaN, and its images are fitted to
            the prior alone.
        prior: (N,) the consensus of all maps; None stands for the subjective scores alone.
        alpha: The share of the subjective scores, from 0 to 1.
        datasets: The positions of the images of each data set. Subjective scores are brought to the mean and the
            standard deviation that the prior has on the same images, so that the scores of several data sets become
            comparable.

    Raises:
        InputError: The prior, or the subjective scores of a data set, are all the same.
    """
    if prior is None:
        return targets
    found = torch.zeros_like(targets)
    for rows in datasets:
        own, scores = prior[rows], targets[rows]
        if not own.std() > 0:
            raise InputError("the consensus of all maps is the same for all images, so it can be no prior")
        if alpha > 0 and not scores.isnan().all():
            if not scores.std() > 0:
                raise InputError("the subjective scores of a data set must be finite and not all equal, or all be NaN")
            human = own.mean() + own.std() * (scores - scores.mean()) / scores.std()
            own = alpha * human + (1 - alpha) * own
        found[rows] = own
    return found
