"""What a selection maximises: a correlation of combined scores with subjective scores."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from fmiqa._runtime.compiled import Fused
from fmiqa.correlation import Form, krocc, plcc, srocc
from fmiqa.correlation.curves import best_curves
from fmiqa.correlation.logistic import STEEPNESS
from fmiqa.correlation.problems import Problems, weighted_pearson
from fmiqa.errors import InputError

__all__ = ["CRITERIA", "Criterion", "Objective"]

Criterion = Literal["plcc", "srocc", "krocc"]
CRITERIA: dict[Criterion, Callable[[Tensor, Tensor], Tensor]] = {"plcc": plcc, "srocc": srocc, "krocc": krocc}
"""The criteria: functions of combined and subjective scores, (P, N) each, that give (P,). A name that is added here and
to `Criterion` is known to all searches, validations and commands."""


@dataclass(frozen=True)
class Objective:
    """The criterion with its options.

    Args:
        criterion: `"plcc"`, `"srocc"` or `"krocc"`.
        fit: Under `"plcc"`, the logistic fitted before the correlation, or None.
        monotone: Whether that logistic may not turn round inside the data range.

    Raises:
        InputError: An unknown criterion.
    """

    criterion: Criterion = "plcc"
    fit: Form | None = "logistic5"
    monotone: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.criterion, str) or self.criterion not in CRITERIA:
            raise InputError(f"criterion is one of {', '.join(CRITERIA)}, got {self.criterion!r}")

    @property
    def quick_is_exact(self) -> bool:
        """Whether `quick` gives what `exact` gives, to rounding."""
        return not (self.criterion == "plcc" and self.fit == "logistic5" and not self.monotone)

    def quick(self, x: Tensor, y: Tensor, counts: Tensor | None) -> Tensor:
        """The criterion of many rows, at the speed that a selection needs.

        Args:
            x: (P, N) combined scores, float64.
            y: (P, N) or (1, N) subjective scores.
            counts: (P, N) or (1, N), how often each image counts, whole numbers from 0; None where each counts once.

        Returns:
            (P,), -inf where a row has no information. A five-parameter logistic is searched from a few
            starts here, so that the value may lie a little under that of `exact`.
        """
        if not self.quick_is_exact:
            value = _fitted(x, y, counts, thorough=False)
        elif self.criterion == "plcc" and self.fit is None:
            value = weighted_pearson(x, y, counts)
        else:
            return self.exact(x, y, counts)
        return value.nan_to_num(nan=-math.inf)

    def exact(self, x: Tensor, y: Tensor, counts: Tensor | None) -> Tensor:
        """As `quick`, by the coefficients that the library reports."""
        if counts is None:
            return self._reported(x, y)
        if not self.quick_is_exact:
            return _fitted(x, y, counts, thorough=True).nan_to_num(nan=-math.inf)
        value = x.new_empty(len(x))
        rows = torch.cat([y.expand(len(x), -1), counts.expand(len(x), -1)], 1)
        kinds, member = rows.unique(dim=0, return_inverse=True)
        for kind, row in enumerate(kinds):
            own = member == kind
            target, count = row.chunk(2)
            images = torch.arange(len(count), device=x.device).repeat_interleave(count.long())
            value[own] = self._reported(x[own][:, images], target[None, images])
        return value

    def _reported(self, x: Tensor, y: Tensor) -> Tensor:
        if self.criterion == "plcc":
            value = plcc(x, y, fit=self.fit, monotone=self.monotone, steepness=STEEPNESS)
        else:
            value = CRITERIA[self.criterion](x, y)
        return value.nan_to_num(nan=-math.inf)


def _fitted(x: Tensor, y: Tensor, counts: Tensor | None, *, thorough: bool) -> Tensor:
    """(P,) PLCC after the five-parameter logistic; NaN where a row has no information."""
    problems = Problems.of(x, y, counts)
    share = best_curves(problems, "with_line", steepest=STEEPNESS, thorough=thorough).share
    return _with_line(problems.r, share, problems.known)


@Fused
def _with_line(r: Tensor, share: Tensor, known: Tensor) -> Tensor:
    """(P,) the PLCC of the best of curves (P, S), of the share of a line and what a sigmoid adds to it."""
    return torch.where(known, (r.square() + share.amax(1)).clamp(max=1), torch.nan).sqrt()
