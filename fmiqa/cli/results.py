"""Saved results that commands read: score matrices, and the networks that results were computed with."""

from __future__ import annotations

import argparse
import contextlib
import copy
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fmiqa._io import printable
from fmiqa.cli.options import check_weights_options, extractor_of, named_file, weights_given, weights_of
from fmiqa.errors import InputError, WeightsError
from fmiqa.features.extractor import FeatureExtractor
from fmiqa.features.viewing import Viewing
from fmiqa.maps import MapIndex
from fmiqa.metrics import SelectedFeatureIQM
from fmiqa.scoring.matrix import ScoreMatrix, sources_of
from fmiqa.scoring.store import ScoreStore
from fmiqa.zoo import Card, load_metric, metric_names

__all__ = ["load_scores", "named_metric", "networks_of", "open_scores", "recorded_extractors"]


def named_metric(args: argparse.Namespace) -> SelectedFeatureIQM:
    """The metric that `--metric` names: a ready-made one, with the weights of `--weights`, or a file.

    Raises:
        InputError: It is neither; weights for a network that it does not run.
        FileFormatError: The file is damaged or holds something else.
    """
    if args.metric not in metric_names():
        if not os.path.exists(args.metric):
            raise InputError(
                f"--metric {args.metric} is neither a file nor a ready-made metric: there are "
                f"{', '.join(metric_names())}"
            )
        return SelectedFeatureIQM.load(args.metric)
    networks = Card.load(args.metric).networks
    check_weights_options(args, networks, f"the metric {args.metric}")
    given = {network: weights_of(args, network) for network in networks} if args.weights else None
    with contextlib.redirect_stdout(sys.stderr):  # torchvision announces a download on standard output
        return load_metric(args.metric, weights=given)


def open_scores(given: Sequence[str], args: argparse.Namespace) -> ScoreMatrix | ScoreStore:
    """As `load_scores`, but a single folder stays on disk."""
    if len(given) == 1 and Path(given[0]).is_dir():
        return ScoreStore.open(given[0])
    return load_scores(given, args)


def load_scores(given: Sequence[str], args: argparse.Namespace) -> ScoreMatrix:
    """The score matrix of a FILE, or those of several joined, each FILE or NAME=FILE; its name is else the file's stem.
    A folder, a score store, is loaded like a file.

    Matrices of the same images are candidates side by side; those of other images, at the same maps, are several data
    sets.

    Raises:
        FileFormatError: A file is missing, damaged, or holds something else.
        InputError: Matrices that cannot be joined, see `ScoreMatrix.concat` and `ScoreMatrix.stack`.
    """
    files = [named_file(text) for text in given]
    if len(files) == 1 and not files[0][0]:
        return _loaded(files[0][1])
    names = [name or printable(Path(path).stem) for name, path in files]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        args.parser.error(f"two score matrices go by the name {twice!r}; give names: NAME={files[0][1]} NAME=...")
    matrices = {name: _loaded(path) for name, (_, path) in zip(names, files, strict=True)}
    first, *others = matrices.values()
    if all(m.maps == first.maps and not set(m.names) & set(first.names) for m in others):
        return ScoreMatrix.stack(matrices)
    return ScoreMatrix.concat(matrices)


def _loaded(path: str) -> ScoreMatrix:
    opened = ScoreMatrix.open(path)
    return opened.load() if isinstance(opened, ScoreStore) else opened


def networks_of(source: Mapping[str, Any]) -> list[str]:
    """The names of the networks that a saved result was computed with, as far as it names them."""
    return [options["network"] for options in sources_of(source).values() if "network" in options]


def recorded_extractors(
    source: Mapping[str, Any],
    what: str,
    args: argparse.Namespace,
    maps: MapIndex | None = None,
    *,
    others: Iterable[str] = (),
) -> dict[str, FeatureExtractor]:
    """The networks that a saved result was computed with, by source name, their weights given again.

    Args:
        source: The `source` of a selection or metric, or the `options` of a score matrix.
        what: The result, for messages.
        args: The parsed command line, with `--weights`.
        maps: Only the sources of these.
        others: Networks beside it that `--weights` may name too.

    Raises:
        InputError: The result does not name its networks; weights for a network that it does not name.
        WeightsError: Other weights than it was computed with.
    """
    sources = sources_of(source)
    if not all("network" in options for options in sources.values()):
        raise InputError(f"{what} does not name its networks: it was made from plain numbers")
    check_weights_options(args, [*(options["network"] for options in sources.values()), *others], what)
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
