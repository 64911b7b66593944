"""`fmiqa merge`: the shards of a score matrix become one file."""

from __future__ import annotations

import argparse
import os
from typing import Any

from fmiqa.cli import options
from fmiqa.cli.output import add_output_options, print_result
from fmiqa.cli.outputs import OutputFile
from fmiqa.scoring.shards import find_shards, merge_shards

_EXAMPLES = """\
examples:
  fmiqa merge --out study.safetensors
  fmiqa merge study.shard-*.safetensors --out study.safetensors --remove

The result has the same bits as that of one `fmiqa matrix` without --shard. Where shards are missing, damaged or of
another run, they are named, and nothing is written. Neither images nor weights are needed. A file that was merged
before is left as it is, if the shards agree with it."""


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = options.new_command(
        commands,
        "merge",
        "Merge the shards of a score matrix into one file",
        _EXAMPLES,
        run,
        lambda _: "The same command merges the shards.",
    )
    parser.add_argument("shards", nargs="*", metavar="SHARD", help="shard files (default: all that lie beside --out)")
    parser.add_argument(
        "--out", "-o", type=OutputFile, required=True, metavar="FILE", help="score matrix to write (.safetensors)"
    )
    parser.add_argument("--remove", action="store_true", help="remove the shards afterwards (default: they stay)")
    add_output_options(parser)


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    shards = args.shards or [str(file) for file in find_shards(args.out)]
    before = os.path.isfile(args.out)
    scores = merge_shards(args.out, shards, remove=args.remove)
    counts = {"images": len(scores), "references": len(set(scores.groups)), "maps": len(scores.maps)}
    done = f"{args.out} was there already and is left as it is" if before else f"written to {args.out}"
    print_result(
        args,
        {"file": args.out, "shards": shards, "merged": not before, **counts, "options": scores.options},
        f"{scores.options['dataset']}: {counts['images']} images of {counts['references']} references, "
        f"{counts['maps']} maps of {scores.options['network']}, from {len(shards)} shards"
        f"{', which are removed now' if args.remove and shards else ''}\n{done}",
    )
