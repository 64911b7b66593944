"""What selections are worth on references, and on an experiment, that they have not seen.

    python benchmarks/generalisation.py --tid2013r TID2013-R/ --weights WEIGHTS/ --cache CACHE/ \
        [--jpegtid scores.csv --references REFERENCES/ --distorted DISTORTED/] [--peers]

TID2013-R in folds of whole references; every procedure does all its choosing inside the training part. Score
matrices and peer scores are kept in CACHE and taken up again. Prints tables and writes results/generalisation.json.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from common import store
from torch import Tensor

import fmiqa
from fmiqa import FeatureExtractor, ScoreMatrix, Selection, Viewing
from fmiqa.peers import PEERS, peer_scores
from fmiqa.tables import text_table

SOURCES = {
    "alexnet": ("alexnet", Viewing()),
    "alexnet-half": ("alexnet", Viewing(factor=0.5)),
    "squeezenet": ("squeezenet1_1", Viewing()),
    "squeezenet-half": ("squeezenet1_1", Viewing(factor=0.5)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tid2013r", type=Path, required=True, help="folder in TID2013's layout")
    parser.add_argument("--weights", type=Path, required=True, help="folder of alexnet_ and squeezenet1_1_features.pth")
    parser.add_argument("--cache", type=Path, required=True, help="folder for score matrices and peers' scores")
    parser.add_argument("--jpegtid", type=Path, help="table of the JPEG experiment")
    parser.add_argument("--references", type=Path, help="its reference images")
    parser.add_argument("--distorted", type=Path, help="its test images")
    parser.add_argument("--peers", action="store_true", help="compute peers that CACHE lacks (about 1 s an image)")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0, help="of the dealing of references to folds")
    parser.add_argument("--resamples", type=int, default=400, help="of the bootstrap over references")
    args = parser.parse_args()

    data = fmiqa.datasets.TID2013(args.tid2013r, partial=True, name="TID2013-R")
    matrices = score_all(data, args.weights, args.cache / "tid2013r")
    joined = ScoreMatrix.concat(matrices)
    splits = fmiqa.grouped_folds(joined.groups, folds=args.folds, seed=args.seed)

    procedures = {
        "weighted, 2 networks x 2 scales (default)": (joined, fmiqa.weighted_select),
        "weighted, AlexNet": (ScoreMatrix.concat({"alexnet": matrices["alexnet"]}), fmiqa.weighted_select),
        "forward, AlexNet (the paper's)": (matrices["alexnet"], fmiqa.forward_select),
        "all maps, AlexNet": (matrices["alexnet"], all_maps),
    }
    rows: list[tuple[str, ...]] = [("held out by reference", "maps", "PLCC", "± s.e.", "SROCC", "± s.e.")]
    predictions: dict[str, Tensor] = {}
    figures = {}
    for name, (scores, select) in procedures.items():
        result = fmiqa.held_out(scores, select, splits=splits, progress=True)
        predictions[name] = result.predictions
        sizes = "/".join(str(len(s)) for s in result.selections)
        rows.append((name, sizes, *mean_and_error(result.plcc), *mean_and_error(result.srocc)))
        figures[name] = {"maps": sizes, "plcc": result.plcc.tolist(), "srocc": result.srocc.tolist()}
    for name, values in peers(data, args.cache / "peers.json", compute=args.peers).items():
        predictions[name] = values
        each = [
            (fmiqa.plcc(values[s.held_out], data.targets[s.held_out]), srocc(values, data.targets, s)) for s in splits
        ]
        plccs, sroccs = torch.tensor(each, dtype=torch.float64).T
        rows.append((name, "", *mean_and_error(plccs), *mean_and_error(sroccs)))
        figures[name] = {"plcc": plccs.tolist(), "srocc": sroccs.tolist()}
    print(f"\n{data.name}, {args.folds} folds of whole references, seed {args.seed}; mean over held-out folds")
    print(text_table(rows))

    comparison = fmiqa.compare(
        predictions, data.targets, joined.groups, baseline=next(iter(procedures)), resamples=args.resamples
    )
    print(f"\nAll held-out predictions pooled, against the default; bootstrap over references\n{comparison}")
    content = {"protocol": vars_of(args), "folds": figures, "comparison": comparison.to_dict()}
    if args.jpegtid:
        content["transfer"] = transfer(args, matrices, joined)
    print(f"\nwritten to {store('generalisation', content)}")


def score_all(data: fmiqa.datasets.ImageDataset, weights: Path, cache: Path) -> dict[str, ScoreMatrix]:
    """A score matrix for each network and scale, from the cache where it is there."""
    found = {}
    for source, (network, viewing) in SOURCES.items():
        path = cache / f"{source}.safetensors"
        if not path.exists():
            extractor = FeatureExtractor(network, weights=weights / f"{network}_features.pth", viewing=viewing)
            fmiqa.score_matrix(extractor, data, save=path, progress=True)
        found[source] = ScoreMatrix.load(path)
    return found


def all_maps(scores: ScoreMatrix) -> Selection:
    """No choice at all."""
    combined = scores.pool()
    fit = fmiqa.fit_logistic(combined, scores.targets)
    return Selection(scores.maps, (), float(fit.plcc), {"search": "none", "pool": "mean"}, scores.options, fit)


def peers(data: fmiqa.datasets.ImageDataset, cache: Path, *, compute: bool) -> dict[str, Tensor]:
    """The peers' scores of the data set, computed one metric at a time and kept."""
    kept = json.loads(cache.read_text()) if cache.exists() else {}
    for name in PEERS if compute else ():
        if name not in kept:
            kept[name] = peer_scores(data, [name], progress=True)[name].tolist()
            cache.write_text(json.dumps(kept))
    return {name: torch.tensor(values, dtype=torch.float64) for name, values in kept.items()}


