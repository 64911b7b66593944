"""Options that several commands share, and what they stand for: data sets, networks, devices."""

from __future__ import annotations

import argparse
import contextlib
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, get_args

import torch

from fmiqa import datasets
from fmiqa.datasets import IQADataset
from fmiqa.errors import InputError
from fmiqa.features import FeatureExtractor
from fmiqa.networks import Stage
from fmiqa.scores import ScoreMatrix
from fmiqa.scoring import score_matrix
from fmiqa.viewing import Viewing

__all__ = [
    "add_computing_options",
    "add_data_options",
    "add_device_option",
    "add_weights_options",
    "check_data_options",
    "compute_scores",
    "data_set",
    "device_of",
    "extractor_of",
    "kept_parts",
    "new_command",
]

_TABLE_COLUMNS = {
    "--reference": ("reference", "column of the reference images' paths (default: reference)"),
    "--distorted": ("distorted", "column of the test images' paths (default: distorted)"),
    "--score": ("score", "column of the subjective scores (default: score)"),
    "--reference-id": ("reference_id", "column of the groups for folds (default: the reference's path)"),
    "--image-name": ("image_name", "column of the images' names (default: the test image's path)"),
    "--distortion": ("distortion", "column of distortion types"),
}
_TABLE_FOLDERS = {
    "--root": ("root", "folder where the paths start (default: the table's)"),
    "--reference-root": ("reference_root", "folder where the references' paths start, if elsewhere"),
    "--distorted-root": ("distorted_root", "folder where the test images' paths start, if elsewhere"),
}


def new_command(
    commands: Any,
    name: str,
    summary: str,
    notes: str,
    run: Callable[[argparse.Namespace], None],
    interrupted: Callable[[argparse.Namespace], str],
) -> argparse.ArgumentParser:
    """A command of the parser.

    Args:
        commands: what `add_subparsers` gave.
        name: of the command.
        summary: what it does, in a line.
        notes: printed below the options: examples, then what else one should know.
        run: does it.
        interrupted: what to say after Ctrl-C: what is kept and how to go on.
    """
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary[0].lower() + summary[1:],
        description=f"{summary}.",
        epilog=notes,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(run=run, interrupted=interrupted, parser=parser)
    return parser


def add_data_options(parser: argparse.ArgumentParser) -> argparse._MutuallyExclusiveGroup:
    """Data sets; the group is returned for other sources of data to join it."""
    data = parser.add_argument_group("data set (one of)")
    one = data.add_mutually_exclusive_group(required=True)
    one.add_argument("--tid2013", metavar="ROOT", help="folder of TID2013 (mos_with_names.txt, ...)")
    one.add_argument("--csv", metavar="FILE", help="your own: a CSV table of reference, test image and score")
    one.add_argument("--demo", action="store_true", help="the embedded set, scored by a simulated observer")
    data.add_argument("--name", help="what to call the set in every result (a re-rendered TID2013 is no TID2013)")
    data.add_argument("--partial", action="store_true", help="of --tid2013: part of the set is enough")
    table = parser.add_argument_group("with --csv")
    for option, (dest, text) in _TABLE_COLUMNS.items():
        table.add_argument(option, dest=dest, metavar="COLUMN", help=text)
    for option, (dest, text) in _TABLE_FOLDERS.items():
        table.add_argument(option, dest=dest, metavar="FOLDER", help=text)
    table.add_argument("--lower-is-better", action="store_true", help="the scores rise with damage (DMOS)")
    table.add_argument("--delimiter", help="what separates the cells (default: found from the header line)")
    return one


def check_data_options(args: argparse.Namespace) -> None:
    """End with a usage error where an option does not go with the data set."""
    given = [option for option, (dest, _) in {**_TABLE_COLUMNS, **_TABLE_FOLDERS}.items() if getattr(args, dest)]
    given += ["--lower-is-better"] * args.lower_is_better + ["--delimiter"] * bool(args.delimiter)
    if given and not args.csv:
        args.parser.error(f"{', '.join(given)}: only with --csv")
    if args.partial and not args.tid2013:
        args.parser.error("--partial: only with --tid2013")
    if args.name and not (args.csv or args.tid2013):
        args.parser.error("--name: only with --tid2013 or --csv")


