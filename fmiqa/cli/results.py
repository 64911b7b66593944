"""Saved results taken up again: their networks by fingerprint, their agreement, and what they may claim."""

from __future__ import annotations

import argparse
import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from fmiqa._io import printable
from fmiqa.cli.options import check_weights_options, extractor_of, named_file, weights_given
from fmiqa.correlation import Form, fit_logistic, krocc, plcc, srocc
from fmiqa.errors import InputError, WeightsError
from fmiqa.features.extractor import FeatureExtractor
from fmiqa.features.viewing import Viewing
from fmiqa.maps import MapIndex
from fmiqa.metrics import SelectedFeatureIQM
from fmiqa.scoring.matrix import ScoreMatrix, differing_computation, sources_of
from fmiqa.selection import Selection

__all__ = [
    "Agreement",
    "Claim",
    "agreement",
    "check_same_computation",
    "claim",
    "judging",
    "load_scores",
    "recorded_extractors",
]


def load_scores(given: Sequence[str], args: argparse.Namespace) -> ScoreMatrix:
    """The score matrix of a FILE, or those of several joined, each FILE or NAME=FILE; its name is else the file's stem.

    Raises:
        FileFormatError: a file is missing, damaged, or holds something else.
        InputError: matrices that cannot be joined, see `ScoreMatrix.concat`.
    """
    files = [named_file(text) for text in given]
    if len(files) == 1 and not files[0][0]:
        return ScoreMatrix.load(files[0][1])
    names = [name or printable(Path(path).stem) for name, path in files]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        args.parser.error(f"two score matrices go by the name {twice!r}; give names: NAME={files[0][1]} NAME=...")
    return ScoreMatrix.concat({name: ScoreMatrix.load(path) for name, (_, path) in zip(names, files, strict=True)})


def recorded_extractors(
    source: Mapping[str, Any], what: str, args: argparse.Namespace, maps: MapIndex | None = None
) -> dict[str, FeatureExtractor]:
    """The networks that a saved result was computed with, by source name, their weights given anew.

    Args:
        source: of the result: a selection's or a metric's `source`, a score matrix's `options`.
        what: the result, for messages.
        args: with `--weights`.
        maps: only the sources of these.

    Raises:
        InputError: the result does not name its networks; weights for a network that it does not name.
        WeightsError: other weights than it was computed with.
    """
    sources = sources_of(source)
    if not all("network" in options for options in sources.values()):
        raise InputError(f"{what} does not name its networks: it was made from plain numbers")
    check_weights_options(args, [options["network"] for options in sources.values()], what)
    wanted = set(sources) if maps is None else {m.source for m in maps}
    loaded: dict[tuple[str, ...], FeatureExtractor] = {}
    found = {}
    for name, options in sources.items():
        if name not in wanted:
            continue
        key = tuple(options[k] for k in ("network", "weights_sha256", "stage"))
        if key not in loaded:
            loaded[key] = _recorded(options, what, args)
        # The same network at another scale is not loaded again.
        found[name] = copy.deepcopy(loaded[key])
        found[name].viewing = Viewing(**options.get("viewing", {}))
    return found


def check_same_computation(chosen: Selection | SelectedFeatureIQM, scores: ScoreMatrix, what: str) -> None:
    """Raise `InputError` where map scores were computed otherwise than those the maps were chosen by."""
    needed, there = ({m.source: None for m in maps} for maps in (chosen.maps, scores.maps))
    if any(name not in there for name in needed):
        wanted, given = (", ".join(name or "without a name" for name in names) for names in (needed, there))
        raise InputError(
            f"{what} needs the score matrices {wanted}, these are {given}; "
            "give each as NAME=FILE, by the name it had when the maps were chosen"
        )
    differing = [
        f"{option}: {theirs!r} there, {ours!r} in the score matrix"
        for option, theirs, ours in differing_computation(chosen.source, scores.options)
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
        maps: how many feature maps it looks at, if it does.
        plcc: after a logistic fitted on these images (or without, if so asked).
        srocc: rank correlation (Spearman).
        krocc: rank correlation (Kendall).
        rmse: after that logistic, in units of the scores.
    """

    name: str
    maps: int | None
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


def agreement(
    name: str, maps: int | None, quality: Tensor, targets: Tensor, *, fit: Form | None, monotone: bool
) -> Agreement:
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


def _recorded(options: Mapping[str, Any], what: str, args: argparse.Namespace) -> FeatureExtractor:
    """The network of one source."""
    network, stage, expected = options["network"], options["stage"], options["weights_sha256"]
    # The fingerprint is that of the layers the network was loaded with, which may be fewer than all.
    found = []
    for layers in dict.fromkeys((tuple(options.get("layers", ())) or None, None)):
        extractor = extractor_of(args, network, stage=stage, layers=layers, viewing=Viewing())
        if extractor.weights_sha256 == expected:
            return extractor
        found.append(extractor.weights_sha256)
    raise WeightsError(
        f"{what} was computed with other weights of {network} (fingerprint {expected[:12]}) than "
        f"--weights {weights_given(args, network)} ({found[0][:12]}); give the same"
    )
