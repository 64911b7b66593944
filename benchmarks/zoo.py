"""Make the ready-made metrics: select their maps, measure what they are worth and cost, and write cards and weights.

    python benchmarks/zoo.py --tid2013r TID2013-R/ --live19 LIVE-R19/ --jpegtid JPEGTID/ --references REFERENCES/ \
        --weights WEIGHTS/ --cache CACHE/ [--only fast] [--check]

Maps are selected on TID2013-R alone; LIVE-R19 and the JPEG experiment have decided the prior's share, but no map.
`--check` writes nothing: it selects again and says whether that gives the maps and weights that ship.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from common import EXPERIMENTS, add_experiments_options, experiments, machine, score_all
from measuring import MIB, PeakMemory, alternate, in_fresh_process, start
from torch import Tensor

import fmiqa
from fmiqa import FeatureExtractor, ScoreMatrix, Selection
from fmiqa._io import save_tensors, write_whole
from fmiqa.selection.splits import mean_and_error
from fmiqa.zoo.card import FOLDER, Card
from fmiqa.zoo.ready import WEIGHTS_KIND, ReadyMetric, metric_of

LICENCE = "BSD-3-Clause (torchvision's ImageNet weights, see NOTICE)"
SIZE = (384, 512)


@dataclass(frozen=True)
class Recipe:
    """How a metric is made.

    Args:
        summary: What it is for.
        select: The search, of a score matrix with all sources.
        bundled: Whether its weights ship.
        protocol: The search in words.
    """

    summary: str
    select: Callable[[ScoreMatrix], Selection]
    bundled: bool
    protocol: str


def early_layers(scores: ScoreMatrix) -> Selection:
    """The weighted search among the first layers of both networks, towards the consensus of all maps.

    With alpha at .75, these layers fall below all maps on LIVE-R19.
    """
    first = {"alexnet": ("conv1", "conv2"), "squeezenet-half": ("features.0", "features.3")}
    exclude = [m for m in scores.maps if not m.layer.startswith(first.get(m.source, "none"))]
    return fmiqa.weighted_select(scores, alpha=0.65, exclude=exclude)


def paper(scores: ScoreMatrix) -> Selection:
    """Forward selection among the maps of AlexNet at full scale, without any prior."""
    return fmiqa.forward_select(scores, exclude=[m for m in scores.maps if m.source != "alexnet"])


RECIPES = {
    "fast": Recipe(
        "light, works offline: first layers of AlexNet and SqueezeNet, with weights in the package",
        early_layers,
        True,
        "weighted_select (prior consensus, alpha .65) among conv1 and conv2 of AlexNet and, at half scale, the layers "
        "of SqueezeNet 1.1 up to features.3",
    ),
    "accurate": Recipe(
        "the best on held-out references and distortion types: AlexNet and SqueezeNet at two scales",
        fmiqa.weighted_select,
        False,
        "weighted_select (prior consensus, alpha .75) among all maps of AlexNet and SqueezeNet 1.1 at full and half "
        "scale",
    ),
    "paper": Recipe(
        "the paper's procedure: forward selection among AlexNet's maps",
        paper,
        False,
        "forward_select among all maps of AlexNet",
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_experiments_options(parser)
    parser.add_argument("--only", nargs="+", choices=tuple(RECIPES), default=tuple(RECIPES))
    parser.add_argument("--cost", action="store_true", help="measure only the cost again, of the metrics that ship")
    parser.add_argument("--check", action="store_true", help="compare with what ships, and write nothing")
    args = parser.parse_args()
    if args.cost:
        for name in args.only:
            measure_again(Card.load(name), args.weights)
        return

    joined = {
        name: ScoreMatrix.concat(score_all(own, args.weights, args.cache / EXPERIMENTS[name]))
        for name, own in experiments(args).items()
    }
    for name in args.only:
        selection = RECIPES[name].select(joined["TID2013-R"])
        if args.check:
            check(name, selection)
        else:
            write(name, selection, joined, args.weights)


def check(name: str, selection: Selection) -> None:
    """Raise unless a selection is the one that ships."""
    shipped = Card.load(name).selection
    if selection.maps != shipped.maps:
        raise SystemExit(f"{name}: other maps than those that ship: {selection.maps} and {shipped.maps}")
    if selection.weights is not None and shipped.weights is not None:
        # Coordinate descent stops at weights that are right to 1e-4 of a standard deviation.
        torch.testing.assert_close(
            selection.weights, shipped.weights, rtol=1e-2, atol=1e-3 * float(shipped.weights.max())
        )
    print(f"{name}: the {len(selection)} maps that ship")


def write(name: str, selection: Selection, joined: dict[str, ScoreMatrix], weights: Path) -> None:
    """Validate a selection, measure its metric, and write its files."""
    recipe, home = RECIPES[name], joined["TID2013-R"]
    by_reference = fmiqa.cross_validate(home, search=recipe.select, progress=True)
    by_type = fmiqa.cross_validate(
        home, search=recipe.select, groups="distortion", folds="leave_one_out", progress=True
    )
    alexnet = [m for m in home.maps if m.source == "alexnet"]
    figures = [
        in_sample(selection, home, alexnet),
        held_out(by_reference, home, alexnet, "5 folds of whole references"),
    ]
    figures.append(held_out(by_type, home, alexnet, "each distortion type left out, mean"))
    worst = int(by_type.plcc[:, -1].argmin())
    figures.append(
        {
            "protocol": f"the worst type left out ({by_type.held_out[worst][0]})",
            "data": "TID2013-R",
            "plcc": float(by_type.plcc[worst, -1]),
            "srocc": float(by_type.srocc[worst, -1]),
            "all_maps_plcc": float(all_of(home, alexnet, by_type)[worst]),
        }
    )
    for other in ("LIVE-R19", "jpegtid"):
        figures.append(transfer(selection, joined[other], alexnet, other))
    used = {m.source for m in selection.maps}
    chosen = replace(
        selection,
        options={k: v for k, v in selection.options.items() if k != "exclude"},  # thousands of names; `data` says it
        source={
            "dataset": "TID2013-R",
            "references": selection.source["references"],
            "sources": {source: selection.sources[source] for source in selection.sources if source in used},
        },
    )
    card = Card(
        name=name,
        version="1.0",
        summary=recipe.summary,
        bundled=recipe.bundled,
        viewing={"short_side": 384},
        data={
            "images": f"TID2013-R: {len(home)} images of {len(set(home.groups))} references, "
            f"{len(set(home.distortions or ()))} of TID2013's 24 distortion types rendered again, TID2013's MOS",
            "search": recipe.protocol,
        },
        figures=tuple(figures),
        cost={},
        scale=scale(selection, by_reference, home),
        licence=LICENCE,
        made_with=f"python benchmarks/zoo.py --only {name} (fmiqa {fmiqa.__version__})",
        content=chosen.to_dict(),
    )
    metric = measure_again(card, weights)
    if recipe.bundled:
        save_weights(FOLDER / f"{name}.safetensors", metric)


def measure_again(card: Card, weights: Path) -> ReadyMetric:
    """Measure what the metric of a card costs, and write the card."""
    files = {network: weights / f"{network}_features.pth" for network in ("alexnet", *card.networks)}
    metric = metric_of(replace(card, bundled=False), files)  # the files of the package may not be there yet
    card = replace(card, cost=cost(metric, FeatureExtractor("alexnet", weights=files["alexnet"])))
    write_whole(FOLDER / f"{card.name}.json", (json.dumps(card.to_dict(), indent=1) + "\n").encode())
    write_whole(FOLDER / f"{card.name}.md", card.markdown().encode())
    print(card.markdown())
    return metric


def save_weights(path: Path, metric: ReadyMetric) -> None:
    """Save the filters that a metric runs: of the last layer of each network, only those of its maps."""
    whole: dict[str, Tensor] = {}
    rows: dict[str, set[int]] = {}
    for scorer in metric.scorers:
        extractor = scorer.extractor
        filters = {operation.target: operation.filters for operation in extractor.operations(scorer.asked)}
        for key, value in extractor.network.state_dict().items():
            name = f"{extractor.network_name}/{key}"
            whole[name] = value
            chosen = filters.get(key.rpartition(".")[0])
            rows.setdefault(name, set()).update(range(len(value)) if chosen is None else chosen)
    kept = {name: value[sorted(rows[name])] for name, value in whole.items()}
    parts = {name: {"rows": sorted(rows[name]), "of": len(v)} for name, v in whole.items() if len(rows[name]) < len(v)}
    save_tensors(path, WEIGHTS_KIND, kept, {"licence": LICENCE, "parts": parts})


def in_sample(selection: Selection, scores: ScoreMatrix, alexnet: list[fmiqa.FeatureMap]) -> dict[str, object]:
    combined, every = selection.combine(scores), scores.pool(alexnet)
    return {
        "protocol": "IN SAMPLE",
        "data": "TID2013-R",
        "plcc": float(fmiqa.plcc(combined, scores.targets)),
        "srocc": float(fmiqa.srocc(combined, scores.targets)),
        "all_maps_plcc": float(fmiqa.plcc(every, scores.targets)),
    }


def transfer(
    selection: Selection, scores: ScoreMatrix, alexnet: list[fmiqa.FeatureMap], name: str
) -> dict[str, object]:
    return {**in_sample(selection, scores, alexnet), "protocol": "transfer", "data": name}


def all_of(scores: ScoreMatrix, alexnet: list[fmiqa.FeatureMap], found: fmiqa.Validation) -> Tensor:
    """(F,) PLCC of all of AlexNet's maps on what each fold of a validation held out."""
    groups = scores.distortions if found.options["groups"] == "distortion" else scores.groups
    every, figures = scores.pool(alexnet), []
    for held in found.held_out:
        rows = torch.tensor([group in held for group in groups or ()])
        figures.append(fmiqa.plcc(every[rows], scores.targets[rows]))
    return torch.stack(figures)


