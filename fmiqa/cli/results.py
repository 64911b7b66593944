"""Saved results taken up again: their networks by fingerprint, their agreement, and what they may claim."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from fmiqa.cli.options import extractor_of
from fmiqa.correlation import Form, fit_logistic, krocc, plcc, srocc
from fmiqa.errors import InputError, WeightsError
from fmiqa.features import FeatureExtractor
from fmiqa.scores import ScoreMatrix
from fmiqa.viewing import Viewing

__all__ = [
    "Agreement",
    "Claim",
    "agreement",
    "check_same_computation",
    "claim",
    "judging",
    "recorded_extractor",
]

_COMPUTATION = ("network", "weights_sha256", "stage", "viewing", "measure")


def recorded_extractor(source: Mapping[str, Any], what: str, args: argparse.Namespace) -> FeatureExtractor:
    """The network that a saved result was computed with, its weights given anew.

    Raises:
        InputError: the result does not name one network.
        WeightsError: other weights than it was computed with.
    """
    if "network" not in source:
        raise InputError(f"{what} does not name one network: it was made from plain numbers or joined score matrices")
    viewing = Viewing(**source.get("viewing", {}))
    # The fingerprint is that of the layers the network was loaded with, which may be fewer than all.
    found = []
    for layers in dict.fromkeys((tuple(source.get("layers", ())) or None, None)):
        extractor = extractor_of(args, source["network"], stage=source["stage"], layers=layers, viewing=viewing)
        if extractor.weights_sha256 == source["weights_sha256"]:
            return extractor
        found.append(extractor.weights_sha256)
    raise WeightsError(
        f"{what} was computed with other weights of {source['network']} (fingerprint "
        f"{source['weights_sha256'][:12]}) than --weights {args.weights} ({found[0][:12]}); give the same"
    )


def check_same_computation(source: Mapping[str, Any], scores: ScoreMatrix, what: str) -> None:
    """Raise `InputError` where map scores were computed otherwise than those the maps were chosen by."""
    theirs, ours = (options.get("sources") or {"": options} for options in (source, scores.options))
    differing = [
        f"{key}: {theirs[name][key]!r} there, {ours[name][key]!r} in the score matrix"
        for name in theirs
        for key in _COMPUTATION
        if key in theirs[name] and key in ours.get(name, {}) and theirs[name][key] != ours[name][key]
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
    return {"fit": None if form == "none" else form, "monotone": options.get("monotone", False)}


def agreement(name: str, maps: int, quality: Tensor, targets: Tensor, *, fit: Form | None, monotone: bool) -> Agreement:
    """All four figures of a metric that looks at so many maps, from its scores (N,) of the images."""
    fitted = fit_logistic(quality, targets, form=fit or "logistic5", monotone=monotone)
    return Agreement(
        name,
        maps,
        (plcc(quality, targets, fit=None) if fit is None else fitted.plcc).item(),
        srocc(quality, targets).item(),
        krocc(quality, targets).item(),
        fitted.rmse.item(),
    )
