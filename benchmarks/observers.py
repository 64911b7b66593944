"""Do people look at the same maps? Ten observers' own selections, judged on each other and on references held out.

    python benchmarks/observers.py --jpegtid JPEGTID/ --references REFERENCES/ --weights WEIGHTS/ --cache CACHE/ \
        [--plot observers.png]

Prints the tables and writes results/observers.json.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import torch
from common import add_jpegtid_options, jpegtid, score_all, store
from torch import Tensor

import fmiqa
from fmiqa._tables import text_table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_jpegtid_options(parser, required=True)
    parser.add_argument("--weights", type=Path, required=True, help="folder of alexnet_ and squeezenet1_1_features.pth")
    parser.add_argument("--cache", type=Path, required=True, help="folder for score matrices")
    parser.add_argument("--max-maps", type=int, default=5)
    parser.add_argument("--plot", type=Path, help="picture of the cross-prediction matrix")
    args = parser.parse_args()
    data = jpegtid(args)
    scores = score_all(data, args.weights, args.cache / "jpegtid")["alexnet"]
    ratings, names = read_ratings(args.jpegtid / "scores.csv")
    study = fmiqa.observer_study(scores, ratings, names=names, max_maps=args.max_maps)

    content: dict[str, object] = {"protocol": {"data": data.name, "folds": 5, "max_maps": args.max_maps}}
    for figure in ("plcc", "srocc"):
        table, gain = study.table(figure), study.own_advantage(figure)
        # Folds, not observers, are the repetitions: every fold judges all observers on the same held-out pictures.
        error = float(gain.std()) / len(gain) ** 0.5
        print(f"\n{figure.upper()}, {data.name}, AlexNet, 5 folds of whole references, up to {args.max_maps} maps")
        print(text_table(table))
        print(f"own maps against another observer's: {float(gain.mean()):+.4f} ± {error:.4f} (s.e. over folds)")
        content[figure] = {"table": table, "own_advantage_by_fold": gain.tolist()}
    between, within = study.stability_between.value, study.stability_within.value
    print(f"stability of the sets between observers {float(between.mean()):.3f}, of one over folds {within.mean():.3f}")
    content["stability"] = {"between_observers_by_fold": between.tolist(), "within_observers": within.tolist()}
    if args.plot:
        study.plot().figure.savefig(args.plot, dpi=110, bbox_inches="tight")
    print(f"written to {store('observers', content)}")


def read_ratings(path: Path) -> tuple[Tensor, list[str]]:
    """(N, O) the ratings of the columns observer_01, ..., and their names."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    names = [column for column in rows[0] if column.startswith("observer_")]
    return torch.tensor([[float(row[name]) for name in names] for row in rows]), [
        n.replace("observer_", "o") for n in names
    ]


if __name__ == "__main__":
    main()
