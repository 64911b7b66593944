"""`fmiqa datasets`: the published sets that can be loaded, and whether a folder holds one of them."""

from __future__ import annotations

import argparse
import textwrap
from collections import Counter
from dataclasses import fields
from typing import Any

from fmiqa._tables import text_table
from fmiqa.cli import options
from fmiqa.cli.output import add_output_options, print_result, wants_progress
from fmiqa.datasets import CATALOGUE, CatalogueEntry, ImageDataset
from fmiqa.errors import DatasetError

_EXAMPLES = """\
examples:
  fmiqa datasets
  fmiqa datasets check csiq CSIQ/
  fmiqa datasets check tid2013 TID2013-R/ --partial --decode

A check reads the score tables and the header of every image, and lists all that is missing or wrong at once (exit code
1); with --decode it reads every image to its end. With --json all findings are printed, however many."""


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = options.new_command(
        commands,
        "datasets",
        "List the published data sets, or check a folder of one",
        _EXAMPLES,
        run,
        lambda _: "Nothing was written.",
    )
    parser.add_argument("action", nargs="?", choices=("check",), help="check a folder (default: list the sets)")
    parser.add_argument("key", nargs="?", choices=tuple(CATALOGUE), metavar="SET", help=", ".join(CATALOGUE))
    parser.add_argument("root", nargs="?", metavar="ROOT", help="its folder")
    check = parser.add_argument_group("with check")
    check.add_argument("--partial", action="store_true", help="a part of the set is enough")
    check.add_argument("--decode", action="store_true", help="read every image to its end, not its header alone")
    add_output_options(parser)


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    if args.action is None:
        given = [option for option in ("partial", "decode") if getattr(args, option)]
        if given:
            args.parser.error(f"{', '.join(f'--{option}' for option in given)}: only with check")
        _list(args)
    elif args.root is None:
        args.parser.error("check needs a set and its folder: fmiqa datasets check csiq CSIQ/")
    else:
        _check(args)


def _list(args: argparse.Namespace) -> None:
    head = ("", "set", "images", "references", "types", "scores as published")
    rows = [
        (entry.key, entry.name, *map(_number, (entry.images, entry.references, entry.distortions)), entry.scores)
        for entry in CATALOGUE.values()
    ]
    known = [field.name for field in fields(CatalogueEntry) if field.name not in ("key", "load")]
    print_result(
        args,
        {key: {name: getattr(entry, name) for name in known} for key, entry in CATALOGUE.items()},
        "\n\n".join([text_table([head, *rows]), *map(_paragraph, CATALOGUE.values())]),
    )


def _number(count: int | None) -> str:
    return "-" if count is None else str(count)


def _paragraph(entry: CatalogueEntry) -> str:
    """Where to get a set, on which terms, and what to cite."""
    indent = " " * (max(map(len, CATALOGUE)) + 2)
    lines = [f"from: {entry.available_from}", f"terms: {entry.terms}", f"cite: {entry.citation}"]
    wrapped = [
        textwrap.fill(line, 100, initial_indent=indent, subsequent_indent=f"{indent}  ", break_on_hyphens=False)
        for line in lines
    ]
    return entry.key + "\n".join(wrapped)[len(entry.key) :]


def _check(args: argparse.Namespace) -> None:
    entry = CATALOGUE[args.key]
    try:
        data = entry.load(args.root, partial=args.partial)
        if args.decode:
            data.check(progress=wants_progress(args))
    except DatasetError as error:
        if args.json:
            findings = error.problems or (str(error),)
            print_result(args, {"set": args.key, "root": args.root, "problems": findings}, "")
        raise
    result, text = _found(data)
    read = "every image decoded" if args.decode else "every image's header read"
    result = {"set": args.key, "root": args.root, "problems": [], **result, "decoded": args.decode}
    print_result(args, result, f"{text}\n\nnothing is missing or wrong; {read}")


def _found(data: ImageDataset) -> tuple[dict[str, Any], str]:
    """What a set holds: as a result, and as text."""
    types = Counter(data.distortions or ())
    raw = [record.raw_score for record in data.records if record.raw_score is not None]
    deviations = sum(record.score_std is not None for record in data.records)
    observers = 0 if data.ratings is None else data.ratings.shape[1]
    result = {
        "name": data.name,
        "images": len(data),
        "references": len(set(data.reference_ids)),
        "distortions": dict(types),
        "scores": [float(data.targets.min()), float(data.targets.max())],
        "published_scores": [min(raw), max(raw)],
        "deviations": deviations,
        "observers": observers,
    }
    more = [f"published scores {min(raw):g} to {max(raw):g}", f"standard deviations: {deviations or 'none'}"]
    more += [f"observers: {observers}"] * bool(observers)
    parts = [repr(data).strip("<>"), "; ".join(more)]
    if types:
        parts.append("\n" + text_table([("distortion type", "images"), *((t, str(n)) for t, n in types.items())]))
    return result, "\n".join(parts)
