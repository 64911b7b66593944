"""What selections are worth on references, distortion types, observers and pictures that they have not seen.

    python benchmarks/robustness.py --tid2013r TID2013-R/ --live19 LIVE-R19/ --jpegtid JPEGTID/ \
        --references REFERENCES/ --weights WEIGHTS/ --cache CACHE/ [--peers]

Three protocols on TID2013-R: folds of whole references, each distortion type left out, and transfer to LIVE-R19 and to
the JPEG experiment; and the selection made on LIVE-R19 judged on TID2013-R. Everything that a procedure chooses, it
chooses on the images that it is given; the logistic of the PLCC is fitted where it is judged, as for any metric. The
networks see pictures with a shorter side of 384 pixels. Peers see them as they are, and, with `@384`, at that size.
Prints the table and writes results/robustness.json. Figures that were computed are kept in CACHE/robustness.json and
taken up again, as are score matrices and peers' scores: remove that file after any change of the library or of the
procedures below.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from common import EXPERIMENTS, add_experiments_options, all_maps, experiments, kept_scores, score_all, store
from torch import Tensor
from tqdm import tqdm

import fmiqa
from fmiqa import ScoreMatrix, Selection, Viewing
from fmiqa._io import write_whole
from fmiqa._tables import text_table
from fmiqa.evaluation.peers import PEERS, peer_scores
from fmiqa.selection import Split
from fmiqa.selection.splits import mean_and_error

HOME = "TID2013-R"
HEAD = ("", "maps", "by reference", "", "by type", "", "worst type", "LIVE-R19", "", "JPEG", "", "LIVE -> TID", "")

Search = Callable[[ScoreMatrix], Selection]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_experiments_options(parser)
    parser.add_argument("--peers", action="store_true", help="compute peers that CACHE lacks")
    args = parser.parse_args()

    data = experiments(args)
    parts = {name: score_all(own, args.weights, args.cache / EXPERIMENTS[name]) for name, own in data.items()}
    joined = {name: ScoreMatrix.concat(own) for name, own in parts.items()}
    alexnet = {name: ScoreMatrix.concat({"alexnet": own["alexnet"]}) for name, own in parts.items()}
    two = {
        network: {
            name: ScoreMatrix.concat({s: m for s, m in own.items() if network in s}) for name, own in parts.items()
        }
        for network in ("alexnet", "squeezenet")
    }
    home = joined[HOME]
    splits = {
        "reference": fmiqa.grouped_folds(home.groups, folds=5),
        "type": fmiqa.grouped_folds(home.distortions or (), folds="leave_one_out"),
    }
    types = [(home.distortions or [])[int(split.held_out[0])] for split in splits["type"]]

    before = partial(
        fmiqa.weighted_select,
        prior=None,
        powers=(1.0,),
        rule="one_standard_error",
        strengths=(0.3, 0.2, 0.12, 0.08, 0.05, 0.03),
    )
    procedures: dict[str, tuple[dict[str, ScoreMatrix], Search]] = {
        "weighted_select (the default)": (joined, fmiqa.weighted_select),
        "weighted, no prior": (joined, partial(fmiqa.weighted_select, prior=None)),
        "weighted as before (no prior, power 1, fewest maps)": (joined, before),
        "weighted, AlexNet": (alexnet, fmiqa.weighted_select),
        "weighted, AlexNet at two scales": (two["alexnet"], fmiqa.weighted_select),
        "weighted, SqueezeNet at two scales": (two["squeezenet"], fmiqa.weighted_select),
        "forward_select (the paper's), AlexNet": (alexnet, fmiqa.forward_select),
        "forward_select, prior with alpha .75, AlexNet": (
            alexnet,
            partial(fmiqa.forward_select, prior="consensus", alpha=0.75),
        ),
        "all maps, AlexNet": (alexnet, all_maps),
        "all maps, both networks and scales (consensus)": (joined, all_maps),
    }
    kept = args.cache / "robustness.json"
    known: dict[str, Any] = json.loads(kept.read_text()) if kept.exists() else {}
    figures = {name: known[name] for name in procedures if name in known}
    for name, (matrices, search) in procedures.items():
        if name not in figures:
            figures[name] = judged(matrices, search, splits, name)
            write_whole(kept, json.dumps({**known, **figures}).encode())
    for name, scores in peers(data, args).items():
        figures[name] = judged_peer(scores, {n: m.targets for n, m in joined.items()}, splits)
    every = figures["all maps, AlexNet"]["by type"]
    rows = [row(name, figure, every) for name, figure in figures.items()]
    print(text_table([HEAD, *rows]))
    print(
        "PLCC and SROCC; by reference: mean and standard error over 5 folds; by type: mean over types left out; "
        "(!n): on n of them below all maps of AlexNet"
    )
    default = next(iter(procedures))
    below = [t for t, own, other in zip(types, figures[default]["by type"], every, strict=True) if own[0] < other[0]]
    print(f"{default}: types below all maps: {', '.join(below) or 'none'}")
    if "several data sets" not in known:
        write_whole(kept, json.dumps({**figures, "several data sets": several(joined)}).encode())
        known = json.loads(kept.read_text())
    together = known["several data sets"]
    show_several(together)
    print(f"written to {store('robustness', {'types': types, 'figures': figures, 'several data sets': together})}")


def both(scores: Tensor, targets: Tensor) -> list[float]:
    return [float(fmiqa.plcc(scores, targets)), float(fmiqa.srocc(scores, targets))]


def judged(
    matrices: dict[str, ScoreMatrix], search: Search, splits: dict[str, list[Split]], name: str
) -> dict[str, Any]:
    """All figures of a procedure."""
    home = matrices[HOME]
    found: dict[str, Any] = {}
    for kind, own in splits.items():
        selections = [search(home.rows(split.train)) for split in tqdm(own, desc=f"{name} by {kind}")]
        found[f"by {kind}"] = [
            both(selection.combine(home)[split.held_out], home.targets[split.held_out])
            for selection, split in zip(selections, own, strict=True)
        ]
        found[f"maps by {kind}"] = [len(selection) for selection in selections]
    chosen = search(home)
    found["maps"] = [str(m) for m in chosen.maps] if len(chosen) < 200 else len(chosen)
    for other in ("LIVE-R19", "jpegtid"):
        found[other] = both(chosen.combine(matrices[other]), matrices[other].targets)
    found["LIVE -> TID"] = both(search(matrices["LIVE-R19"]).combine(home), home.targets)
    return found


def judged_peer(
    scores: dict[str, Tensor], targets: dict[str, Tensor], splits: dict[str, list[Split]]
) -> dict[str, Any]:
    """The figures of a metric that selects nothing."""
    y = targets[HOME]
    found: dict[str, Any] = {
        f"by {kind}": [both(scores[HOME][s.held_out], y[s.held_out]) for s in own] for kind, own in splits.items()
    }
    for other in ("LIVE-R19", "jpegtid"):
        found[other] = both(scores[other], targets[other])
    return found


def peers(data: dict[str, fmiqa.datasets.ImageDataset], args: argparse.Namespace) -> dict[str, dict[str, Tensor]]:
    """The scores of each peer on each data set; LIVE-R19 also at the size that the networks see."""
    files = {"squeezenet1_1": "squeezenet1_1_features.pth", "alexnet": "alexnet_features.pth"}
    names = [name for name in PEERS if name != "DISTS"]  # its network, VGG16, is not at hand

    def compute(own: fmiqa.datasets.ImageDataset, viewing: Viewing | None, name: str) -> Tensor:
        given = {network: args.weights / files[network] for network in PEERS[name].weights if network in files}
        return peer_scores(own, [name], weights=given or None, viewing=viewing, progress=True)[name]

    kept = {}
    for name, own in data.items():
        path = args.cache / f"peers-{EXPERIMENTS[name]}.json"
        kept[name] = kept_scores(path, names if args.peers else (), partial(compute, own, None))
    seen = args.cache / "peers-live19-384.json"
    resized = kept_scores(
        seen, names if args.peers else (), partial(compute, data["LIVE-R19"], Viewing(short_side=384))
    )
    found = {}
    for name in kept[HOME]:
        if all(name in own for own in kept.values()):
            found[name] = {other: own[name] for other, own in kept.items()}
            if name in resized:
                found[f"{name} @384"] = {**found[name], "LIVE-R19": resized[name]}
    return found


def row(name: str, figure: dict[str, Any], every: list[list[float]]) -> tuple[str, ...]:
    by_reference, by_type = (torch.tensor(figure[f"by {kind}"]) for kind in ("reference", "type"))
    cells = ["{:.3f} ± {:.3f}".format(*(float(v[column]) for v in mean_and_error(by_reference))) for column in (0, 1)]
    below = int((by_type[:, 0] < torch.tensor(every)[:, 0]).sum())
    worst = int(by_type[:, 0].argmin())
    cells += [f"{float(by_type[:, 0].mean()):.3f}" + f" (!{below})" * bool(below), f"{float(by_type[:, 1].mean()):.3f}"]
    cells.append(f"{float(by_type[worst, 0]):.3f}")
    for other in ("LIVE-R19", "jpegtid", "LIVE -> TID"):
        cells += [f"{value:.3f}" for value in figure.get(other, ())] or ["", ""]
    sizes = figure.get("maps by reference")
    return (name, "" if sizes is None else f"{min(sizes)} to {max(sizes)}", *cells)


def several(joined: dict[str, ScoreMatrix]) -> dict[str, Any]:
    """Selections on TID2013-R, on LIVE-R19 and on both, judged on left-out references of each.

    LIVE-R19 shows the scenes of some of TID2013's references. The references of a fold are left out of both by scene.
    """
    one, other = joined[HOME], joined["LIVE-R19"]
    stacked = ScoreMatrix.stack({HOME: one, "LIVE-R19": other})
    scenes = scenes_of(stacked.groups)
    splits = fmiqa.grouped_folds(scenes, folds=5)
    own = torch.tensor([name == HOME for name in stacked.datasets or ()])
    found: dict[str, Any] = {}
    for name, mask in {"on TID2013-R": own, "on LIVE-R19": ~own, "on both": torch.ones_like(own)}.items():
        figures: dict[str, list[list[float]]] = {HOME: [], "LIVE-R19": []}
        for split in tqdm(splits, desc=name):
            train = split.train[mask[split.train]]
            seen = stacked.rows(train)
            combined = fmiqa.weighted_select(seen, groups=scenes_of(seen.groups)).combine(stacked)
            for judged_on, where in ((HOME, own), ("LIVE-R19", ~own)):
                rows = split.held_out[where[split.held_out]]
                figures[judged_on].append(both(combined[rows], stacked.targets[rows]))
        found[name] = figures
    return found


def show_several(found: dict[str, Any]) -> None:
    rows = [("selected", "TID2013-R PLCC", "SROCC", "LIVE-R19 PLCC", "SROCC")]
    for name, figures in found.items():
        means = [f"{float(v):.3f}" for judged_on in figures.values() for v in torch.tensor(judged_on).mean(0)]
        rows.append((name, *means))
    print(
        f"\nSeveral data sets, judged on references left out of both, mean over 5 folds of scenes\n{text_table(rows)}"
    )


# The references of TID2013 that show the scenes of LIVE's.
SCENES = {
    "bikes": "i05", "buildings": "i08", "caps": "i03", "house": "i22", "lighthouse": "i19", "lighthouse2": "i21",
    "ocean": "i16", "paintedhouse": "i24", "parrots": "i23", "plane": "i20", "rapids": "i14", "sailing1": "i06",
    "sailing2": "i09", "sailing3": "i10", "sailing4": "i11", "statue": "i17", "stream": "i13", "woman": "i18",
    "womanhat": "i04",
}  # fmt: skip


def scenes_of(groups: list[str]) -> list[str]:
    """The scene of each image."""
    return [SCENES.get(Path(group).stem.lower(), Path(group).stem.lower()) for group in groups]


if __name__ == "__main__":
    main()
