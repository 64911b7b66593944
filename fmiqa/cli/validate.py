"""`fmiqa validate`: what a selection is worth on references that it has not seen."""

from __future__ import annotations

import argparse
import textwrap
from typing import Any

from fmiqa._plotting import new_figure, save_figure
from fmiqa._runtime.compiled import compiling
from fmiqa._runtime.distributed import is_first
from fmiqa._tables import text_table
from fmiqa.cli import options
from fmiqa.cli.output import Written, add_output_options, print_result, wants_progress
from fmiqa.cli.outputs import OutputFile, OutputPicture
from fmiqa.cli.results import load_scores
from fmiqa.cli.searches import add_search_options, asked_search
from fmiqa.scoring.matrix import ScoreMatrix
from fmiqa.selection import SearchOptions, Validation, cross_validate, permutation_null, stability_selection
from fmiqa.selection.splits import groups_of, mean_and_error

_EXAMPLES = """\
examples:
  fmiqa validate tid2013.safetensors --out validation.json --plot validation.png
  fmiqa validate tid2013.safetensors --folds leave_one_out --null 199 --stability 100
  fmiqa validate tid2013.safetensors --groups distortion --folds leave_one_out
  fmiqa validate tid2013.safetensors csiq.safetensors --groups dataset --folds leave_one_out
  fmiqa validate full=alexnet.safetensors half=alexnet-half.safetensors --search weighted

The whole search is repeated in each fold, on the images of the other references. For forward search, figures are given
for every number of maps. --null asks whether the selection is better than chance, --stability which maps return.
Leaving distortion types or data sets out one by one shows on which that a selection has not seen it is worse than all
maps."""

_MOST_FREQUENT = 10


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = options.new_command(
        commands,
        "validate",
        "Judge a search on references that it has not seen",
        _EXAMPLES,
        run,
        lambda _: "Only files that were finished are kept; fewer --folds, or --max-maps, make it shorter.",
    )
    parser.add_argument("scores", nargs="+", metavar="SCORES", help="as `fmiqa matrix` writes it: FILE or NAME=FILE")
    files = parser.add_argument_group("files to write")
    files.add_argument(
        "--out", "-o", type=OutputFile, metavar="FILE", help="the figures and selected maps of every fold (.json)"
    )
    files.add_argument("--plot", type=OutputPicture, metavar="FILE", help="the curves of forward search (.png, .pdf)")
    add_search_options(parser)
    options.add_device_option(parser)
    options.add_compile_option(parser)
    folds = parser.add_argument_group("validation")
    folds.add_argument("--folds", type=_folds, default=5, metavar="N|leave_one_out", help="default: 5")
    folds.add_argument(
        "--repeats",
        type=options.at_least(1),
        default=1,
        metavar="N",
        help="deal the groups N times (default: 1)",
    )
    folds.add_argument(
        "--groups",
        choices=("reference", "distortion", "dataset"),
        default="reference",
        help="held out whole (default: reference)",
    )
    folds.add_argument("--seed", type=int, default=0, help="seed of all random numbers (default: 0)")
    folds.add_argument("--null", type=options.at_least(1), metavar="N", help="also search on N permuted scores")
    folds.add_argument("--stability", type=options.at_least(2), metavar="N", help="also search on N subsamples")
    add_output_options(parser)


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    with compiling(args.compile):
        _run(args)