def held_out(
    found: fmiqa.Validation, scores: ScoreMatrix, alexnet: list[fmiqa.FeatureMap], protocol: str
) -> dict[str, object]:
    (plcc, plcc_error), (srocc, srocc_error) = (mean_and_error(v[:, -1]) for v in (found.plcc, found.srocc))
    return {
        "protocol": protocol,
        "data": "TID2013-R",
        "plcc": float(plcc),
        "plcc_error": float(plcc_error),
        "srocc": float(srocc),
        "srocc_error": float(srocc_error),
        "all_maps_plcc": float(all_of(scores, alexnet, found).mean()),
    }


def scale(selection: Selection, found: fmiqa.Validation, scores: ScoreMatrix) -> dict[str, object]:
    """What turns a quality into a rating: see `ReadyMetric.rate`."""
    assert found.predictions is not None
    fit = fmiqa.fit_logistic(selection.combine(scores), scores.targets, form="logistic4")
    residuals = scores.targets - found.predictions
    ends = residuals.quantile(torch.tensor([0.05, 0.95], dtype=residuals.dtype))
    return {
        "fit": fit.to_dict(),
        "low": float(scores.targets.min()),
        "high": float(fit.predict(torch.ones(1, dtype=torch.float64))),
        "residuals": ends.tolist(),
    }


