"""`fmiqa transfer`: maps selected on each data set, judged on every other."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any, get_args

from fmiqa._io import printable
from fmiqa._plotting import new_figure, save_figure
from fmiqa._runtime.distributed import is_first
from fmiqa.cli import options
from fmiqa.cli.output import Written, add_output_options, print_result, wants_progress
from fmiqa.cli.outputs import OutputFile, OutputPicture
from fmiqa.evaluation import cross_dataset
from fmiqa.pooling import Pool
from fmiqa.scoring.matrix import ScoreMatrix

_EXAMPLES = """\
examples:
  fmiqa transfer tid2013.safetensors csiq.safetensors --out transfer.json --plot transfer.png
  fmiqa transfer paper/tid2013-alexnet/scores.safetensors paper/csiq-alexnet/scores.safetensors
  fmiqa transfer near=cidiq50.safetensors far=cidiq100.safetensors

All matrices must be of the same network and measure. Rows name the data set that maps were selected on, columns the one
that they are judged on. The diagonal is in sample; --folds N (default 5) adds the held-out figure."""


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = options.new_command(
        commands,
        "transfer",
        "Select maps on each of several data sets, and judge them on every other",
        _EXAMPLES,
        run,
        lambda _: (
            "Only files that were finished are kept; --max-maps makes selections shorter, "
            "--folds 0 leaves out the held-out figures."
        ),
    )
    parser.add_argument(
        "scores",
        nargs="+",
        metavar="SCORES",
        help="as `fmiqa matrix` writes it: FILE (named as its data set) or NAME=FILE",
    )
    files = parser.add_argument_group("files to write")
    files.add_argument("--out", "-o", type=OutputFile, metavar="FILE", help="the figures and the selected maps (.json)")
    files.add_argument("--plot", type=OutputPicture, metavar="FILE", help="the heat map of PLCC (.png, .svg, .pdf)")
    parser.add_argument("--pool", choices=get_args(Pool), default="mean", help="how the maps' scores are combined")
    parser.add_argument("--max-maps", type=options.at_least(1), metavar="N", help="stop at N maps (default: none)")
    parser.add_argument(
        "--folds",
        type=options.at_least(0),
        default=5,
        metavar="N",
        help="folds for held-out figures; 0 for none (default: 5)",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the dealing of references to folds (default: 0)")
    add_output_options(parser)


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    matrices: dict[str, ScoreMatrix] = {}
    for name, path in map(options.named_file, args.scores):
        scores = ScoreMatrix.load(path)
        name = name or str(scores.options.get("dataset") or printable(Path(path).stem))
        if name in matrices:
            args.parser.error(f"two score matrices go by the name {name!r}; give names: NAME={path}")
        matrices[name] = scores
    found = cross_dataset(
        matrices,
        pool=args.pool,
        max_maps=args.max_maps,
        folds=args.folds or None,
        seed=args.seed,
        progress=wants_progress(args),
    )
    if not is_first():
        return
    written = Written()
    if args.out:
        written.write("out", args.out, found.save)
    if args.plot:
        size = len(matrices)
        figure = new_figure(3.4 + 1.4 * size, 1.6 + 0.85 * (size + 1))
        found.plot(figure.subplots())
        written.write("plot", args.plot, partial(save_figure, figure))
    print_result(args, found.to_dict(), str(found), written)
