"""`fmiqa score`: the quality of test images against their references."""

from __future__ import annotations

import argparse
import csv
import io
import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fmiqa._io import printable, write_whole
from fmiqa._progress import progress_bar
from fmiqa.cli import options
from fmiqa.cli.output import Written, add_output_options, print_result, show, wants_progress
from fmiqa.cli.outputs import OutputFile, OutputFolder, save_picture
from fmiqa.cli.results import named_metric, recorded_extractors
from fmiqa.datasets import read_image
from fmiqa.datasets.colours import Background, background_colour
from fmiqa.datasets.folders import file_key
from fmiqa.datasets.pairing import pair_folders
from fmiqa.datasets.table import Row, read_rows
from fmiqa.errors import DatasetError, InputError
from fmiqa.metrics import SelectedFeatureIQM
from fmiqa.selection import Selection
from fmiqa.zoo import ReadyMetric

_EXAMPLES = """\
examples:
  fmiqa score --reference reference.png test1.png test2.png
  fmiqa score references/ tests/ --csv scores.csv --maps maps/
  fmiqa score --metric accurate --weights alexnet=alexnet.pth --weights squeezenet1_1=s.pth --pairs pairs.csv
  fmiqa score --metric metric.safetensors --reference reference.png test1.png test2.png
  fmiqa score --metric metric.safetensors --pairs pairs.csv --json
  fmiqa score --selection selected.json --weights alexnet.pth --reference reference.png test.png
  fmiqa score --selection joined.json --weights alexnet=a.pth --weights vgg16=v.pth --reference ref.png test.png

The metric is a ready-made one (`fmiqa metrics` lists them), "fast" by default, or your own. A ready-made metric also
rates each image from 0 to 100, with the interval that holds nine of ten mean opinions, and in words.

Two folders, without --reference or --pairs, are the references and the test images, sub-folders included. A test
image belongs to the reference of the same name in the same sub-folder, letter case and ending aside; where there is
none, to the one reference whose name its own begins with, before "_" or "-" (lake_jpeg_3.jpg to lake.png). Every
image must have a partner.

A table of pairs is a CSV table as `fmiqa matrix --csv` takes it, with the columns reference and distorted. Its paths
start at its folder. One line is printed per image: name, quality and, of a ready-made metric, rating, interval and
words, with tabs between them. Higher is better; with SSIM the quality is at most 1.

--csv has one row per image: reference, test, quality; of a ready-made metric, rating, low, high and words; with --maps,
map: the error map's file. An error map shows the
test image in grey, and in colours where it is judged worse: from yellow, a small loss, to dark red, a loss of 1. It
bears the test image's name, with a number where several images have one."""


class _Pair(NamedTuple):
    """A test image, what it is judged against, and what is found."""

    reference: str
    test: str
    quality: float
    picture: Tensor | None


def add(commands: Any) -> None:
    """Add the command to the parser."""
    summary = "Judge test images against their references"
    parser = options.new_command(commands, "score", summary, _EXAMPLES, run, _kept)
    metric = parser.add_argument_group("metric (one of)").add_mutually_exclusive_group()
    options.add_metric_option(metric)
    metric.add_argument("--selection", metavar="FILE", help="as `fmiqa select --out` writes it, with --weights (.json)")
    images = parser.add_argument_group("images (test images and --reference, two folders, or --pairs)")
    images.add_argument(
        "tests", nargs="*", metavar="TEST", help="test images; or a folder of references and one of them"
    )
    one = images.add_mutually_exclusive_group()
    one.add_argument("--reference", metavar="IMAGE", help="their common reference")
    one.add_argument("--pairs", metavar="FILE", help="a CSV table of pairs, instead")
    options.add_background_option(images)
    files = parser.add_argument_group("files to write")
    files.add_argument("--csv", type=OutputFile, metavar="FILE", help="the qualities as a table")
    files.add_argument(
        "--maps",
        type=OutputFolder,
        metavar="FOLDER",
        help="for each test image, a picture of where it is judged worse (.png)",
    )
    options.add_weights_options(parser)
    options.add_device_option(parser)
    add_output_options(parser)


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    pairs = _asked_pairs(args)
    places = _places(args.maps, [test for _, test in pairs]) if args.maps else [None] * len(pairs)
    _refuse_read(args, pairs, places)
    background = background_colour(args.background)
    metric = _metric(args).to(options.device_of(args))
    bar = progress_bar(show=wants_progress(args) and args.json, total=len(pairs), desc="scoring", unit="image")
    written, rows = Written(), []
    for found, place in zip(_judged(metric, pairs, background, pictures=bool(args.maps)), places, strict=True):
        rated = _rated(metric, found.quality)
        row: dict[str, Any] = {"reference": found.reference, "test": found.test, "quality": found.quality, **rated}
        if place is not None and found.picture is not None:
            if written.complete:  # a full disk is tried once
                written.write(place, place, partial(save_picture, found.picture))
            row["map"] = written.files.get(place)
        if not args.json:
            show("\t".join([found.test, f"{found.quality:.6f}", *_rating_in_words(rated)]))
        rows.append(row)
        bar.update()
    bar.close()
    if args.csv:
        written.write("csv", args.csv, lambda path: write_whole(path, _table(rows)))
    if args.json:
        signed = {"metric": metric.signature} if isinstance(metric, ReadyMetric) else {}
        print_result(args, {**signed, "images": rows, "files": list(written.files.values())}, "", written)
    else:
        written.raise_failures()


