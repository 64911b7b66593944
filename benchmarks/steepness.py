"""How steep the logistic of the non-linear PLCC may be: what a bound costs in sample, and what it is worth held out.

    python benchmarks/steepness.py SCORES.safetensors [--transfer OTHER.safetensors]

For each bound: forward selection with the fit bounded so, in sample; the same in folds of whole references, judged on
those held out; and, chosen on all of SCORES, judged on another data set of the same maps. Held-out figures are judged
alike for all bounds, by SROCC and by PLCC with the library's default. Writes results/steepness.json.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from unittest import mock

import torch
from common import mean_and_error, store

import fmiqa
from fmiqa._tables import text_table
from fmiqa.selection import criteria

BOUNDS = (2.0, 4.0, 6.0, 8.0, 10.0, 15.0, 20.0, 40.0, None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scores", type=Path, help="a score matrix")
    parser.add_argument("--transfer", type=Path, help="a score matrix of the same maps on another data set")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0, help="of the dealing of references to folds")
    args = parser.parse_args()

    scores = fmiqa.ScoreMatrix.load(args.scores)
    other = None if args.transfer is None else fmiqa.ScoreMatrix.load(args.transfer)
    splits = fmiqa.grouped_folds(scores.groups, folds=args.folds, seed=args.seed)
    rows: list[tuple[str, ...]] = [
        ("steepness", "maps", "PLCC in sample", "PLCC held out", "±", "SROCC held out", "±", "PLCC transfer", "SROCC")
    ]
    figures = []
    for bound in BOUNDS:
        with mock.patch.object(criteria, "STEEPNESS", bound):
            chosen = fmiqa.forward_select(scores)
            held = fmiqa.held_out(scores, fmiqa.forward_select, splits=splits)
        mean = scores.values[:, scores.maps.positions(chosen.maps)].double().mean(1)
        inside = float(fmiqa.fit_logistic(mean, scores.targets, steepness=bound).plcc)
        there: list[float] = []
        if other is not None:
            mean = other.values[:, other.maps.positions(chosen.maps)].double().mean(1)
            there = [float(f(mean, other.targets)) for f in (fmiqa.plcc, fmiqa.srocc)]
        figures.append(
            {
                "steepness": bound, "maps": len(chosen.maps), "in_sample": inside,
                "plcc": held.plcc[:, -1].tolist(), "srocc": held.srocc[:, -1].tolist(), "transfer": there,
            }
        )  # fmt: skip
        rows.append(
            (
                "none" if bound is None else f"{bound:g}", str(len(chosen.maps)), f"{inside:.4f}",
                *mean_and_error(held.plcc[:, -1]), *mean_and_error(held.srocc[:, -1]), *(f"{v:.4f}" for v in there),
            )
        )  # fmt: skip
        print(text_table([rows[0], rows[-1]]), flush=True)
    print(text_table(rows))
    content = {
        "dataset": scores.options.get("dataset"), "transfer": None if other is None else other.options.get("dataset"),
        "folds": args.folds, "seed": args.seed, "figures": figures,
    }  # fmt: skip
    print(f"written to {store('steepness', content, torch.device('cpu'))}")


if __name__ == "__main__":
    main()
