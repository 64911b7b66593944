"""`fmiqa explain`: why a test image got its score, as one HTML page."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from fmiqa._io import printable
from fmiqa.cli import options
from fmiqa.cli.output import Written, add_output_options, print_result
from fmiqa.cli.outputs import OutputFile
from fmiqa.cli.results import named_metric
from fmiqa.datasets import read_image
from fmiqa.datasets.colours import background_colour
from fmiqa.errors import InputError
from fmiqa.explanation import explain

_EXAMPLES = """\
examples:
  fmiqa explain --reference reference.png test.png --out page.html
  fmiqa explain --reference reference.png test.png --metric metric.safetensors --maps 5 --json

The page shows both pictures under a slider, in colours where the test image is judged worse, and a list of the metric's
maps: how much of the loss each takes, what it detects, and where it sees the loss. It holds all its pictures and asks
nothing of the network. The same list is printed. One test image makes one page."""


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = options.new_command(
        commands,
        "explain",
        "Say why a test image got its score, on one HTML page",
        _EXAMPLES,
        run,
        lambda args: f"{args.out} was not written." if args.out else "Nothing was written.",
    )
    parser.add_argument("tests", nargs="+", metavar="TEST", help="the test image")
    parser.add_argument("--reference", required=True, metavar="IMAGE", help="its reference")
    options.add_background_option(parser)
    options.add_metric_option(parser)
    parser.add_argument("--out", "-o", type=OutputFile, metavar="FILE", help="the page (.html)")
    parser.add_argument(
        "--maps", type=options.at_least(1), default=12, metavar="N", help="how many maps are shown (default: 12)"
    )
    options.add_weights_options(parser)
    options.add_device_option(parser)
    add_output_options(parser)


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    if len(args.tests) > 1:
        args.parser.error(f"a page is of one test image, got {len(args.tests)}: run the command once for each")
    (test,) = args.tests
    background = background_colour(args.background)
    metric = named_metric(args).to(options.device_of(args))
    images = [read_image(path, background=background).to(metric.device) for path in (test, args.reference)]
    given = printable(test), printable(args.reference)
    bare = Path(given[0]).name, Path(given[1]).name
    try:
        found = explain(*images, metric=metric, maps=args.maps, names=given if bare[0] == bare[1] else bare)
    except InputError as error:
        raise InputError(f"{test} against {args.reference}: {error}") from error
    written = Written()
    if args.out:
        written.write("page", args.out, found.write)
    print_result(args, {"test": given[0], "reference": given[1], **found.to_dict()}, str(found), written)