def data_set(args: argparse.Namespace) -> IQADataset:
    """The data set that the options name."""
    if args.demo:
        return datasets.Demo()
    if args.tid2013:
        return datasets.TID2013(args.tid2013, partial=args.partial, name=args.name)
    options = {dest: getattr(args, dest) for dest, _ in {**_TABLE_COLUMNS, **_TABLE_FOLDERS}.values()}
    options = {dest: value for dest, value in options.items() if value is not None}
    return datasets.CSVDataset(
        args.csv,
        higher_is_better=not args.lower_is_better,
        delimiter={"\\t": "\t"}.get(args.delimiter, args.delimiter),
        name=args.name,
        **options,
    )


def add_weights_options(parser: argparse.ArgumentParser, *, network: bool = False) -> None:
    """`--weights`, and with `network` what else makes an extractor (a saved result knows the rest)."""
    group = parser.add_argument_group("network")
    if network:
        group.add_argument("--network", default="alexnet", help="alexnet, vgg16, ... (default: alexnet)")
        group.add_argument("--stage", choices=get_args(Stage), default="relu", help="after the ReLU, or before it")
        group.add_argument("--layers", nargs="+", metavar="LAYER", help="only these layers, such as conv1 conv2")
    group.add_argument(
        "--weights",
        default="default",
        metavar="default|FILE|random",
        help="torchvision's (downloaded once), a state dict (.pth, .safetensors), or seeded random ones",
    )
    group.add_argument("--seed", type=int, default=0, help="of random weights (default: 0)")


def extractor_of(
    args: argparse.Namespace, network: str, *, stage: Stage, layers: Iterable[str] | None, viewing: Viewing
) -> FeatureExtractor:
    """A network with the weights that the options name."""
    words: dict[str, str | None] = {"default": "DEFAULT", "random": None}
    weights = words.get(args.weights, args.weights)
    with contextlib.redirect_stdout(sys.stderr):  # torchvision announces a download on standard output
        return FeatureExtractor(network, weights=weights, stage=stage, layers=layers, viewing=viewing, seed=args.seed)


def add_device_option(group: argparse._ActionsContainer) -> None:
    """`--device`."""
    group.add_argument("--device", help="cpu, cuda, cuda:1, mps, ... (default: cuda where there is one, else cpu)")


def device_of(args: argparse.Namespace) -> torch.device:
    """The device asked for.

    Raises:
        InputError: there is no such device here.
    """
    name = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # AssertionError: a torch built without CUDA
        raise InputError(f"no device {name!r} here: {str(error).splitlines()[0]}") from error
    return device


def add_computing_options(parser: argparse.ArgumentParser) -> None:
    """Where and how a score matrix is computed."""
    group = parser.add_argument_group("computing")
    add_device_option(group)
    group.add_argument("--memory", type=_bytes, metavar="SIZE", help="for images and features, such as 512M or 4G")
    group.add_argument("--batch-size", type=int, metavar="N", help="at most N test images at once")
    group.add_argument("--workers", type=int, metavar="N", help="processes that decode images ahead")
    group.add_argument("--no-check", action="store_true", help="do not decode every image before the start")


def compute_scores(
    extractor: FeatureExtractor,
    data: IQADataset,
    args: argparse.Namespace,
    *,
    save: str | None,
    progress: bool,
    **options: Any,
) -> ScoreMatrix:
    """`score_matrix` as the options say; a finished file is never computed over.

    Raises:
        InputError: the file to save to is there already.
    """
    if save is not None and Path(save).is_file():
        raise InputError(f"{save} exists already; delete it to compute it anew, or give another name")
    return score_matrix(
        extractor,
        data,
        device=device_of(args),
        memory=args.memory,
        batch_size=args.batch_size,
        workers=args.workers,
        check=not args.no_check,
        save=save,
        progress=progress,
        **options,
    )


def kept_parts(save: str | Path | None) -> str:
    """After an interruption: what is kept, and how to go on."""
    if save is None:
        return "Nothing is kept; with --save-matrix FILE the next run could go on from here."
    parts = Path(f"{save}.parts")
    if not any(parts.glob("part-*")):
        return "No part was finished yet; the same command starts anew."
    return f"Finished parts are kept in {parts}; the same command goes on from there."


def _bytes(text: str) -> int:
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if match is None:
        raise argparse.ArgumentTypeError(f"expected a size such as 512M or 4G, got {text!r}")
    return int(float(match[1]) * 1024 ** "KMGT".index(match[2].upper()) * 1024) if match[2] else int(float(match[1]))
