"""How well a metric tells different images from similar ones, and better from worse ones.

L. Krasula, K. Fliegel, P. Le Callet, M. Klima, On the accuracy of objective image and video quality models:
New methodology for performance evaluation, QoMEX 2016. Needs no fit, since only score differences within a
metric count. Areas under the curve are compared as there, by E. R. DeLong, D. M. DeLong, D. L.
Clarke-Pearson, Comparing the areas under two or more correlated receiver operating characteristic curves,
Biometrics 44, 1988.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fmiqa._checks import check_tensor
from fmiqa.correlation.pairs import computing_dtype
from fmiqa.correlation.significance import normal_quantile
from fmiqa.errors import InputError

__all__ = ["PairAnalysis", "pair_analysis"]

_PORTION = 2**20
"""Score differences that are formed at once."""


class PairAnalysis(NamedTuple):
    """Krasula's figures for M metrics, (M,) or a scalar for a single one.

    The p-values take pairs as independent. They are not: every image is in N - 1 of them, and better/worse pairs enter
    twice. So the p-values are far too small, and only say which differences need not be looked at. `fmiqa.compare`
    judges differences by resampling references instead.

    Args:
        auc_different: Area under the curve of telling significantly different pairs from similar ones by the
            absolute difference of the scores; 1/2 is chance.
        auc_better: Area under the curve of telling the better image of a different pair by the signed
            difference.
        correct: Share of different pairs whose better image has the higher score (C0); equal scores count as
            wrong.
        threshold: 95th percentile of the absolute score difference of similar pairs: a larger one is hardly
            chance.
        p_different: (M, M) p-values of the differences in `auc_different` (DeLong), 1 on the diagonal.
        p_better: (M, M) p-values of the differences in `auc_better`.
        different: Number of significantly different pairs.
        similar: Number of the others.
    """

    auc_different: Tensor
    auc_better: Tensor
    correct: Tensor
    threshold: Tensor
    p_different: Tensor
    p_better: Tensor
    different: int
    similar: int


@torch.no_grad()
def pair_analysis(scores: Tensor, targets: Tensor, standard_errors: Tensor, *, level: float = 0.95) -> PairAnalysis:
    """Analyse all pairs of images as Krasula et al. (2016) do.

    A pair counts as different where |MOS_i - MOS_j| / sqrt(se_i^2 + se_j^2) exceeds the two-sided normal
    quantile.

    Args:
        scores: (M, N) scores of M metrics, or (N,) of one; higher = better, as the targets.
        targets: (N,) mean subjective scores.
        standard_errors: (N,) of the targets: the deviation of an image's ratings over the square root of
            their number. 0 takes the mean as exact.
        level: Confidence level of the test that separates different from similar pairs.

    Returns:
        The figures, in the dtype and on the device of the scores; NaN where a kind of pair does not occur or
        scores are NaN. Takes some 32 bytes a pair and metric; 3000 images make 4.5 million pairs.

    Raises:
        InputError: Arguments that are not tensors, shapes that do not fit, NaN or negative standard errors, NaN
            targets, fewer than 2 images.

    Example:
        >>> mos = torch.tensor([1.0, 2.0, 3.0, 3.1])
        >>> found = pair_analysis(torch.tensor([0.2, 0.6, 0.62, 0.65]), mos, torch.full((4,), 0.2))
        >>> found.different, found.similar, found.auc_different.item(), found.correct.item()
        (5, 1, 0.800..., 1.0)
    """
    for name, value in (("scores", scores), ("targets", targets), ("standard_errors", standard_errors)):
        check_tensor(value, f"pair_analysis: {name}")
    _check(scores, targets, standard_errors)
    single = scores.ndim == 1
    dtype = computing_dtype(scores)
    values = (scores.unsqueeze(0) if single else scores).to(dtype)
    differences, similar = _differences(values, targets.to(dtype), standard_errors.to(dtype), normal_quantile(level))

    usable = values.isfinite().all(-1)
    threshold = _threshold(similar)
    correct = (differences > 0).to(dtype).mean(-1)
    auc_different, p_different = _telling_different(differences, similar)
    auc_better, p_better = _telling_better(differences)
    out = scores.dtype if scores.is_floating_point() else torch.get_default_dtype()

    def given(part: Tensor) -> Tensor:
        known = usable if part.ndim == 1 else usable & usable.unsqueeze(-1)
        part = torch.where(known, part, torch.nan).to(out)
        return part.squeeze() if single else part

    return PairAnalysis(
        given(auc_different),
        given(auc_better),
        given(correct),
        given(threshold),
        given(p_different),
        given(p_better),
        different=differences.shape[-1],
        similar=similar.shape[-1],
    )


def _check(scores: Tensor, targets: Tensor, standard_errors: Tensor) -> None:
    shapes = f"{tuple(scores.shape)}, {tuple(targets.shape)} and {tuple(standard_errors.shape)}"
    images = scores.shape[-1] if scores.ndim in (1, 2) else -1
    if targets.shape != (images,) or standard_errors.shape != (images,) or images < 2:
        raise InputError(
            f"pair_analysis needs scores (M, N) or (N,), targets (N,) and standard errors (N,), N >= 2, got {shapes}"
        )
    if not scores.device == targets.device == standard_errors.device:
        raise InputError(
            f"scores are on {scores.device}, targets on {targets.device}, standard_errors on {standard_errors.device}; "
            "move them to one device"
        )
    if not targets.isfinite().all():
        raise InputError("targets hold NaN or infinite values; leave those images out")
    if not (standard_errors.isfinite() & (standard_errors >= 0)).all():
        raise InputError("standard_errors must be finite and not negative")


def _differences(values: Tensor, targets: Tensor, errors: Tensor, reach: float) -> tuple[Tensor, Tensor]:
    """(M, D) better minus worse scores of different pairs, (M, S) absolute differences of similar ones."""
    images = len(targets)
    different: list[Tensor] = []
    similar: list[Tensor] = []
    rows = max(1, _PORTION // (images * len(values)))
    for first in range(0, images - 1, rows):
        last = min(first + rows, images)
        i, j = torch.triu_indices(last - first, images - first, 1, device=targets.device) + first
        better = targets[i] - targets[j]
        apart = better.abs() > reach * torch.hypot(errors[i], errors[j])
        gap = values[:, i] - values[:, j]
        different.append(gap[:, apart] * better[apart].sign())
        similar.append(gap[:, ~apart].abs())
    return torch.cat(different, dim=-1), torch.cat(similar, dim=-1)


def _threshold(similar: Tensor) -> Tensor:
    """Linear between order statistics, as percentiles usually are; torch.quantile is limited in size."""
    pairs = similar.shape[-1]
    if pairs == 0:
        return similar.new_full(similar.shape[:-1], torch.nan)
    place = 0.95 * (pairs - 1)
    ordered = torch.stack([row.sort().values[int(place) :][:2] for row in similar])
    return torch.lerp(ordered[:, 0], ordered[:, -1], place % 1)


def _telling_different(differences: Tensor, similar: Tensor) -> tuple[Tensor, Tensor]:
    above, below = torch.empty_like(differences), torch.empty_like(similar)
    for m, (one, other) in enumerate(zip(differences, similar, strict=True)):
        ascending, order = one.abs().sort()
        others, others_order = other.sort()
        above[m].scatter_(0, order, _share_below(ascending, others))
        below[m].scatter_(0, others_order, 1 - _share_below(others, ascending))
    return _compared(above, below)


def _telling_better(differences: Tensor) -> tuple[Tensor, Tensor]:
    above = torch.empty_like(differences)
    for m, one in enumerate(differences):
        ascending, order = one.sort()
        above[m].scatter_(0, order, _share_below(ascending, -ascending.flip(0)))
    # The worse-minus-better differences mirror the others, and so do their shares.
    return _compared(above, above)


def _share_below(values: Tensor, others: Tensor) -> Tensor:
    """For each value the share of others that are smaller, half of those that are equal; both ascending.

    Values in any order would be found as well, but ten times slower with millions of pairs, beside the cache.
    """
    found = torch.searchsorted(others, values) + torch.searchsorted(others, values, right=True)
    return found.to(values.dtype) / (2 * len(others))


def _compared(above: Tensor, below: Tensor) -> tuple[Tensor, Tensor]:
    """(M,) areas and (M, M) p-values of their differences (DeLong et al. 1988); overwrites its arguments.

    Args:
        above: (M, P) for each positive the share of negatives below it.
        below: (M, Q) for each negative the share of positives above it.
    """
    area = above.mean(-1)
    covariance = _covariance(above) / above.shape[-1] + _covariance(below) / below.shape[-1]
    spread = covariance.diagonal()
    variance = (spread + spread.unsqueeze(-1) - 2 * covariance).clamp(min=0)
    gap = (area - area.unsqueeze(-1)).abs()
    return area, torch.where(gap == 0, 1.0, torch.special.erfc(gap / (2 * variance).sqrt()))


def _covariance(rows: Tensor) -> Tensor:
    rows.sub_(rows.mean(-1, keepdim=True))  # in place: there may be millions of pairs
    return rows @ rows.mT / (rows.shape[-1] - 1)
