"""`fmiqa select`: choose the feature maps that agree with the observers, from score matrices."""

from __future__ import annotations

import argparse
from typing import Any

from fmiqa._plotting import save_figure
from fmiqa._runtime.compiled import compiling
from fmiqa._runtime.distributed import is_first
from fmiqa._tables import text_table
from fmiqa.cli import options
from fmiqa.cli.output import Written, add_output_options, figure4, print_result, wants_progress
from fmiqa.cli.outputs import OutputFile, OutputPicture
from fmiqa.cli.results import load_scores, open_scores, recorded_extractors
from fmiqa.cli.searches import add_search_options, asked_search
from fmiqa.metrics import SelectedFeatureIQM
from fmiqa.scoring import ScoreMatrix, ScoreStore
from fmiqa.selection import Selection
from fmiqa.selection.beyond_memory import forward_select_store
from fmiqa.visualize.plots import selection_figure

_EXAMPLES = """\
examples:
  fmiqa select tid2013.safetensors --out selected.json --plot selected.png
  fmiqa select tid2013.safetensors --out selected.json --metric metric.safetensors --weights alexnet.pth
  fmiqa select full=alexnet.safetensors half=alexnet-half.safetensors --search weighted --out selected.json
  fmiqa select tid2013.safetensors csiq.safetensors --across worst --out selected.json

Several score matrices of the same images are joined; a map is then called NAME/LAYER:CHANNEL, NAME being the file's
stem unless given as NAME=FILE. Matrices of other images at the same maps are several data sets: each has a logistic of
its own, and the mean or the lowest of their criteria is maximised.

A folder is a score store, and may be larger than memory: forward selection by the PLCC reads it piece by piece.

The figures are in sample: measured on the images that the maps were selected on; `fmiqa validate` tells what they are
worth on others."""


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = options.new_command(
        commands,
        "select",
        "Select the feature maps that agree best with the observers",
        _EXAMPLES,
        run,
        lambda _: "Only files that were finished are kept; --max-maps makes a selection shorter.",
    )
    parser.add_argument(
        "scores", nargs="+", metavar="SCORES", help="as `fmiqa matrix` writes it: FILE or NAME=FILE, or a folder"
    )
    files = parser.add_argument_group("files to write")
    files.add_argument("--out", "-o", type=OutputFile, required=True, metavar="FILE", help="the selection (.json)")
    files.add_argument("--plot", type=OutputPicture, metavar="FILE", help="its picture (.png, .svg, .pdf)")
    files.add_argument(
        "--metric", type=OutputFile, metavar="FILE", help="a metric that `fmiqa score` uses (.safetensors)"
    )
    files.add_argument("--fitted", action="store_true", help="the metric answers on the scale of the scores")
    add_search_options(parser)
    options.add_weights_options(parser)
    options.add_device_option(parser)
    options.add_compile_option(parser)
    add_output_options(parser)


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    if args.fitted and not args.metric:
        args.parser.error("--fitted: only with --metric")
    search = asked_search(args, progress=wants_progress(args))
    scores = open_scores(args.scores, args) if args.search == "forward" else load_scores(args.scores, args)
    if args.plot and isinstance(scores, ScoreStore):
        args.parser.error("--plot: not with a folder, whose scores stay on disk; `Selection.plot` draws the path")
    device = options.device_of(args)
    # What could fail is tried before the search, which may take minutes.
    what = " and ".join(args.scores)
    extractors = recorded_extractors(scores.options, what, args) if args.metric else None
    with compiling(args.compile):
        if isinstance(scores, ScoreStore):
            selection = forward_select_store(scores, device=device, **search.keywords)
        else:
            selection = search(scores.to(device))
    if not is_first():
        return
    written = Written()
    written.write("out", args.out, selection.save)
    if args.plot and isinstance(scores, ScoreMatrix):
        written.write("plot", args.plot, lambda path: save_figure(selection_figure(selection, scores), path))
    if extractors is not None:
        metric = SelectedFeatureIQM.from_selection(extractors, selection, fitted=args.fitted)
        written.write("metric", args.metric, metric.save)
    print_result(
        args,
        {
            "dataset": scores.options.get("dataset"),
            "images": len(scores),
            "search": args.search,
            "criterion": selection.options["criterion"],
            "in_sample": True,
            "value": selection.value,
            "maps": [str(m) for m in selection.maps],
            "weights": None if selection.weights is None else selection.weights.tolist(),
            "curve": selection.curve,
        },
        f"{text_table(selection.table())}\n\n{describe(selection)}",
        written,
    )


def describe(selection: Selection) -> str:
    """The outcome in a line."""
    criterion = selection.options["criterion"].upper()
    return (
        f"{len(selection)} of {selection.options['maps']} maps, {criterion} {figure4(selection.value)} "
        f"in sample (on the {selection.options['images']} images they were selected on)"
    )
