"""`fmiqa select`: choose the feature maps that agree with the observers, from a score matrix."""

from __future__ import annotations

import argparse
from typing import Any, get_args

from fmiqa.cli import options
from fmiqa.cli.figures import check_plotting, save_selection_figure
from fmiqa.cli.output import add_output_options, figure4, print_result, wants_progress
from fmiqa.cli.results import recorded_extractor
from fmiqa.correlation import Form
from fmiqa.metrics import SelectedFeatureIQM
from fmiqa.pooling import Pool
from fmiqa.scores import ScoreMatrix
from fmiqa.selection import Criterion, Direction, Selection, forward_select

_EXAMPLES = """\
examples:
  fmiqa select tid2013.safetensors --out selected.json --plot selected.png
  fmiqa select tid2013.safetensors --out selected.json --metric metric.safetensors --weights alexnet.pth

The figures are in sample: measured on the images that the maps were chosen on."""


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = options.new_command(
        commands,
        "select",
        "Choose the feature maps that agree with the observers",
        _EXAMPLES,
        run,
        lambda _: "Nothing was written; --max-maps makes a selection shorter.",
    )
    parser.add_argument("scores", metavar="SCORES", help="score matrix, as `fmiqa matrix` writes it")
    files = parser.add_argument_group("files to write")
    files.add_argument("--out", "-o", required=True, metavar="FILE", help="the selection (.json)")
    files.add_argument("--plot", metavar="FILE", help="its picture (.png, .svg, .pdf)")
    files.add_argument("--metric", metavar="FILE", help="a metric that `fmiqa score` uses (.safetensors)")
    files.add_argument("--fitted", action="store_true", help="the metric answers on the scale of the scores")
    search = parser.add_argument_group("search")
    search.add_argument("--criterion", choices=get_args(Criterion), default="plcc", help="what must rise")
    search.add_argument("--fit", choices=[*get_args(Form), "none"], default="logistic5", help="before the PLCC")
    search.add_argument("--monotone", action="store_true", help="the fitted curve may not turn round")
    search.add_argument("--pool", choices=get_args(Pool), default="mean", help="how the maps' scores are combined")
    search.add_argument(
        "--direction",
        choices=get_args(Direction),
        default="rising",
        help="only maps that rise with quality, or any",
    )
    search.add_argument("--max-maps", type=int, metavar="N", help="stop at N maps")
    search.add_argument("--tol", type=float, default=0.0, metavar="GAIN", help="stop at gains up to this (default: 0)")
    search.add_argument("--start", nargs="+", default=[], metavar="MAP", help="maps to begin with")
    search.add_argument("--exclude", nargs="+", default=[], metavar="MAP", help="maps that may not join")
    options.add_weights_options(parser)
    add_output_options(parser)


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    if args.fitted and not args.metric:
        args.parser.error("--fitted: only with --metric")
    scores = ScoreMatrix.load(args.scores)
    # What could fail is tried before the search, which may take minutes.
    if args.plot:
        check_plotting(args.plot)
    extractor = recorded_extractor(scores.options, args.scores, args) if args.metric else None
    selection = forward_select(
        scores,
        criterion=args.criterion,
        fit=None if args.fit == "none" else args.fit,
        monotone=args.monotone,
        pool=args.pool,
        direction=args.direction,
        max_maps=args.max_maps,
        tol=args.tol,
        start=args.start,
        exclude=args.exclude,
        progress=wants_progress(args),
    )
    selection.save(args.out)
    if args.plot:
        save_selection_figure(args.plot, selection, scores)
    if extractor is not None:
        SelectedFeatureIQM.from_selection(extractor, selection, fitted=args.fitted).save(args.metric)
    files = {kind: path for kind in ("out", "plot", "metric") if (path := getattr(args, kind))}
    print_result(
        args,
        {
            "dataset": scores.options.get("dataset"),
            "images": len(scores),
            "criterion": selection.options["criterion"],
            "in_sample": True,
            "value": selection.value,
            "maps": [str(m) for m in selection.maps],
            "curve": selection.curve,
            "files": files,
        },
        f"{selection}\n\n{describe(selection)}\nwritten to {', '.join(files.values())}",
    )


def describe(selection: Selection) -> str:
    """The outcome in a line."""
    criterion = selection.options["criterion"].upper()
    return (
        f"{len(selection)} of {selection.options['maps']} maps, {criterion} {figure4(selection.value)} "
        f"in sample (on the {selection.options['images']} images they were chosen on)"
    )
