"""`fmiqa evaluate`: chosen maps held against all maps, and whether that is in sample."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, get_args

from fmiqa.cli import options
from fmiqa.cli.output import add_output_options, figure4, print_result, wants_progress
from fmiqa.cli.results import Agreement, agreement, check_same_computation, claim, judging, recorded_extractor
from fmiqa.correlation import Form
from fmiqa.maps import MapIndex
from fmiqa.measures import get_measure
from fmiqa.metrics import SelectedFeatureIQM
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
    maps, choice, source = _chosen(args)
    what = args.selection or args.metric
    if args.matrix:
        scores = ScoreMatrix.load(args.matrix)
    else:
        extractor = recorded_extractor(source, what, args)
        scores = options.compute_scores(
            extractor,
            options.data_set(args),
            args,
            save=args.save_matrix,
            progress=wants_progress(args),
            measure=get_measure(source["measure"]),
        )
    check_same_computation(source, scores, what)
    judged = judging(choice, args.fit)
    rows = [agreement(name, scores, m, **judged) for name, m in (("selected maps", maps), ("all maps", scores.maps))]
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
            **judged,
            "results": [asdict(row) for row in rows],
        },
        f"{heading}\n{verdict.text}\n\n{agreement_table(rows)}",
    )


def agreement_table(rows: Sequence[Agreement]) -> str:
    """Agreements as lines of text."""
    head = ("", "maps", "PLCC", "SROCC", "KROCC", "RMSE")
    body = [(r.name, str(r.maps), *map(figure4, (r.plcc, r.srocc, r.krocc, r.rmse))) for r in rows]
    return text_table([head, *body])


def _chosen(args: argparse.Namespace) -> tuple[MapIndex, dict[str, Any], dict[str, Any]]:
    """The maps, how they were chosen (as far as known), and from what."""
    if args.selection:
        selection = Selection.load(args.selection)
        return selection.maps, selection.options, selection.source
    metric = SelectedFeatureIQM.load(args.metric)
    extractor = metric.scorer.extractor
    source = {
        "network": extractor.network_name,
        "weights_sha256": extractor.weights_sha256,
        "stage": extractor.stage,
        "measure": metric.scorer.measure.options(),
    }
    return metric.maps, {"pool": metric.pool}, source