def _kept(args: argparse.Namespace) -> str:
    """What to say after an interruption."""
    pictures = f" So are the pictures in {args.maps}." if args.maps else ""
    table = f" {args.csv} was not written." if args.csv else ""
    return f"The lines printed so far are whole.{pictures}{table}"


def _asked_pairs(args: argparse.Namespace) -> list[tuple[str, str]]:
    """(reference, test) of each pair, whichever way they are given."""
    if args.pairs and not args.tests:
        return _pairs(args.pairs)
    if args.reference and args.tests:
        return [(args.reference, test) for test in args.tests]
    if args.pairs or args.reference or len(args.tests) != 2:
        args.parser.error(
            "give test images and their --reference, two folders (the references first), or --pairs alone"
        )
    files = [path for path in args.tests if not os.path.isdir(path)]
    if files:
        raise InputError(
            f"{files[0]} is not a folder; without --reference or --pairs, give two folders: the references, then the "
            "test images"
        )
    return [(str(reference), str(test)) for reference, test in pair_folders(*args.tests)]


def _metric(args: argparse.Namespace) -> SelectedFeatureIQM:
    if args.selection:
        selection = Selection.load(args.selection)
        extractors = recorded_extractors(selection.source, args.selection, args, selection.maps)
        return SelectedFeatureIQM.from_selection(extractors, selection)
    return named_metric(args)


def _rated(metric: SelectedFeatureIQM, quality: float) -> dict[str, Any]:
    """The rating of an image by a ready-made metric."""
    if not isinstance(metric, ReadyMetric):
        return {}
    rating = metric.rating(torch.tensor([quality], dtype=torch.float64, device="cpu"))
    ends = {"rating": rating.score, "low": rating.low, "high": rating.high}
    return {**{name: round(float(end), 1) for name, end in ends.items()}, "words": rating.words[0]}


def _rating_in_words(rated: Mapping[str, Any]) -> list[str]:
    return [f"{rated['rating']:.0f}", f"{rated['low']:.0f} to {rated['high']:.0f}", rated["words"]] if rated else []


@torch.inference_mode()
def _judged(
    metric: SelectedFeatureIQM, pairs: Sequence[tuple[str, str]], background: Background | None, *, pictures: bool
) -> Iterator[_Pair]:
    """One image at a time, since sizes may differ; neighbours that share a reference share its side."""
    for _, group in itertools.groupby(pairs, key=lambda pair: file_key(pair[0])):
        same = list(group)
        reference = read_image(same[0][0], background=background)[None].to(metric.device)
        prepared = metric.prepare(reference)
        for name, test in same:
            try:
                image = read_image(test, background=background)
                quality = metric(image[None].to(metric.device), prepared).item()
                picture = _picture(metric, image, reference) if pictures else None
            except InputError as error:
                raise InputError(f"{test} against {name}: {error}") from error
            yield _Pair(name, test, quality, picture)


def _picture(metric: SelectedFeatureIQM, image: Tensor, reference: Tensor) -> Tensor:
    from fmiqa.visualize import overlay_error

    return overlay_error(image, metric.error_map(image[None].to(metric.device), reference)[0, 0])


def _places(folder: str, tests: Sequence[str]) -> list[str | None]:
    """A file of its own for each test image's picture: its name, with a number where that is another's already."""
    stems = [Path(test).stem for test in tests]
    taken = {stem.casefold() for stem in stems}  # an image that has a name of its own keeps it
    seen: set[str] = set()
    places: list[str | None] = []
    for stem in stems:
        name, number = stem, 1
        while name.casefold() in (seen if number == 1 else taken):
            number += 1
            name = f"{stem}-{number}"
        seen.add(name.casefold())
        taken.add(name.casefold())
        places.append(str(Path(folder) / f"{name}.png"))
    return places


def _refuse_read(args: argparse.Namespace, pairs: Sequence[tuple[str, str]], places: Sequence[str | None]) -> None:
    """Refuse to write over an image that is read, or over a picture of this run."""
    read = {file_key(path) for pair in pairs for path in pair}
    pictures = {file_key(place): place for place in places if place is not None}
    for key, place in pictures.items():
        if key in read:
            raise InputError(f"--maps: {place} is an image that the command reads; give another folder")
    if args.csv and file_key(args.csv) in read | set(pictures):
        raise InputError(f"--csv: {args.csv} is an image that the command reads or writes; give another name")


def _table(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Rows as a CSV table, whose columns are those that any of them has."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    text = io.StringIO(newline="")
    table = csv.DictWriter(text, columns, lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    return printable(text.getvalue()).encode()


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
