"""`fmiqa report`: a selection as one HTML page."""

from __future__ import annotations

import argparse
import shutil
from functools import partial
from typing import Any

from fmiqa._io import check_output_folder, is_special
from fmiqa._plotting import load_matplotlib
from fmiqa.cli import options
from fmiqa.cli.data import add_data_options, check_data_options, data_set
from fmiqa.cli.output import Written, add_output_options, print_result, wants_progress
from fmiqa.cli.outputs import OutputFile
from fmiqa.cli.results import load_scores, networks_of, recorded_extractors
from fmiqa.errors import InputError
from fmiqa.evaluation.claims import check_applicable
from fmiqa.evaluation.compare import compare
from fmiqa.evaluation.peers import PEERS, peer_scores
from fmiqa.selection import Selection, Validation

_EXAMPLES = """\
examples:
  fmiqa report selected.json --matrix tid2013.safetensors --tid2013 TID2013/ --weights alexnet.pth --out report.html
  fmiqa report selected.json --matrix demo.safetensors --demo --weights random --validation folds.json --out report.html

The page holds all its pictures and asks nothing of the network. Some minutes on a CPU; what is finished is kept in
OUT.parts and taken up by the same command."""


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = options.new_command(
        commands,
        "report",
        "Show a selection on one HTML page: figures, and a card for each selected map",
        _EXAMPLES,
        run,
        lambda args: f"What is finished is kept in {args.out}.parts; the same command goes on from there.",
    )
    parser.add_argument("selection", metavar="SELECTION", help="as `fmiqa select --out` writes it (.json)")
    parser.add_argument(
        "--matrix",
        nargs="+",
        required=True,
        metavar="FILE",
        help="the score matrix that it was made on; several as NAME=FILE",
    )
    parser.add_argument("--out", "-o", type=OutputFile, required=True, metavar="FILE", help="the page (.html)")
    parser.add_argument("--validation", metavar="FILE", help="as `fmiqa validate --out` writes it: held-out figures")
    add_data_options(parser)
    parser.add_argument(
        "--peers",
        nargs="+",
        choices=PEERS,
        metavar="NAME",
        help=f"metrics to compare with: {', '.join(PEERS)}",
    )
    parser.add_argument("--resamples", type=options.at_least(0), default=500, metavar="N", help="default: 500")
    looks = parser.add_argument_group("cards")
    looks.add_argument("--stride", type=options.at_least(1), default=8, metavar="N", help="of prediction difference")
    looks.add_argument("--samples", type=options.at_least(1), default=10, metavar="N", help="of prediction difference")
    looks.add_argument("--steps", type=options.at_least(1), default=256, metavar="N", help="of activation maximisation")
    options.add_weights_options(parser)
    options.add_device_option(parser)
    add_output_options(parser)


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    check_data_options(args)
    from fmiqa.report import check_report, write_report
    from fmiqa.visualize import map_cards

    load_matplotlib()
    work = None if is_special(args.out) else f"{args.out}.parts"
    if work is not None:
        check_output_folder(work)
    selection, scores = Selection.load(args.selection), load_scores(args.matrix, args)
    check_applicable(selection, scores, args.selection)
    validation = Validation.load(args.validation) if args.validation else None
    check_report(selection, scores, validation)
    weights = options.peer_weights(args, networks_of(selection.source))
    data = data_set(args)
    if data.name != scores.options.get("dataset"):
        raise InputError(
            f"the score matrix is of {scores.options.get('dataset')}, the images are {data.name}; give the same "
            "data set (and its --name)"
        )
    device, progress = options.device_of(args), wants_progress(args)
    found = recorded_extractors(selection.source, args.selection, args, selection.maps, others=weights)
    extractors = {name: extractor.to(device) for name, extractor in found.items()}
    qualities = {"selected maps": selection.combine(scores), "all maps": scores.pool(pool=selection.pool)}
    if args.peers:
        if data.names != scores.names:
            raise InputError("--peers: the score matrix is of other images than the data set")
        qualities |= peer_scores(data, args.peers, weights=weights, device=device, progress=progress)
    resamples = args.resamples if len(set(scores.groups)) > 1 else 0
    comparison = compare(qualities, scores.targets, scores.groups, baseline="selected maps", resamples=resamples)
    cards = map_cards(
        selection, extractors, data, stride=args.stride, samples=args.samples, steps=args.steps, work=work,
        progress=progress,
    )  # fmt: skip
    written = Written()
    report = partial(write_report, validation=validation, comparison=comparison)
    written.write("file", args.out, lambda path: report(path, selection, scores, cards))
    if work is not None and written.files:
        shutil.rmtree(work)
    maps = [{"map": str(card.map), **dict(card.facts)} for card in cards]
    said = "; ".join([f"{len(cards)} maps", *(f"written to {path}" for path in written.files.values())])
    print_result(args, {"maps": maps, "file": written.files.get("file"), "files": written.files}, said, written)
