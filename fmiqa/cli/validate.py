"""`fmiqa validate`: what a selection is worth on references that it has not seen."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fmiqa._io import save_json
from fmiqa._runtime.distributed import is_first
from fmiqa._tables import text_table
from fmiqa.cli import options
from fmiqa.cli.figures import save_validation_figure
from fmiqa.cli.output import Written, add_output_options, figure4, print_result, wants_progress
from fmiqa.cli.outputs import OutputFile, OutputPicture
from fmiqa.cli.results import load_scores
from fmiqa.cli.searches import SEARCH_OPTIONS, SEARCHES, add_search_options, given_options, parameters_of
from fmiqa.scoring.matrix import ScoreMatrix
from fmiqa.selection import (
    HeldOut,
    StabilitySelection,
    Validation,
    cross_validate,
    grouped_folds,
    held_out,
    permutation_null,
    stability_selection,
)
from fmiqa.selection.validation import groups_of

_EXAMPLES = """\
examples:
  fmiqa validate tid2013.safetensors --out validation.json --plot validation.png
  fmiqa validate tid2013.safetensors --folds leave_one_out --null 199 --stability 100
  fmiqa validate full=alexnet.safetensors half=alexnet-half.safetensors --search weighted

The whole search is run anew in each fold, on the images of the other references. Of the forward search, figures are
given for every number of maps; --null and --stability ask whether there is anything in it, and which maps return."""

_KIND = "fmiqa held out 1"
_FORWARD = ("repeats", "null", "stability", "plot")  # what only the forward search has
_DEFAULT_MAX_MAPS = 20
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
        "--out", "-o", type=OutputFile, metavar="FILE", help="the figures and chosen maps of every fold (.json)"
    )
    files.add_argument("--plot", type=OutputPicture, metavar="FILE", help="of forward: the curves (.png, .svg, .pdf)")
    add_search_options(parser, most=str(_DEFAULT_MAX_MAPS))
    folds = parser.add_argument_group("validation")
    folds.add_argument("--folds", type=_folds, default=5, metavar="N|leave_one_out", help="default: 5")
    folds.add_argument("--repeats", type=options.at_least(1), metavar="N", help="of forward: deal anew (default: 1)")
    folds.add_argument(
        "--groups", choices=("reference", "distortion"), default="reference", help="held out whole (default: reference)"
    )
    folds.add_argument("--seed", type=int, default=0, help="of dealing, drawing and permuting (default: 0)")
    folds.add_argument("--null", type=options.at_least(1), metavar="N", help="of forward: also on N permuted scores")
    folds.add_argument("--stability", type=options.at_least(2), metavar="N", help="of forward: also on N subsamples")
    add_output_options(parser)


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    if not is_first():
        args.out = args.plot = None
    written = Written()
    forward = args.search == "forward"
    search = cross_validate if forward else SEARCHES[args.search]
    accepted = parameters_of(search)
    chosen = given_options(args, SEARCH_OPTIONS, accepted)
    given_options(args, _FORWARD, _FORWARD if forward else ())
    if "max_maps" in accepted:
        chosen.setdefault("max_maps", _DEFAULT_MAX_MAPS)
    scores = load_scores(args.scores, args)
    groups = groups_of(scores, args.groups, len(scores))
    dataset = scores.options.get("dataset", "unnamed images")
    result: dict[str, Any] = {
        "dataset": dataset,
        "images": len(scores),
        "references": len(set(scores.groups)),
        "search": args.search,
        "groups": args.groups,
        "folds": args.folds,
    }
    if forward:
        figures, text = _curves(scores, chosen, args, written)
    else:
        figures, text = _procedure(scores, groups, chosen, args, written)
    further, more = _further(scores, chosen, args)
    heading = (
        f"{dataset}: {len(scores)} images of {result['references']} references, {len(scores.maps)} maps\n"
        f"{args.search} search, held out by {args.groups} ({len(set(groups))} in all), folds: {args.folds}"
    )
    trust = textwrap.fill(
        f"Held out is the figure to trust: the maps were chosen without the {args.groups}s that they are judged on. "
        "In sample they are judged on the images that they were chosen on, which favours them.",
        100,
    )
    print_result(args, {**result, **figures, **further}, "\n\n".join([heading, text, trust, *more]), written)


def _curves(
    scores: ScoreMatrix, chosen: dict[str, Any], args: argparse.Namespace, written: Written
) -> tuple[dict[str, Any], str]:
    """The forward search at every number of maps: figures, and the same as text."""
    found: Validation = cross_validate(
        scores, groups=args.groups, folds=args.folds, repeats=args.repeats or 1, seed=args.seed, **chosen
    )
    if args.out:
        written.write("out", args.out, found.save)
    if args.plot:
        written.write("plot", args.plot, lambda path: save_validation_figure(path, found))
    curves = {
        "in_sample": found.in_sample.mean(0).tolist(),
        "held_out_plcc": found.mean.tolist(),
        "standard_error": found.standard_error.tolist(),
        "held_out_srocc": found.srocc.mean(0).tolist(),
    }
    small, best = found.one_standard_error_size, found.best_size
    sizes = {"one_standard_error_size": small, "best_size": best}
    every = {"plcc": float(found.all_plcc.mean()), "srocc": float(found.all_srocc.mean())}
    text = (
        f"{found}\n\n"
        f"one-standard-error size: {small}, the fewest maps within one standard error of the best held-out PLCC "
        f"({figure4(curves['held_out_plcc'][best - 1])} with {best})"
    )
    return {**curves, "all_maps": every, **sizes}, text


def _procedure(
    scores: ScoreMatrix, groups: Sequence[str], chosen: dict[str, Any], args: argparse.Namespace, written: Written
) -> tuple[dict[str, Any], str]:
    """Any other search, run to its own end: figures, and the same as text."""
    search = SEARCHES[args.search]
    if "groups" in parameters_of(search):
        chosen = {**chosen, "groups": args.groups}  # what it tunes, it tunes on folds of the same kind
    splits = grouped_folds(groups, folds=args.folds, seed=args.seed)
    found: HeldOut = held_out(scores, partial(search, **chosen), splits=splits, progress=wants_progress(args))
    inside = torch.tensor([selection.value for selection in found.selections], dtype=torch.float64, device="cpu")
    criterion = found.selections[0].options["criterion"].upper()
    figures = {
        "in_sample": _mean_and_error(inside),
        "held_out_plcc": _mean_and_error(found.plcc),
        "held_out_srocc": _mean_and_error(found.srocc),
        "maps": [len(selection) for selection in found.selections],
    }
    if args.out:
        content = {
            "selected": [[str(m) for m in selection.maps] for selection in found.selections],
            "in_sample": inside.tolist(),
            "plcc": found.plcc.tolist(),
            "srocc": found.srocc.tolist(),
            "predictions": dict(zip(scores.names, found.predictions.tolist(), strict=True)),
            "options": {
                "search": args.search,
                "groups": args.groups,
                "folds": args.folds,
                "seed": args.seed,
                **chosen,
                "source": scores.options,
            },
        }
        written.write("out", args.out, lambda path: save_json(path, _KIND, content))
    names = (f"in-sample {criterion}", "held-out PLCC", "held-out SROCC")
    rows = [(name, *map(figure4, pair)) for name, pair in zip(names, list(figures.values())[:3], strict=True)]
    low, high = min(figures["maps"]), max(figures["maps"])
    table = text_table([("", "mean", "± s.e."), *rows])
    return figures, f"{table}\n\nmaps chosen in a fold: {low if low == high else f'{low} to {high}'}"


def _further(scores: ScoreMatrix, chosen: dict[str, Any], args: argparse.Namespace) -> tuple[dict[str, Any], list[str]]:
    """Permutation null and stability, where asked for: figures, and the same as paragraphs."""
    figures: dict[str, Any] = {}
    texts = []
    shared = {"groups": args.groups, "seed": args.seed, "progress": wants_progress(args), **chosen}
    if args.null:
        null = permutation_null(scores, permutations=args.null, **shared)
        figures["null"] = {
            "observed": float(null.observed[-1]),
            "null": null.null[:, -1].tolist(),
            "p_value": null.p_value,
        }
        texts.append(textwrap.fill(str(null), 100))
    if args.stability:
        found: StabilitySelection = stability_selection(scores, subsamples=args.stability, **shared)
        frequency = dict(zip(map(str, found.maps), found.frequency.tolist(), strict=True))
        returning = {str(m): frequency[str(m)] for m in found.stable(0.5 / args.stability)}
        estimate = {name: float(getattr(found.stability, name)) for name in ("value", "low", "high")}
        figures["stability"] = {**estimate, "frequency": returning}
        head = f"stability over {args.stability} subsamples of half the {args.groups}s (Nogueira): "
        head += f"{estimate['value']:.3f} [{estimate['low']:.3f}, {estimate['high']:.3f}]; below .4 is poor"
        first = [(name, f"{share:.2f}") for name, share in list(returning.items())[:_MOST_FREQUENT]]
        texts.append(f"{head}\n{text_table([('map', 'share of subsamples'), *first])}")
    return figures, texts


def _mean_and_error(values: Tensor) -> tuple[float, float]:
    """Mean over folds and its standard error."""
    return float(values.mean()), float(values.std() / len(values) ** 0.5)


def _folds(text: str) -> int | str:
    if text == "leave_one_out":
        return text
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a number or leave_one_out, got {text!r}") from None