def transfer(args: argparse.Namespace, matrices: dict[str, ScoreMatrix], joined: ScoreMatrix) -> dict[str, object]:
    """Chosen on all of TID2013-R, judged on the JPEG experiment; only the logistic is fitted there."""
    data = fmiqa.datasets.CSVDataset(
        args.jpegtid, reference="ref", distorted="dist", score="mos", name="jpegtid",
        reference_root=args.references, distorted_root=args.distorted,
    )  # fmt: skip
    there = score_all(data, args.weights, args.cache / "jpegtid")
    cases = {
        "weighted, 2 networks x 2 scales (default)": (fmiqa.weighted_select(joined), ScoreMatrix.concat(there)),
        "forward, AlexNet (the paper's)": (fmiqa.forward_select(matrices["alexnet"]), there["alexnet"]),
        "all maps, AlexNet": (all_maps(matrices["alexnet"]), there["alexnet"]),
    }
    rows: list[tuple[str, ...]] = [("TID2013-R -> jpegtid", "maps", "PLCC", "SROCC")]
    figures: dict[str, object] = {}
    for name, (selection, scores) in cases.items():
        combined = selection.combine(scores)
        values = (float(fmiqa.plcc(combined, scores.targets)), float(fmiqa.srocc(combined, scores.targets)))
        rows.append((name, str(len(selection)), *(f"{v:.4f}" for v in values)))
        figures[name] = {"maps": [str(m) for m in selection.maps], "plcc": values[0], "srocc": values[1]}
    print(f"\nTransfer: {len(data)} JPEG images, other observers, the same reference pictures\n{text_table(rows)}")
    return figures


def srocc(values: Tensor, targets: Tensor, split: fmiqa.selection.Split) -> Tensor:
    return fmiqa.srocc(values[split.held_out], targets[split.held_out])


def mean_and_error(values: Tensor) -> tuple[str, str]:
    return f"{values.mean():.4f}", f"{values.std() / len(values) ** 0.5:.4f}"


def vars_of(args: argparse.Namespace) -> dict[str, object]:
    """The options that decide the figures; paths do not."""
    return {"data": "TID2013-R", "folds": args.folds, "seed": args.seed, "resamples": args.resamples}


if __name__ == "__main__":
    main()
