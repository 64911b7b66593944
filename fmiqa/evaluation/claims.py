"""Is a figure in sample, held out, or a transfer? And the figures of a metric on some images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from fmiqa.correlation import Form, fit_logistic, krocc, plcc, srocc
from fmiqa.errors import InputError
from fmiqa.metrics import SelectedFeatureIQM
from fmiqa.pooling import pool_scores
from fmiqa.scoring.matrix import ScoreMatrix, check_same_computation
from fmiqa.selection import Selection

__all__ = ["Claim", "Coefficients", "check_applicable", "claim", "coefficients", "fit_options", "quality_of"]


@dataclass(frozen=True)
class Claim:
    """What figures on some images say about maps that were selected on some images.

    Args:
        kind: `"in sample"`, `"partly in sample"`, `"held out"`, `"transfer"` (to another data set), or `"unknown"`.
        text: The same in words.
    """

    kind: Literal["in sample", "partly in sample", "held out", "transfer", "unknown"]
    text: str


@dataclass(frozen=True)
class Coefficients:
    """How well one metric agrees with the subjective scores of some images.

    Args:
        name: The name of the metric.
        maps: The number of feature maps that it looks at; None for a metric of whole images.
        plcc: After a logistic that is fitted to these images, or without one if so asked.
        srocc: Spearman's rank correlation.
        krocc: Kendall's rank correlation.
        rmse: After the logistic, in units of the scores.
    """

    name: str
    maps: int | None
    plcc: float
    srocc: float
    krocc: float
    rmse: float


def claim(source: Mapping[str, Any], images: int | None, scores: ScoreMatrix) -> Claim:
    """Compare the images that maps were selected on with those that they are judged on, as far as both are recorded.

    Args:
        source: The `source` of the selection or metric.
        images: The number of images that it was selected on, where known.
        scores: The score matrix of the images that it is judged on.

    Example:
        >>> import torch
        >>> from fmiqa.maps import MapIndex
        >>> groups = ["a", "a", "b", "b"]
        >>> values, maps, options = torch.rand(4, 1), MapIndex(["c:0"]), {"dataset": "X"}
        >>> scores = ScoreMatrix(values, maps, torch.rand(4), groups, groups, options=options)
        >>> claim({"dataset": "X", "references": ["c"]}, None, scores).kind
        'held out'
        >>> claim({"dataset": "Y"}, None, scores).kind
        'transfer'
    """
    theirs, ours = source.get("dataset"), scores.options.get("dataset")
    if theirs is None or ours is None:
        text = "UNKNOWN whether the maps were selected on these images: one of the files does not name its images"
        return Claim("unknown", text)
    judged = set(scores.groups)
    seen = source.get("datasets") or {theirs: images}  # several data sets: how many images of each
    here = {ours} if scores.datasets is None else set(scores.datasets)
    shared = judged & set(source.get("references", judged if here <= set(seen) else ()))
    if not here & set(seen):
        text = f"TRANSFER: the maps were selected on {theirs} and are judged on {ours}, which are other images"
        if shared:
            text += (
                f"; but {len(shared)} of its {len(judged)} references have names of references there: "
                "if they are the same pictures, this is partly in sample"
            )
        return Claim("transfer", text)
    if not shared:
        return Claim("held out", "HELD OUT: neither these images nor their references were used for the selection")
    counts = [seen[name] for name in here & set(seen)]
    if shared == judged and here <= set(seen) and (None in counts or sum(counts) == len(scores)):
        return Claim("in sample", "IN SAMPLE: on the images that the maps were selected on")
    text = f"PARTLY IN SAMPLE: the selection has seen {len(shared)} of these {len(judged)} references"
    return Claim("partly in sample", text)


def check_applicable(chosen: Selection | SelectedFeatureIQM, scores: ScoreMatrix, what: str) -> None:
    """Check that a score matrix holds map scores of the kind that a selection or metric combines.

    Args:
        chosen: The selection or metric.
        scores: The score matrix.
        what: What errors call the selection or metric.

    Raises:
        InputError: A joined score matrix lacks a source, or map scores were computed differently.
    """
    needed, there = ({m.source: None for m in maps} for maps in (chosen.maps, scores.maps))
    if any(name not in there for name in needed):
        wanted, given = (", ".join(name or "without a name" for name in names) for names in (needed, there))
        raise InputError(
            f"{what} needs the score matrices {wanted}, these are {given}; "
            "give each as NAME=FILE, by the name it had when the maps were selected"
        )
    check_same_computation(chosen.source, scores.options, name=what, other_name="the score matrix")


def quality_of(chosen: Selection | SelectedFeatureIQM, scores: ScoreMatrix) -> Tensor:
    """(N,) float64, the images' scores at the selected maps combined, as the selection or metric combines them."""
    if isinstance(chosen, Selection):
        return chosen.combine(scores)
    values = scores.columns(chosen.maps).values.double()
    return pool_scores(values, chosen.maps, pool=chosen.pool, weights=chosen.weights, power=chosen.power)


def fit_options(options: Mapping[str, Any], fit: str | None = None) -> dict[str, Any]:
    """The options of `coefficients` that a selection recorded, unless another fit (or `"none"`) is asked for."""
    # A rank criterion records no fit; its PLCC is reported after the usual one all the same.
    recorded = options.get("fit") if options.get("criterion") == "plcc" else "logistic5"
    form = recorded if fit is None else fit
    return {"fit": None if form == "none" else form, "monotone": options.get("monotone", False)}


def coefficients(
    name: str, quality: Tensor, targets: Tensor, *, maps: int | None = None, fit: Form | None, monotone: bool
) -> Coefficients:
    """All figures of a metric.

    Args:
        name: The name of the metric.
        quality: (N,) its scores of the images.
        targets: (N,) subjective scores.
        maps: The number of feature maps that it looks at.
        fit: The logistic before PLCC and RMSE; None for the plain PLCC.
        monotone: Whether the logistic must be monotone within the data range.
    """
    fitted = fit_logistic(quality, targets, form=fit or "logistic5", monotone=monotone)
    return Coefficients(
        name,
        maps,
        (plcc(quality, targets, fit=None) if fit is None else fitted.plcc).item(),
        srocc(quality, targets).item(),
        krocc(quality, targets).item(),
        fitted.rmse.item(),
    )
