"""`fmiqa evaluate`: selected maps held against all maps and peers, and whether that is in sample."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, get_args

from fmiqa._tables import text_table
from fmiqa.cli import options
from fmiqa.cli.data import add_data_options, check_data_options, data_set
from fmiqa.cli.output import add_output_options, figure4, print_result, wants_progress
from fmiqa.cli.outputs import OutputFile
from fmiqa.cli.results import load_scores, networks_of, recorded_extractors
from fmiqa.correlation import Form
from fmiqa.datasets import IQADataset
from fmiqa.evaluation.claims import Coefficients, check_applicable, claim, coefficients, fit_options, quality_of
from fmiqa.evaluation.compare import compare
from fmiqa.evaluation.peers import PEERS, peer_scores
from fmiqa.measures import get_measure
from fmiqa.metrics import SelectedFeatureIQM
from fmiqa.scoring.matrix import ScoreMatrix, sources_of
from fmiqa.selection import Selection

_EXAMPLES = """\
examples:
  fmiqa evaluate --selection selected.json --matrix csiq.safetensors
  fmiqa evaluate --metric metric.safetensors --csv study.csv --weights alexnet.pth --peers SSIM GMSD
  fmiqa evaluate --selection selected.json --tid2013 TID2013/ --peers DeepWSD --weights squeezenet1_1=squeezenet.pth
  fmiqa evaluate --selection joined.json --matrix full=alexnet.safetensors half=alexnet-half.safetensors

PLCC and RMSE are computed after a logistic that is fitted to the judged images, separately for each row. Intervals are
those of a bootstrap over references. Differences are differences from the selected maps."""

_CHOSEN = "selected maps"


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = options.new_command(
        commands,
        "evaluate",
        "Compare selected maps with all maps",
        _EXAMPLES,
        run,
        lambda args: options.kept_parts(args.save_matrix),
    )
    chosen = parser.add_argument_group("selected maps (one of)").add_mutually_exclusive_group(required=True)
    chosen.add_argument("--selection", metavar="FILE", help="as `fmiqa select --out` writes it (.json)")
    chosen.add_argument("--metric", metavar="FILE", help="as `fmiqa select --metric` writes it (.safetensors)")
    data = add_data_options(parser)
    data.add_argument("--matrix", nargs="+", metavar="FILE", help="as `fmiqa matrix` writes it; several as NAME=FILE")
    parser.add_argument(
        "--peers",
        nargs="+",
        choices=PEERS,
        metavar="NAME",
        help=f"metrics to compare with: {', '.join(PEERS)}",
    )
    parser.add_argument(
        "--resamples",
        type=options.at_least(0),
        default=1000,
        metavar="N",
        help="resamples of references for intervals and paired differences (default: 1000, some 10 s per "
        "metric for 1500 images; 0: none)",
    )
    parser.add_argument(
        "--save-matrix",
        type=OutputFile,
        metavar="FILE",
        help="keep the data set's score matrix (an interrupted run resumes)",
    )
    parser.add_argument("--fit", choices=[*get_args(Form), "none"], help="default: the selection's, or logistic5")
    options.add_weights_options(parser)
    options.add_computing_options(parser)
    add_output_options(parser)


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    check_data_options(args)
    if args.matrix and (args.save_matrix or args.peers):
        args.parser.error(f"{'--save-matrix' if args.save_matrix else '--peers'}: only with a data set")
    chosen = Selection.load(args.selection) if args.selection else SelectedFeatureIQM.load(args.metric)
    what = args.selection or args.metric
    # A metric file says what its map scores depend on, not on which images its maps were selected, nor how.
    choice = chosen.options if isinstance(chosen, Selection) else {}
    weights = options.peer_weights(args, networks_of(chosen.source))
    data = None if args.matrix else data_set(args)
    scores = load_scores(args.matrix, args) if data is None else _computed(chosen.source, what, data, weights, args)
    check_applicable(chosen, scores, what)
    qualities = {_CHOSEN: quality_of(chosen, scores), "all maps": scores.pool(pool=chosen.pool)}
    maps = {_CHOSEN: len(chosen.maps), "all maps": len(scores.maps)}
    if data is not None and args.peers:
        qualities |= peer_scores(
            data, args.peers, weights=weights, device=options.device_of(args), progress=wants_progress(args)
        )
    judged = fit_options(choice, args.fit)
    rows = [coefficients(name, x, scores.targets, maps=maps.get(name), **judged) for name, x in qualities.items()]
    verdict = claim(chosen.source, choice.get("images"), scores)
    dataset, references = scores.options.get("dataset", "unnamed images"), len(set(scores.groups))
    heading = f"{dataset}: {len(scores)} images of {references} references"
    result = {
        "dataset": dataset,
        "images": len(scores),
        "references": references,
        "claim": asdict(verdict),
        "pool": chosen.pool,
        **judged,
        "results": [asdict(row) for row in rows],
    }
    text = f"{heading}\n{textwrap.fill(verdict.text, 100)}\n\n{coefficients_table(rows)}"
    if args.resamples and references > 1:
        compared = compare(
            qualities, scores.targets, scores.groups, baseline=_CHOSEN, fit=judged["fit"], resamples=args.resamples
        )
        result["comparison"] = compared.to_dict()
        text += f"\n\n{compared}"
        if judged["monotone"]:
            text += "\nUnlike those above, the fits behind intervals and differences may turn round."
    print_result(args, result, text)


def coefficients_table(rows: Sequence[Coefficients]) -> str:
    """Figures of metrics as lines of text."""
    head = ("", "maps", "PLCC", "SROCC", "KROCC", "RMSE")
    body = [
        (r.name, "" if r.maps is None else str(r.maps), *map(figure4, (r.plcc, r.srocc, r.krocc, r.rmse))) for r in rows
    ]
    return text_table([head, *body])


def _computed(
    source: Mapping[str, Any], what: str, data: IQADataset, others: Iterable[str], args: argparse.Namespace
) -> ScoreMatrix:
    """The data set's score matrix at the maps of each source of a result."""
    sources = sources_of(source)
    if args.save_matrix and len(sources) > 1:
        args.parser.error(
            f"--save-matrix: {what} is of several score matrices ({', '.join(sources)}); "
            "compute each with `fmiqa matrix`, and give them as --matrix NAME=FILE NAME=FILE"
        )
    matrices: dict[str, ScoreMatrix] = {}
    for name, extractor in recorded_extractors(source, what, args, others=others).items():
        matrices[name] = options.compute_scores(
            extractor,
            data,
            args,
            save=args.save_matrix,
            progress=wants_progress(args),
            check=not matrices,
            measure=get_measure(sources[name]["measure"]),
        )
    return matrices[""] if list(matrices) == [""] else ScoreMatrix.concat(matrices)
