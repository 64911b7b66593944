"""The paper's procedure under other measures: all maps and chosen ones, in sample and held out.

    python benchmarks/measures.py --tid2013r TID2013-R/ --weights WEIGHTS/ --cache CACHE/ [--images 100]

AlexNet on TID2013-R. In sample: maps chosen and judged on all images, as published. Held out: the same folds of whole
references for every measure, all choosing inside the training part. VIF needs maps of 41x41, which conv1 and conv2
have, and is slow: it is run on conv2, and SSIM on that layer stands beside it. Score matrices and figures are kept in
CACHE, and a stopped run goes on from them. Prints a table and writes results/measures.json.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from common import all_maps, mean_and_error, some_of, store

import fmiqa
from fmiqa import FeatureExtractor, ScoreMatrix, Selection
from fmiqa._io import write_whole
from fmiqa._tables import text_table
from fmiqa.measures import GMS, MSE, PSNR, SSIM, Measure, Piq
from fmiqa.selection import Split

SECOND = ["conv2"]
MEASURES: dict[str, tuple[Measure, list[str] | None]] = {
    "SSIM": (SSIM(), None),
    "MSE": (MSE(), None),
    "PSNR": (PSNR(), None),
    "PSNR, L of the reference map": (PSNR(data_range="reference"), None),
    "GMS": (GMS(), None),
    "HaarPSI (piq)": (Piq("HaarPSI"), None),
    "VIF (piq), conv2": (Piq("VIF"), SECOND),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tid2013r", type=Path, required=True, help="folder in TID2013's layout")
    parser.add_argument("--weights", type=Path, required=True, help="folder of alexnet_features.pth")
    parser.add_argument("--cache", type=Path, required=True, help="folder for score matrices")
    parser.add_argument("--images", type=int, default=0, help="only so many images, to try the script")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0, help="of the dealing of references to folds")
    args = parser.parse_args()

    whole = fmiqa.datasets.TID2013(args.tid2013r, partial=True, name="TID2013-R")
    data = some_of(whole, args.images)
    folder = args.cache / (f"measures-{args.images}" if args.images else "measures")
    matrices: dict[str, ScoreMatrix] = {}
    for name, (measure, layers) in MEASURES.items():
        path = folder / f"{name}.safetensors"
        if not path.exists():
            weights = args.weights / "alexnet_features.pth"
            extractor = FeatureExtractor("alexnet", weights=weights, layers=layers)
            fmiqa.score_matrix(extractor, data, measure=measure, save=path, progress=True)  # type: ignore[arg-type]
        matrices[name] = ScoreMatrix.load(path)
    ssim = matrices["SSIM"]
    matrices["SSIM, conv2"] = ssim.columns(m for m in ssim.maps if m.layer in SECOND)

    splits = fmiqa.grouped_folds(ssim.groups, folds=args.folds, seed=args.seed)
    kept = folder / f"figures-{args.folds}-{args.seed}.json"
    figures: dict[str, Any] = json.loads(kept.read_text()) if kept.exists() else {}
    held = ("held out PLCC", "± s.e.", "held out SROCC", "± s.e.")
    rows: list[tuple[str, ...]] = [("measure", "maps", "in sample PLCC", "in sample SROCC", *held)]
    for name, scores in matrices.items():
        for what, select in (("all", all_maps), ("chosen", fmiqa.forward_select)):
            case = f"{name}: {what} maps"
            if case not in figures:
                figures[case] = judged(scores, select, splits)
                write_whole(kept, json.dumps(figures).encode())
                print(f"{case}: done", flush=True)
            found = figures[case]
            inside = (f"{found['in_sample'][key]:.4f}" for key in ("plcc", "srocc"))
            outside = (torch.tensor(found["held_out"][key]) for key in ("plcc", "srocc"))
            errors = (text for values in outside for text in mean_and_error(values))
            rows.append((name, f"{what}, {found['maps']}", *inside, *errors))
    references = len(set(ssim.groups))
    print(f"\nTID2013-R: {len(ssim)} images of {references} references; {args.folds} folds of whole references")
    print(text_table(rows))
    if args.images:
        print("\na trial on some of the images: nothing is stored")
        return
    protocol = {"data": "TID2013-R", "images": len(ssim), "folds": args.folds, "seed": args.seed}
    print(f"\nwritten to {store('measures', {'protocol': protocol, 'cases': figures})}")


def judged(scores: ScoreMatrix, select: Callable[[ScoreMatrix], Selection], splits: Sequence[Split]) -> dict[str, Any]:
    """PLCC (fitted) and SROCC on the images that the maps were chosen on, and on those held out of each fold."""
    selection = select(scores)
    combined = selection.combine(scores)
    outside = fmiqa.held_out(scores, select, splits=splits)
    return {
        "measure": scores.options["measure"],
        "maps": len(selection),
        "chosen": [str(step.map) for step in selection.steps],
        "in_sample": {
            "plcc": float(fmiqa.plcc(combined, scores.targets)),
            "srocc": float(fmiqa.srocc(combined, scores.targets)),
        },
        "held_out": {
            "plcc": outside.plcc[:, -1].tolist(),
            "srocc": outside.srocc[:, -1].tolist(),
            "maps": [len(maps) for maps in outside.selected],
        },
    }


if __name__ == "__main__":
    main()
