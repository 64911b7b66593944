"""The options that name a data set, and the data set they name."""

from __future__ import annotations

import argparse
from collections.abc import Iterable

from fmiqa import datasets
from fmiqa._io import printable
from fmiqa.cli import options
from fmiqa.datasets import CATALOGUE, IQADataset

__all__ = ["add_data_options", "check_data_options", "data_set"]

_TABLE_COLUMNS = {
    "--reference": ("reference", "column of the reference images' paths (default: reference)"),
    "--distorted": ("distorted", "column of the test images' paths (default: distorted)"),
    "--score": ("score", "column of the subjective scores (default: score)"),
    "--reference-id": ("reference_id", "column of the groups that folds keep together (default: the reference's path)"),
    "--image-name": ("image_name", "column of the images' names (default: the test image's path)"),
    "--distortion": ("distortion", "column of distortion types"),
}
_TABLE_FOLDERS = {
    "--root": ("root", "folder where the paths start (default: the table's)"),
    "--reference-root": ("reference_root", "folder where the references' paths start, if elsewhere"),
    "--distorted-root": ("distorted_root", "folder where the test images' paths start, if elsewhere"),
}


def add_data_options(parser: argparse.ArgumentParser) -> argparse._MutuallyExclusiveGroup:
    """Data sets; the group is returned for other sources of data to join it."""
    data = parser.add_argument_group("data set (one of)")
    one = data.add_mutually_exclusive_group(required=True)
    for key, entry in CATALOGUE.items():
        one.add_argument(f"--{key}", metavar="ROOT", help=f"folder of {entry.name}")
    one.add_argument("--csv", metavar="FILE", help="your own images: a CSV table of references, test images and scores")
    one.add_argument("--demo", action="store_true", help="the embedded set, with the scores of a simulated observer")
    data.add_argument(
        "--name", type=printable, help="the name of the set in every result (a re-rendered TID2013 is not TID2013)"
    )
    data.add_argument("--partial", action="store_true", help="accept a part of a published set")
    table = parser.add_argument_group("with --csv")
    for option, (dest, text) in _TABLE_COLUMNS.items():
        table.add_argument(option, dest=dest, metavar="COLUMN", help=text)
    for option, (dest, text) in _TABLE_FOLDERS.items():
        table.add_argument(option, dest=dest, metavar="FOLDER", help=text)
    table.add_argument("--lower-is-better", action="store_true", help="the scores rise with distortion (DMOS)")
    options.add_background_option(table)
    table.add_argument("--delimiter", help="the separator of the cells (default: detected in the header line)")
    return one


def check_data_options(args: argparse.Namespace) -> None:
    """End with a usage error where an option does not go with the data set."""
    given = [option for option, (dest, _) in {**_TABLE_COLUMNS, **_TABLE_FOLDERS}.items() if getattr(args, dest)]
    given += ["--lower-is-better"] * args.lower_is_better + ["--delimiter"] * bool(args.delimiter)
    given += ["--background"] * bool(args.background)
    if given and not args.csv:
        args.parser.error(f"{', '.join(given)}: only with --csv")
    published = any(getattr(args, key) for key in CATALOGUE)
    if args.partial and not published:
        args.parser.error(f"--partial: only with {_listed(CATALOGUE)}")
    if args.name and not (args.csv or published):
        args.parser.error(f"--name: only with {_listed([*CATALOGUE, 'csv'])}")


def data_set(args: argparse.Namespace) -> IQADataset:
    """The data set that the options name."""
    if args.demo:
        return datasets.Demo()
    for key, entry in CATALOGUE.items():
        if getattr(args, key):
            return entry.load(getattr(args, key), partial=args.partial, name=args.name)
    columns = {dest: getattr(args, dest) for dest, _ in {**_TABLE_COLUMNS, **_TABLE_FOLDERS}.values()}
    columns = {dest: value for dest, value in columns.items() if value is not None}
    return datasets.CSVDataset(
        args.csv,
        higher_is_better=not args.lower_is_better,
        delimiter={"\\t": "\t"}.get(args.delimiter, args.delimiter),
        background=args.background,
        name=args.name,
        **columns,
    )


def _listed(names: Iterable[str]) -> str:
    *most, last = (f"--{name}" for name in names)
    return f"{', '.join(most)} or {last}"
