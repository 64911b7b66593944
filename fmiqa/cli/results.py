"""Saved results taken up again: networks by fingerprint, selections as metrics, and what they may claim."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from fmiqa.cli.options import extractor_of
from fmiqa.correlation import Form, fit_logistic, krocc, plcc, srocc
from fmiqa.errors import InputError, WeightsError
from fmiqa.features import FeatureExtractor
from fmiqa.maps import MapIndex
from fmiqa.metrics import SelectedFeatureIQM
from fmiqa.pooling import Pool
from fmiqa.scores import ScoreMatrix
from fmiqa.selection import Selection

__all__ = [
    "Agreement",
    "Claim",
    "agreement",
    "check_same_computation",
    "claim",
    "judging",
    "metric_of",
    "recorded_extractor",
]

_COMPUTATION = ("network", "weights_sha256", "stage", "measure")


def recorded_extractor(source: Mapping[str, Any], what: str, args: argparse.Namespace) -> FeatureExtractor:
    """The network that a saved result was computed with, its weights given anew.

    Raises:
        InputError: the result does not say which network.
        WeightsError: other weights than it was computed with.
    """
    if "network" not in source:
        raise InputError(f"{what} was made from plain numbers and does not say with which network")
    # The fingerprint is that of the layers the network was loaded with, which may be fewer than all.
    found = []
    for layers in dict.fromkeys((tuple(source.get("layers", ())) or None, None)):
        extractor = extractor_of(args, source["network"], stage=source["stage"], layers=layers)
        if extractor.weights_sha256 == source["weights_sha256"]:
            return extractor
        found.append(extractor.weights_sha256)
    raise WeightsError(
        f"{what} was computed with other weights of {source['network']} (fingerprint "
        f"{source['weights_sha256'][:12]}) than --weights {args.weights} ({found[0][:12]}); give the same"
    )


def metric_of(selection: Selection, extractor: FeatureExtractor, *, fitted: bool = False) -> SelectedFeatureIQM:
    """The metric that a selection stands for.

    Args:
        selection: as it was made from a `ScoreMatrix`.
        extractor: the network it was made with.
        fitted: let the metric answer on the scale of the subjective scores.
    """
    return SelectedFeatureIQM(
        extractor,
        selection.maps,
        measure=selection.source["measure"],
        pool=selection.options["pool"],
        fit=selection.fit if fitted else None,
    )


def check_same_computation(source: Mapping[str, Any], scores: ScoreMatrix, what: str) -> None:
    """Raise `InputError` where map scores were computed otherwise than those the maps were chosen by."""
    differing = [
        f"{key}: {source[key]!r} there, {scores.options[key]!r} in the score matrix"
        for key in _COMPUTATION
        if key in source and key in scores.options and source[key] != scores.options[key]
    ]
    if differing:
        raise InputError(
            f"{what} goes with other map scores than these ({'; '.join(differing)}); "
            "compute a score matrix with the same network and measure"
        )


@dataclass(frozen=True)
class Claim:
    """What figures on some images say of maps that were chosen on some images.

    Args:
        kind: in sample, partly in sample, held out, transfer (to another data set), or unknown.
        text: the same in words.
    """

    kind: Literal["in sample", "partly in sample", "held out", "transfer", "unknown"]
    text: str


def claim(source: Mapping[str, Any], images: int | None, scores: ScoreMatrix) -> Claim:
    """Compare the images that maps were chosen on with those they are judged on, by what is recorded of both.

    Args:
        source: of the selection.
        images: how many images it was made on, where known.
        scores: what is judged on.
    """
    theirs, ours = source.get("dataset"), scores.options.get("dataset")
    if theirs is None or ours is None:
        text = "UNKNOWN whether the maps were chosen on these images: one of the files does not name its images"
        return Claim("unknown", text)
    judged = set(scores.groups)
    shared = judged & set(source.get("references", judged if theirs == ours else ()))
    if theirs != ours:
        text = f"TRANSFER: the maps were chosen on {theirs}, judged on {ours}: other images"
        if shared:
            text += (
                f"; but {len(shared)} of its {len(judged)} references bear names of references there: "
                "if they are the same pictures, this is partly in sample"
            )
        return Claim("transfer", text)
    if not shared:
        return Claim("held out", "HELD OUT: on images not used for the selection, nor their references")
    if shared == judged and images in (None, len(scores)):
        return Claim("in sample", "IN SAMPLE: on the images that the maps were chosen on")
    return Claim(
        "partly in sample",
        f"PARTLY IN SAMPLE: the selection has seen {len(shared)} of these {len(judged)} references",
    )


@dataclass(frozen=True)
class Agreement:
    """How well one metric agrees with the subjective scores of some images.

    Args:
        name: of the metric.
        maps: how many feature maps it looks at.
        plcc: after a logistic fitted on these images (or without, if so asked).
        srocc: rank correlation (Spearman).
        krocc: rank correlation (Kendall).
        rmse: after that logistic, in units of the scores.
    """

    name: str
    maps: int
    plcc: float
    srocc: float
    krocc: float
    rmse: float


def judging(options: Mapping[str, Any], fit: str | None = None) -> dict[str, Any]:
    """`agreement`'s options as a selection recorded them, unless another fit (or `"none"`) is asked for."""
    # A rank criterion records no fit; its PLCC is reported after the usual one all the same.
    recorded = options.get("fit") if options.get("criterion") == "plcc" else "logistic5"
    form = recorded if fit is None else fit
    return {
        "pool": options["pool"],
        "fit": None if form == "none" else form,
        "monotone": options.get("monotone", False),
    }


def agreement(
    name: str, scores: ScoreMatrix, maps: MapIndex, *, pool: Pool, fit: Form | None, monotone: bool
) -> Agreement:
    """All four figures of a set of maps on the images of a score matrix."""
    quality, targets = scores.pool(maps, pool=pool), scores.targets
    fitted = fit_logistic(quality, targets, form=fit or "logistic5", monotone=monotone)
    return Agreement(
        name,
        len(maps),
        (plcc(quality, targets, fit=None) if fit is None else fitted.plcc).item(),
        srocc(quality, targets).item(),
        krocc(quality, targets).item(),
        fitted.rmse.item(),
    )