def cost(metric: ReadyMetric, alexnet: FeatureExtractor) -> dict[str, object]:
    """Multiplications, time and memory, beside those of all maps of AlexNet."""
    every = fmiqa.AllFeatureIQM(alexnet)
    everything = fmiqa.Costs.of_network(alexnet, SIZE).all
    own = sum(fmiqa.Costs.of_network(scorer.extractor, SIZE).all for scorer in metric.scorers)
    test, reference = torch.rand(2, 1, 3, *SIZE, generator=torch.Generator().manual_seed(0))

    def run(iqm: fmiqa.SelectedFeatureIQM) -> Tensor:
        with torch.inference_mode():
            return iqm(test, reference)

    calls = {"metric": partial(run, metric), "all": partial(run, every)}
    for call in calls.values():
        call()
    times = alternate(calls, repeats=20, device=torch.device("cpu"))
    memory = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, iqm in (("metric", metric), ("all", every)):
            iqm.save(f"{folder}/{name}.safetensors")
            memory[name] = in_fresh_process(__file__, {"metric": f"{folder}/{name}.safetensors"})["bytes"]
    return {
        "multiplications of its layers, with all filters": f"{own:.3g}, {own / everything:.3f} of AlexNet",
        "time of a pair": f"{1000 * times['metric']:.0f} ms, {times['metric'] / times['all']:.2f} of all AlexNet maps",
        "memory beyond that of a pair of 192x256": f"{memory['metric'] / MIB:.0f} MiB, "
        f"{memory['metric'] / memory['all']:.2f} of all AlexNet maps",
        "measured on": f"{machine()['device']}, a pair of images of 384x512, torch {torch.__version__}",
    }


def peak(case: dict[str, object]) -> dict[str, object]:
    """What a saved metric takes for a pair, beyond what it takes for a small one, in a process of its own."""
    iqm = fmiqa.SelectedFeatureIQM.load(str(case["metric"]))
    device = torch.device("cpu")
    generator = torch.Generator().manual_seed(0)
    with torch.inference_mode():
        iqm(*torch.rand(2, 1, 3, 192, 256, generator=generator))
        test, reference = torch.rand(2, 1, 3, *SIZE, generator=generator)
        with PeakMemory(device) as memory:
            iqm(test, reference)
    return {"bytes": memory.bytes}


if __name__ == "__main__":
    start(main, peak)
