"""What selections are worth on references, and on an experiment, that they have not seen.

    python benchmarks/generalisation.py --tid2013r TID2013-R/ --weights WEIGHTS/ --cache CACHE/ \
        [--jpegtid JPEGTID/ --references REFERENCES/] [--peers]

TID2013-R in folds of whole references; every procedure does all its choosing inside the training part. Score
matrices and peer scores are kept in CACHE and taken up again. Prints tables and writes results/generalisation.json.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from common import add_jpegtid_options, all_maps, jpegtid, kept_scores, lpips_alex, mean_and_error, score_all, store
from torch import Tensor
from tqdm import tqdm

import fmiqa
from fmiqa import ScoreMatrix, Selection
from fmiqa._tables import text_table
from fmiqa.evaluation.peers import PEERS, peer_scores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tid2013r", type=Path, required=True, help="folder in TID2013's layout")
    parser.add_argument("--weights", type=Path, required=True, help="folder of alexnet_ and squeezenet1_1_features.pth")
    parser.add_argument("--cache", type=Path, required=True, help="folder for score matrices and peers' scores")
    add_jpegtid_options(parser, required=False)
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
        "weighted, best of strengths and powers": (joined, widest),
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
        sizes = "/".join(str(len(maps)) for maps in result.selected)
        rows.append((name, sizes, *mean_and_error(result.plcc[:, -1]), *mean_and_error(result.srocc[:, -1])))
        figures[name] = {"maps": sizes, "plcc": result.plcc[:, -1].tolist(), "srocc": result.srocc[:, -1].tolist()}
    for name, values in peers(data, args.weights, args.cache / "peers.json", compute=args.peers).items():
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


def widest(scores: ScoreMatrix) -> Selection:
    """The weighted search without its preference for few maps, and with powers to choose from."""
    return fmiqa.weighted_select(scores, rule="best", powers=(1.0, 2.0, 3.0))


def peers(data: fmiqa.datasets.ImageDataset, weights: Path, cache: Path, *, compute: bool) -> dict[str, Tensor]:
    """The peers' scores of the data set, computed one metric at a time and kept."""

    def score(name: str) -> Tensor:
        return lpips_scores(data, weights) if name == "LPIPS-alex" else peer_scores(data, [name], progress=True)[name]

    classical = [name for name, peer in PEERS.items() if not peer.weights]
    return kept_scores(cache, (*classical, "LPIPS-alex") if compute else (), score)


@torch.inference_mode()
def lpips_scores(data: fmiqa.datasets.ImageDataset, weights: Path) -> Tensor:
    """(N,) LPIPS of its own package, on AlexNet, turned so that higher = better."""
    metric = lpips_alex(weights / "alexnet_features.pth")
    return torch.tensor(
        [-float(metric(s.distorted[None] / 127.5 - 1, s.reference[None] / 127.5 - 1)) for s in tqdm(data, desc="LPIPS")]
    ).double()


def transfer(args: argparse.Namespace, matrices: dict[str, ScoreMatrix], joined: ScoreMatrix) -> dict[str, object]:
    """Chosen on all of TID2013-R, judged on the JPEG experiment; only the logistic is fitted there."""
    data = jpegtid(args)
    there = score_all(data, args.weights, args.cache / "jpegtid")
    cases = {
        "weighted, 2 networks x 2 scales (default)": (fmiqa.weighted_select(joined), ScoreMatrix.concat(there)),
        "weighted, best of strengths and powers": (widest(joined), ScoreMatrix.concat(there)),
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


def vars_of(args: argparse.Namespace) -> dict[str, object]:
    """The options that decide the figures; paths do not."""
    return {"data": "TID2013-R", "folds": args.folds, "seed": args.seed, "resamples": args.resamples}


if __name__ == "__main__":
    main()