def _run(args: argparse.Namespace) -> None:
    if args.plot and args.search != "forward":
        args.parser.error(f"--plot: not with --search {args.search}, which has no curve by number of maps")
    if not is_first():
        args.out = args.plot = None
    search = asked_search(args, groups=args.groups)  # what a search tunes, it tunes on folds of the same kind
    scores = load_scores(args.scores, args).to(options.device_of(args))
    how: dict[str, Any] = {"groups": args.groups, "seed": args.seed, "progress": wants_progress(args)}
    if args.search == "forward":
        how["options"] = SearchOptions(**search.keywords)
    else:
        how["search"] = search
    found = cross_validate(scores, folds=args.folds, repeats=args.repeats, **how)
    written = Written()
    if args.out:
        written.write("out", args.out, found.save)
    if args.plot:
        figure = new_figure(6.4, 4.0)
        found.plot(figure.subplots())
        written.write("plot", args.plot, lambda path: save_figure(figure, path))
    further, more = _further(scores, how, args)
    dataset, references = scores.options.get("dataset", "unnamed images"), len(set(scores.groups))
    groups = len(set(groups_of(scores, args.groups, len(scores))))
    heading = (
        f"{dataset}: {len(scores)} images of {references} references, {len(scores.maps)} maps\n"
        f"{args.search} search, held out by {args.groups} ({groups} in all), folds: {args.folds}"
    )
    notes = [textwrap.fill(note, 100) for note in found.notes]
    result = {
        "dataset": dataset,
        "images": len(scores),
        "references": references,
        "search": args.search,
        "groups": args.groups,
        "folds": args.folds,
        **_figures(found),
        **_by_type(found),
        **further,
    }
    tables = [text_table(rows) for rows in found.tables().values()]
    print_result(args, result, "\n\n".join([heading, *tables, *notes, *more]), written)


def _figures(found: Validation) -> dict[str, Any]:
    """The figures of a validation: by number of maps, or of whole sets with their standard errors."""
    every: dict[str, Any] = {"plcc": float(found.all_plcc.mean()), "srocc": float(found.all_srocc.mean())}
    if found.grows:
        return {
            "in_sample": found.in_sample.mean(0).tolist(),
            "held_out_plcc": found.mean.tolist(),
            "standard_error": found.standard_error.tolist(),
            "held_out_srocc": found.srocc.mean(0).tolist(),
            "all_maps": every,
            "one_standard_error_size": found.one_standard_error_size,
            "best_size": found.best_size,
        }
    columns = {"in_sample": found.in_sample, "held_out_plcc": found.plcc, "held_out_srocc": found.srocc}
    means = {name: [float(v) for v in mean_and_error(values[:, -1])] for name, values in columns.items()}
    return {**means, "all_maps": every, "maps": [len(maps) for maps in found.selected]}


def _by_type(found: Validation) -> dict[str, Any]:
    """What each distortion type or data set shows that was left out alone."""
    kind = found.options["groups"]
    if kind not in ("distortion", "dataset") or not found.leaves_one_out:
        return {}
    columns = (found.plcc[:, -1], found.all_plcc, found.srocc[:, -1], found.all_srocc)
    names = ("plcc", "all_maps_plcc", "srocc", "all_maps_srocc")
    rows = zip(found.held_out, *(column.tolist() for column in columns), strict=True)
    return {f"by_{kind}": {group: dict(zip(names, figures, strict=True)) for (group,), *figures in rows}}


def _further(scores: ScoreMatrix, how: dict[str, Any], args: argparse.Namespace) -> tuple[dict[str, Any], list[str]]:
    """Permutation null and stability, where asked for: figures, and the same as paragraphs."""
    figures: dict[str, Any] = {}
    texts = []
    if args.null:
        null = permutation_null(scores, permutations=args.null, **how)
        figures["null"] = {
            "observed": float(null.observed[-1]),
            "null": null.null[:, -1].tolist(),
            "p_value": null.p_value,
        }
        texts.append(textwrap.fill(str(null), 100))
    if args.stability:
        found = stability_selection(scores, subsamples=args.stability, **how)
        frequency = dict(zip(map(str, found.maps), found.frequency.tolist(), strict=True))
        returning = {str(m): frequency[str(m)] for m in found.stable(0.5 / args.stability)}
        estimate = {name: float(getattr(found.stability, name)) for name in ("value", "low", "high")}
        figures["stability"] = {**estimate, "frequency": returning}
        texts.append(f"{found.notes[0]}\n{text_table(found.table()[: _MOST_FREQUENT + 1])}")
    return figures, texts


def _folds(text: str) -> int | str:
    if text == "leave_one_out":
        return text
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a number or leave_one_out, got {text!r}") from None
