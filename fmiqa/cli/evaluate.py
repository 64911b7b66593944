"""`fmiqa evaluate`: chosen maps held against all maps, and whether that is in sample."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, get_args

from torch import Tensor

from fmiqa.cli import options
from fmiqa.cli.output import add_output_options, figure4, print_result, wants_progress
from fmiqa.cli.results import Agreement, agreement, check_same_computation, claim, judging, recorded_extractor
from fmiqa.correlation import Form
from fmiqa.measures import get_measure
from fmiqa.metrics import SelectedFeatureIQM
from fmiqa.pooling import pool_scores
from fmiqa.scores import ScoreMatrix
from fmiqa.selection import Selection
from fmiqa.tables import text_table

_EXAMPLES = """\
examples:
  fmiqa evaluate --selection selected.json --matrix csiq.safetensors
  fmiqa evaluate --metric metric.safetensors --csv study.csv --weights alexnet.pth

PLCC and RMSE are those after a logistic fitted on the images judged, for each row its own."""


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = options.new_command(
        commands,
        "evaluate",
        "Hold chosen maps against all maps",
        _EXAMPLES,
        run,
        lambda args: options.kept_parts(args.save_matrix),
    )
    chosen = parser.add_argument_group("chosen maps (one of)").add_mutually_exclusive_group(required=True)
    chosen.add_argument("--selection", metavar="FILE", help="as `fmiqa select --out` writes it (.json)")
    chosen.add_argument("--metric", metavar="FILE", help="as `fmiqa select --metric` writes it (.safetensors)")
    data = options.add_data_options(parser)
    data.add_argument("--matrix", metavar="FILE", help="score matrix, as `fmiqa matrix` writes it")
    parser.add_argument("--save-matrix", metavar="FILE", help="keep the data set's score matrix (and go on if stopped)")
    parser.add_argument("--fit", choices=[*get_args(Form), "none"], help="default: the selection's, or logistic5")
    options.add_weights_options(parser)
    options.add_computing_options(parser)
    add_output_options(parser)


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    options.check_data_options(args)
    if args.matrix and args.save_matrix:
        args.parser.error("--save-matrix: only with a data set")
    chosen = Selection.load(args.selection) if args.selection else SelectedFeatureIQM.load(args.metric)
    what = args.selection or args.metric
    # A metric file says what its map scores depend on, not on which images its maps were chosen, nor how.
    choice = chosen.options if isinstance(chosen, Selection) else {}
    source = chosen.source
    if args.matrix:
        scores = ScoreMatrix.load(args.matrix)
    else:
        data = options.data_set(args)
        extractor = recorded_extractor(source, what, args)
        scores = options.compute_scores(
            extractor,
            data,
            args,
            save=args.save_matrix,
            progress=wants_progress(args),
            measure=get_measure(source["measure"]),
        )
    check_same_computation(source, scores, what)
    qualities = {
        "selected maps": (len(chosen.maps), _quality(chosen, scores)),
        "all maps": (len(scores.maps), scores.pool(pool=chosen.pool)),
    }
    judged = judging(choice, args.fit)
    rows = [agreement(name, maps, x, scores.targets, **judged) for name, (maps, x) in qualities.items()]
    verdict = claim(source, choice.get("images"), scores)
    dataset, references = scores.options.get("dataset", "unnamed images"), len(set(scores.groups))
    heading = f"{dataset}: {len(scores)} images of {references} references"
    print_result(
        args,
        {
            "dataset": dataset,
            "images": len(scores),
            "references": references,
            "claim": asdict(verdict),
            "pool": chosen.pool,
            **judged,
            "results": [asdict(row) for row in rows],
        },
        f"{heading}\n{textwrap.fill(verdict.text, 100)}\n\n{agreement_table(rows)}",
    )


def agreement_table(rows: Sequence[Agreement]) -> str:
    """Agreements as lines of text."""
    head = ("", "maps", "PLCC", "SROCC", "KROCC", "RMSE")
    body = [(r.name, str(r.maps), *map(figure4, (r.plcc, r.srocc, r.krocc, r.rmse))) for r in rows]
    return text_table([head, *body])


def _quality(chosen: Selection | SelectedFeatureIQM, scores: ScoreMatrix) -> Tensor:
    """(N,) the images' scores at the chosen maps combined."""
    if isinstance(chosen, Selection):
        return chosen.combine(scores)
    values = scores.columns(chosen.maps).values.double()
    return pool_scores(values, chosen.maps, pool=chosen.pool, weights=chosen.weights, power=chosen.power)
