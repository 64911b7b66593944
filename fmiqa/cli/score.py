"""`fmiqa score`: the quality of test images against their references."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from fmiqa._progress import progress_bar
from fmiqa.cli import options
from fmiqa.cli.output import add_output_options, print_result, show, wants_progress
from fmiqa.cli.results import recorded_extractors
from fmiqa.datasets import read_image
from fmiqa.datasets.folders import file_key
from fmiqa.datasets.table import Row, read_rows
from fmiqa.errors import DatasetError, InputError
from fmiqa.metrics import SelectedFeatureIQM
from fmiqa.selection import Selection

_EXAMPLES = """\
examples:
  fmiqa score --metric metric.safetensors --reference reference.png test1.png test2.png
  fmiqa score --metric metric.safetensors --pairs pairs.csv --json
  fmiqa score --selection selected.json --weights alexnet.pth --reference reference.png test.png
  fmiqa score --selection joined.json --weights alexnet=a.pth --weights vgg16=v.pth --reference ref.png test.png

A table of pairs is a CSV table as `fmiqa matrix --csv` takes it, with the columns reference and distorted. Its paths
start at its folder. One line is printed per image: name, tab, quality. Higher is better; with SSIM it is at most 1."""


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = options.new_command(
        commands,
        "score",
        "Judge test images against their references",
        _EXAMPLES,
        run,
        lambda _: "The lines printed so far are whole.",
    )
    metric = parser.add_argument_group("metric (one of)").add_mutually_exclusive_group(required=True)
    metric.add_argument("--metric", metavar="FILE", help="as `fmiqa select --metric` writes it (.safetensors)")
    metric.add_argument("--selection", metavar="FILE", help="as `fmiqa select --out` writes it, with --weights (.json)")
    images = parser.add_argument_group("images")
    images.add_argument("tests", nargs="*", metavar="TEST", help="test images")
    one = images.add_mutually_exclusive_group(required=True)
    one.add_argument("--reference", metavar="IMAGE", help="their common reference")
    one.add_argument("--pairs", metavar="FILE", help="a CSV table of pairs, instead")
    options.add_weights_options(parser)
    options.add_device_option(parser)
    add_output_options(parser)


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    if bool(args.tests) == bool(args.pairs):
        args.parser.error("give test images and their --reference, or --pairs alone")
    pairs = _pairs(args.pairs) if args.pairs else [(args.reference, test) for test in args.tests]
    metric = _metric(args).to(options.device_of(args))
    bar = progress_bar(show=wants_progress(args) and args.json, total=len(pairs), desc="scoring", unit="image")
    results = []
    for (reference, test), quality in zip(pairs, _qualities(metric, pairs), strict=True):
        if not args.json:
            show(f"{test}\t{quality:.6f}")
        results.append({"test": test, "reference": reference, "quality": quality})
        bar.update()
    bar.close()
    if args.json:
        print_result(args, {"images": results}, "")


def _metric(args: argparse.Namespace) -> SelectedFeatureIQM:
    if args.metric:
        return SelectedFeatureIQM.load(args.metric)
    selection = Selection.load(args.selection)
    extractors = recorded_extractors(selection.source, args.selection, args, selection.maps)
    return SelectedFeatureIQM.from_selection(extractors, selection)


@torch.inference_mode()
def _qualities(metric: SelectedFeatureIQM, pairs: list[tuple[str, str]]) -> Iterator[float]:
    """One image at a time, since sizes may differ; neighbours that share a reference share its side."""
    for _, group in itertools.groupby(pairs, key=lambda pair: file_key(pair[0])):
        same = list(group)
        prepared = metric.prepare(read_image(same[0][0])[None].to(metric.device))
        for reference, test in same:
            try:
                yield metric(read_image(test)[None].to(metric.device), prepared).item()
            except InputError as error:
                raise InputError(f"{test} against {reference}: {error}") from error


def _pairs(path: str) -> list[tuple[str, str]]:
    table = Path(path)
    problems: list[str] = []
    pairs = []
    for line, cells in read_rows(table, ("reference", "distorted"), problems):
        row = Row(cells)
        pairs.append((str(table.parent / row.path("reference")), str(table.parent / row.path("distorted"))))
        problems += [f"{table.name}, line {line}: {problem}" for problem in row.problems]
    if problems or not pairs:
        raise DatasetError(f"{path} cannot be used:", problems or ["there are no pairs"])
    return pairs
