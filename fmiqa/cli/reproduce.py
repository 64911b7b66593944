"""`fmiqa reproduce`: the paper's tables, on the data sets that are on disk."""

from __future__ import annotations

import argparse
import contextlib
import sys
from typing import Any, get_args

from fmiqa._runtime.distributed import is_first
from fmiqa.cli import options
from fmiqa.cli.output import Written, add_output_options, print_result, wants_progress
from fmiqa.cli.outputs import OutputFolder
from fmiqa.datasets import CATALOGUE, ImageDataset
from fmiqa.features.tracing import Stage
from fmiqa.pooling import Pool
from fmiqa.reproduction import PUBLISHED, TABLES, Reproduction, reproduce

_EXAMPLES = """\
examples:
  fmiqa reproduce table1 --tid2013 TID2013/ --csiq CSIQ/ --cidiq50 CIDIQ/ --cidiq100 CIDIQ/ --out paper/
  fmiqa reproduce table2 --tid2013 TID2013/ --weights vgg16.pth --out paper/
  fmiqa reproduce table1 --tid2013 TID2013-R/ --partial --name tid2013=TID2013-R --out paper/

The table shows our figures beside the published ones: in sample, as published, and held out in folds of whole
references. Data sets that are not given are listed as not on disk. A part of a set, or a set of another name, gets a
row of its own without published figures. OUT gets the table (.md, .json, .png), a picture of the selected maps, and a
folder for each data set and network with its score matrix, selection and folds, from which an interrupted run
resumes."""

_KEYS = tuple(PUBLISHED["alexnet"])


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = options.new_command(
        commands,
        "reproduce",
        "Compute the paper's tables again, in sample as published and held out",
        _EXAMPLES,
        run,
        lambda args: f"What is finished is kept in {args.out}; the same command goes on from there.",
    )
    parser.add_argument("table", choices=TABLES, help="table1: AlexNet, table2: VGG16")
    parser.add_argument(
        "--out",
        "-o",
        type=OutputFolder,
        required=True,
        metavar="FOLDER",
        help="the folder for the table and all that it is made of",
    )
    data = parser.add_argument_group("data sets on disk")
    for key in _KEYS:
        data.add_argument(f"--{key}", metavar="ROOT", help=f"folder of {CATALOGUE[key].name}")
    data.add_argument("--partial", action="store_true", help="accept a part of a set")
    data.add_argument(
        "--name",
        action="append",
        type=_named_key,
        default=[],
        metavar="SET=NAME",
        help="the name of a set in every result, such as tid2013=TID2013-R (a re-rendered TID2013 is not TID2013)",
    )
    options.add_weights_options(parser)
    parser.add_argument(
        "--stage", choices=get_args(Stage), default="relu", help="take maps after the ReLU, or before it"
    )
    parser.add_argument("--layers", nargs="+", metavar="LAYER", help="only these layers, such as conv1 conv2")
    parser.add_argument("--pool", choices=get_args(Pool), default="mean", help="how the maps' scores are combined")
    parser.add_argument("--folds", type=options.at_least(2), default=5, metavar="N", help="default: 5")
    options.add_computing_options(parser)
    add_output_options(parser)


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    roots = {key: root for key in _KEYS if (root := getattr(args, key)) is not None}
    names = dict(args.name)
    if not roots:
        args.parser.error(f"no data set: give {', '.join(f'--{key}' for key in _KEYS)}, or some of them")
    if set(names) - set(roots):
        args.parser.error(f"--name {', '.join(sorted(set(names) - set(roots)))}=...: only of a set that is given")
    network = TABLES[args.table]
    options.check_weights_options(args, [network], args.table)
    given = options.weights_given(args, network)
    words: dict[str, str | None] = {"default": "DEFAULT", "random": None}
    data = {k: CATALOGUE[k].load(root, partial=args.partial, name=names.get(k)) for k, root in roots.items()}
    with contextlib.redirect_stdout(sys.stderr):  # torchvision announces a download on standard output
        found = _reproduced(args, data, words.get(given, given))
    written = Written()
    if is_first():
        written.write("table", args.out, found.write)
    files = {kind: str(path) for kind, path in found.files(args.out).items()} if written.files else {}
    text = f"{found}\n\nwritten to {', '.join(files.values())}" if files else str(found)
    print_result(args, {**found.to_dict(), "files": files}, text, written)


def _reproduced(args: argparse.Namespace, data: dict[str, ImageDataset], weights: str | None) -> Reproduction:
    return reproduce(
        args.table,
        data,
        weights=weights,
        stage=args.stage,
        layers=args.layers,
        pool=args.pool,
        folds=args.folds,
        seed=args.seed,
        out=args.out,
        write=False,
        progress=wants_progress(args),
        device=options.device_of(args),
        memory=args.memory,
        batch_size=args.batch_size,
        workers=args.workers,
        check=not args.no_check,
        compile=args.compile,
    )


def _named_key(text: str) -> tuple[str, str]:
    key, _, name = text.partition("=")
    if key not in _KEYS or not name:
        raise argparse.ArgumentTypeError(f"expected SET=NAME, SET one of {', '.join(_KEYS)}, got {text!r}")
    return key, name
