"""Held-out agreement against cost, and small sets that stand for all maps without any subjective score.

    python benchmarks/cost_curve.py --tid2013r TID2013-R/ --weights WEIGHTS/ --cache CACHE/

TID2013-R in five folds of whole references; the weighted search among AlexNet's maps at full and half scale within
shares of the multiplications of all of them. Distilled sets are selected by forward selection with alpha 0 on the
training references, and held against the consensus on the others. Prints tables, writes results/cost_curve.json and
docs/images/cost_curve.png.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import torch
from common import score_all, store
from tqdm import tqdm

import fmiqa
from fmiqa import Costs, ScoreMatrix
from fmiqa._plotting import new_figure, save_figure
from fmiqa._tables import text_table
from fmiqa.selection.splits import mean_and_error

BUDGETS = (0.03, 0.06, 0.12, 0.25, 0.5, 1.0)
SIZES = (4, 8, 16, 32)
PICTURE = Path(__file__).parent.parent / "docs" / "images" / "cost_curve.png"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tid2013r", type=Path, required=True, help="folder in TID2013's layout")
    parser.add_argument("--weights", type=Path, required=True, help="folder of alexnet_ and squeezenet1_1_features.pth")
    parser.add_argument("--cache", type=Path, required=True, help="folder for score matrices")
    args = parser.parse_args()
    data = fmiqa.datasets.TID2013(args.tid2013r, partial=True, name="TID2013-R")
    parts = score_all(data, args.weights, args.cache / "tid2013r")
    two_scales = ScoreMatrix.concat({name: parts[name] for name in ("alexnet", "alexnet-half")})
    curve = held_out_by_cost(two_scales)
    distilled = distil(ScoreMatrix.concat(parts))
    draw(curve)
    print(f"written to {store('cost_curve', {'curve': curve, 'distilled': distilled})}")


def held_out_by_cost(scores: ScoreMatrix) -> list[dict[str, Any]]:
    """The held-out figures within each budget."""
    costs = Costs.of_matrix(scores)
    found = []
    for budget in tqdm(BUDGETS, desc="budgets"):
        search = partial(fmiqa.weighted_select, budget=budget)
        result = fmiqa.cross_validate(scores, search=search)
        shares = [costs.share(maps) for maps in result.selected]
        (plcc, error), (srocc, _) = (mean_and_error(v[:, -1]) for v in (result.plcc, result.srocc))
        found.append(
            {
                "budget": budget,
                "share": max(shares),
                "layers": sorted({m.place for maps in result.selected for m in maps}),
                "plcc": float(plcc),
                "error": float(error),
                "srocc": float(srocc),
                "all_maps_plcc": float(result.all_plcc.mean()),
            }
        )
    rows = [("budget", "share taken", "PLCC", "± s.e.", "SROCC")]
    rows += [tuple(f"{f[k]:.3f}" for k in ("budget", "share", "plcc", "error", "srocc")) for f in found]
    print(f"\nHeld out by reference, within a share of the multiplications of all maps\n{text_table(rows)}")
    return found


def distil(scores: ScoreMatrix) -> list[dict[str, Any]]:
    """Sets of some sizes that follow the consensus, on references that they were not selected on."""
    consensus = scores.pool()
    search = partial(fmiqa.forward_select, prior="consensus", alpha=0.0, fit=None)
    found = []
    splits = fmiqa.grouped_folds(scores.groups, folds=5)
    for size in SIZES:
        figures = []
        for split in splits:
            combined = search(scores.rows(split.train), max_maps=size).combine(scores)[split.held_out]
            y, c = scores.targets[split.held_out], consensus[split.held_out]
            linear = float(torch.corrcoef(torch.stack([combined, c]))[0, 1])
            figures.append([linear, *(float(f(v, y)) for v in (combined, c) for f in (fmiqa.plcc, fmiqa.srocc))])
        means = torch.tensor(figures).mean(0).tolist()
        names = ("correlation with the consensus", "plcc", "srocc", "consensus_plcc", "consensus_srocc")
        found.append({"maps": size, **dict(zip(names, means, strict=True))})
    rows = [("maps", "r with the consensus", "PLCC", "SROCC", "consensus PLCC", "SROCC")]
    rows += [(str(f["maps"]), *(f"{v:.3f}" for v in list(f.values())[1:])) for f in found]
    print(f"\nDistilled without subjective scores, held out by reference\n{text_table(rows)}")
    return found


def draw(curve: list[dict[str, Any]]) -> None:
    figure = new_figure(6.4, 4.0)
    ax = figure.subplots()
    x = [point["share"] for point in curve]
    ax.errorbar(
        x, [p["plcc"] for p in curve], yerr=[p["error"] for p in curve], marker="o", capsize=3, label="selected"
    )
    ax.axhline(curve[0]["all_maps_plcc"], linestyle="--", color="0.4", label="all maps (cost 1)")
    ax.set_xscale("log")
    ax.set_xlabel("share of the multiplications of all maps")
    ax.set_ylabel("held-out PLCC")
    ax.set_title("TID2013-R, AlexNet at two scales, held out by reference")
    ax.legend(loc="lower right")
    save_figure(figure, str(PICTURE))


if __name__ == "__main__":
    main()
