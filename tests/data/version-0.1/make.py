"""Example files of every kind that version 0.1 of fmiqa writes, and the figures that it computes from them.

This is run with version 0.1 of fmiqa (commit 0a457e8) and with no other. What it wrote is kept, so that later versions
are held to it: they must load these files and find the same figures.

    PYTHONPATH=/where/version/0.1/lies python make.py [FOLDER]

FOLDER (default: data) gets the files and expected.json, which says of each file what it holds, how version 0.1 loads
it, and the figures that it gives. Nothing is downloaded. The networks are tiny, or the first layer of VGG16 with
random weights; the pictures are noise in squares, and the scores are made up: no figure here says how good anything is.

The recipes below (`network`, `pictures`, `pair`, `mean_difference`) need torch alone, and are whole numbers up to the
last division. A test may import them from this file, to make the pictures, networks and functions that go with the
files.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import sys
import warnings
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

SIDE = 32  # of the pictures, in pixels
REFERENCES, LEVELS = 6, 2
KINDS = ("noise", "dark", "stripes", "shift")
SCORES = {"noise": (83, 58), "dark": (76, 43), "stripes": (65, 31), "shift": (37, 11)}  # tenths


# Recipes: what goes with the files and is in none of them.


def network() -> nn.Module:
    """Two convolutions of four maps each, 3 x 3, with ReLUs: conv1 and conv2. Weights are multiples of 1/256."""
    generator = torch.Generator().manual_seed(1)
    net = nn.Sequential(
        OrderedDict(conv1=nn.Conv2d(3, 4, 3), relu1=nn.ReLU(), conv2=nn.Conv2d(4, 4, 3), relu2=nn.ReLU())
    )
    for parameter in net.parameters():
        parameter.data = torch.randint(-128, 129, parameter.shape, generator=generator) / 256
    return net


def picture(seed: int, side: int = SIDE) -> Tensor:
    """(3, side, side) uint8: squares of 4 x 4 pixels of random colours, and a random shade on each pixel."""
    generator = torch.Generator().manual_seed(seed)
    squares = torch.randint(32, 224, (3, side // 4, side // 4), generator=generator)
    shade = torch.randint(-20, 21, (3, side, side), generator=generator)
    return (squares.repeat_interleave(4, 1).repeat_interleave(4, 2) + shade).clamp(0, 255).to(torch.uint8)


def damaged(image: Tensor, kind: str, level: int, seed: int) -> Tensor:
    """A picture, damaged; whole numbers only."""
    generator = torch.Generator().manual_seed(seed)
    x = image.long()
    if kind == "noise":
        x = x + torch.randint(-24 * level, 24 * level + 1, x.shape, generator=generator)
    elif kind == "dark":
        x = x * (10 - 2 * level) // 10
    elif kind == "stripes":
        x = x + 30 * level * (torch.arange(x.shape[2]) // 2 % 2)
    else:
        x = x.roll(level, 2)
    return x.clamp(0, 255).to(torch.uint8)


def pictures(first_reference: int = 0, references: int = REFERENCES) -> list[dict[str, Any]]:
    """Reference and test picture, score, and names of each of eight damaged pictures a reference."""
    generator = torch.Generator().manual_seed(100 + first_reference)
    found = []
    for r in range(first_reference, first_reference + references):
        reference = picture(r)
        for k, kind in enumerate(KINDS):
            for level in range(1, LEVELS + 1):
                luck = int(torch.randint(-8, 9, (), generator=generator))
                found.append({
                    "reference": reference,
                    "distorted": damaged(reference, kind, level, 1000 * r + 10 * k + level),
                    "score": (SCORES[kind][level - 1] + luck) / 10,
                    "reference_id": f"r{r}",
                    "name": f"r{r}-{kind}-{level}",
                    "distortion": kind,
                    "level": level,
                })  # fmt: skip
    return found


def pair() -> tuple[Tensor, Tensor]:
    """Three test pictures (3, 3, 32, 32) and their reference (1, 3, 32, 32), uint8, to try metrics on."""
    reference = picture(77)
    tests = [damaged(reference, kind, 2, 78) for kind in ("noise", "stripes", "shift")]
    return torch.stack(tests), reference[None]


def mean_difference(test: Tensor, reference: Tensor) -> Tensor:
    """A measure of the user's own: (N, C, H, W) twice -> (N, C), lower = better."""
    return (test - reference).mean((-2, -1)).abs()


def ratings() -> Tensor:
    """(48, 4) ratings of four observers of `pictures()`; NaN where one did not rate."""
    generator = torch.Generator().manual_seed(5)
    scores = torch.tensor([p["score"] for p in pictures()], dtype=torch.float64)
    kinds = torch.tensor([KINDS.index(p["distortion"]) for p in pictures()])
    own = torch.tensor([[0, 0, 0, 0], [1, 0, 2, 0], [0, 1, 0, 2], [2, 0, 1, 0]], dtype=torch.float64)
    found = scores[:, None] - own[:, kinds].T + torch.randint(-10, 11, (len(scores), 4), generator=generator) / 10
    found[7, 0] = found[20, 1] = found[21, 1] = found[47, 3] = math.nan
    return found


# Helpers that need fmiqa.


def data(name: str = "Tiny", first: int = 0, references: int = REFERENCES) -> Any:
    """`pictures` as a data set."""
    from fmiqa.datasets import IQADataset, Sample

    items = pictures(first, references)

    class Tiny(IQADataset):
        def _sample(self, index: int) -> Sample:
            return Sample(**items[index])

    return Tiny(
        name,
        [item["score"] for item in items],
        reference_ids=[item["reference_id"] for item in items],
        names=[item["name"] for item in items],
        distortions=[item["distortion"] for item in items],
    )


def concepts() -> Any:
    """Pictures with planted concepts."""
    from fmiqa.visualize import PlantedConcepts

    return PlantedConcepts(count=6, size=48)


def own_extractor(**options: Any) -> Any:
    """The tiny network as fmiqa runs it."""
    from fmiqa import FeatureExtractor

    return FeatureExtractor(network(), **options)


def vgg_extractor() -> Any:
    """The first layer of VGG16 with random weights, which sees pictures at half their size."""
    from fmiqa import FeatureExtractor, Viewing

    return FeatureExtractor("vgg16", weights=None, layers=["conv1_1"], viewing=Viewing(factor=0.5), seed=0)


def sampler() -> Any:
    """What replaces windows of pixels."""
    from fmiqa.visualize import MarginalSampler

    return MarginalSampler([picture(r, 20) for r in range(3)], window=6, patches=40)


LOOK = {"stride": 6, "samples": 2}  # of prediction difference
LOOKED_AT = ["conv1:3", "conv2:1"]
CONCEPTS = {"batch_size": 2, "top": 3, "quantile": 0.9}  # of dissection


def command(*arguments: str) -> dict[str, Any]:
    """Run `fmiqa` in the present folder; what it prints as JSON, without notes and the names of files."""
    from fmiqa.cli import main

    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(io.StringIO()) as said:
        code = main([*arguments, "--json", "--quiet"])
    assert code == 0, said.getvalue()
    printed: dict[str, Any] = numbers(json.loads(output.getvalue()))
    for left_out in ("files", "file", "notes"):
        printed.pop(left_out, None)
    return printed


# The files.


def write_scores() -> None:
    from fmiqa import MapIndex, ScoreMatrix, score_matrix
    from fmiqa.measures import SSIM

    tiny = score_matrix(own_extractor(), data(), compile=False)
    tiny.save("scores.safetensors")
    score_matrix(own_extractor(), data("Other", 4, 3), compile=False).save("scores-other.safetensors")
    maps = [f"conv1_1:{c}" for c in (3, 7, 41, 63)]
    vgg = score_matrix(vgg_extractor(), data(), maps=maps, measure=SSIM(data_range="pair", window=7), compile=False)
    vgg.save("scores-vgg16.safetensors")
    ScoreMatrix.concat({"tiny": tiny, "half": vgg}).save("scores-joined.safetensors")
    generator = torch.Generator().manual_seed(3)
    ScoreMatrix(
        torch.randint(0, 1001, (12, 3), generator=generator) / 1000,
        MapIndex(["conv1:3", "features.0:1", "conv5_4:511"]),
        torch.arange(12.0, dtype=torch.float64) / 2,
        [f"Bild {i // 4} für ß" for i in range(12)],
        [f"名前-{i}" for i in range(12)],
    ).save("scores-by-hand.safetensors")


def write_selections() -> None:
    from fmiqa import ScoreMatrix, backward_eliminate, beam_select, floating_select, forward_select, weighted_select

    scores, joined = ScoreMatrix.load("scores.safetensors"), ScoreMatrix.load("scores-joined.safetensors")
    forward_select(scores).save("selection-forward.json")
    forward_select(
        scores, fit="logistic4", monotone=True, pool="layer_geometric", direction="any", max_maps=4, tol=1e-4,
        start=["conv2:3"], exclude=["conv1:0"],
    ).save("selection-options.json")  # fmt: skip
    forward_select(scores, criterion="srocc", max_maps=3).save("selection-srocc.json")
    forward_select(joined, max_maps=4).save("selection-joined.json")
    weighted_select(joined, powers=(1.0, 2.0), rule="best").save("selection-weighted.json")
    # The first map is the best alone and in the way of two that are perfect together, so that one leaves again.
    y, noise, other = torch.randint(0, 1001, (3, 50), generator=torch.Generator().manual_seed(0)) / 1000
    values = torch.stack([y + 0.8 * other, y + noise, y - noise], 1)
    floating_select(values, y, fit=None).save("selection-floating.json")
    backward_eliminate(scores, start=scores.maps, min_maps=2, tol=0.01).save("selection-backward.json")
    beam_select(scores, width=3, max_maps=4).save("selection-beam.json")


def write_metrics() -> None:
    from fmiqa import AllFeatureIQM, ScoreMatrix, SelectedFeatureIQM, Selection, forward_select, presets
    from fmiqa.measures import (
        GMS,
        GMSD,
        MSE,
        MSSSIM,
        PSNR,
        SSIM,
        Correlation,
        DeepSimSSIM,
        HistogramIntersection,
        Piq,
        PyramidIntersection,
    )

    own, both = own_extractor(), {"tiny": own_extractor(), "half": vgg_extractor()}
    forward, options = Selection.load("selection-forward.json"), Selection.load("selection-options.json")
    SelectedFeatureIQM.from_selection(own, forward).save("metric.safetensors")
    SelectedFeatureIQM.from_selection(own, forward, fitted=True).save("metric-fitted.safetensors")
    SelectedFeatureIQM.from_selection(own, options, fitted=True).save("metric-options.safetensors")
    weighted = Selection.load("selection-weighted.json")
    SelectedFeatureIQM.from_selection(both, weighted, fitted=True).save("metric-joined.safetensors")
    y = ScoreMatrix.load("scores.safetensors")
    AllFeatureIQM(own, fit=forward_select(y, start=y.maps).fit).save("metric-all.safetensors")
    SelectedFeatureIQM(own_extractor().double(), ["conv1:1", "conv1:0"]).save("metric-float64.safetensors")
    low = own_extractor(precision="bfloat16")
    SelectedFeatureIQM(low, ["conv1:1", "conv1:0"]).save("metric-bfloat16.safetensors")
    presets.amirshahi2016(own, levels=2).save("metric-preset-amirshahi2016.safetensors")
    presets.amirshahi2018(own_extractor(stage="conv")).save("metric-preset-amirshahi2018.safetensors")
    measures = {
        "ssim": SSIM(data_range="layer", window=5, sigma=1.0, k1=0.02, k2=0.04),
        "ms-ssim": MSSSIM(data_range="reference", window=5),
        "mse": MSE(),
        "psnr": PSNR(data_range=2.0, ceiling=50.0),
        "correlation": Correlation(),
        "gms": GMS(c=0.003),
        "gmsd": GMSD(data_range="reference"),
        "deepsim": DeepSimSSIM(pool="lowest", fraction=0.2),
        "histogram": HistogramIntersection(bins=16),
        "pyramid": PyramidIntersection(levels=3),
        "piq": Piq("HaarPSI"),
        "custom": own_measure(),
    }
    for name, measure in measures.items():
        SelectedFeatureIQM(own, ["conv1:3", "conv1:1"], measure=measure).save(f"metric-measure-{name}.safetensors")


def own_measure() -> Any:
    from fmiqa.measures import Custom

    return Custom(mean_difference, higher_is_better=False, value_range=(0, math.inf), label="mean difference")


def write_studies() -> None:
    from fmiqa import MapIndex, Reproduction, ScoreMatrix, cross_dataset, cross_validate, observer_study
    from fmiqa.reproduction import Measured, Published, Row

    scores, other = ScoreMatrix.load("scores.safetensors"), ScoreMatrix.load("scores-other.safetensors")
    cross_validate(scores, folds=2, seed=1, max_maps=4).save("validation.json")
    cross_validate(
        scores, groups="distortion", folds="leave_one_out", criterion="srocc", pool="layer_geometric", max_maps=3
    ).save("validation-by-distortion.json")
    observer_study(scores, ratings(), names=["Ann", "Bob", "Cléo", "Dan"], folds=2, max_maps=3).save("observers.json")
    cross_dataset({"Tiny": scores, "Other": other}, folds=None, max_maps=3).save("cross-without-folds.json")
    measured = Measured(
        images=3000, references=25, maps=MapIndex(["conv1:27", "conv3:5"]), plcc=0.9412345, srocc=0.93, all_plcc=0.9,
        all_srocc=0.89, held_out_maps=(2, 3), held_out_plcc=(0.92, 0.91), held_out_srocc=(0.9, 0.88),
        held_out_all_plcc=(0.89, 0.9), held_out_all_srocc=(0.87, 0.88),
    )  # fmt: skip
    rows = (
        Row("csiq", "CSIQ", Published(16, 0.90, 0.87), None),
        Row("tid2013", "TID2013", Published(9, 0.95, 0.91), measured),
        Row("cidgd", "CID:GD", Published(13, 0.75, 0.61), measured),
        Row("csiq", "Half of it", None, measured, "Half of it, given as csiq: made up."),
    )
    options = {"network": "alexnet", "pool": "mean", "folds": 2, "seed": 0, "maps": {"conv1": 64, "conv2": 192}}
    Reproduction("table1", "alexnet", rows, options).save("reproduction-by-hand.json")


def write_reproduction() -> None:
    """A whole folder of `reproduce`, with its finished steps, without its pictures and its Markdown."""
    from fmiqa import datasets, reproduce

    demo = datasets.Demo(references=2, size=64, levels=1)
    reproduce("table1", {"tid2013": demo}, weights=None, layers=["conv1"], folds=2, out="reproduced", compile=False)
    for drawn in [*Path("reproduced").glob("*.png"), *Path("reproduced").glob("*.md")]:
        drawn.unlink()


def write_pictures() -> None:
    from fmiqa.visualize import dissect, maximize_activation, prediction_difference

    own, maps = own_extractor(), LOOKED_AT
    prediction_difference(own, picture(0, 20), maps, sampler=sampler(), **LOOK).save("relevance.safetensors")
    maximize_activation(own, maps[:2], size=(12, 12), steps=6).save("maximal-fourier.safetensors")
    maximize_activation(own, maps[1:], size=(8, 10), steps=6, method="pixels").save("maximal-pixels.safetensors")
    dissect(own, concepts(), **CONCEPTS).save("concepts.safetensors")


# The figures, each from a file as it is loaded.


def numbers(x: Any) -> Any:
    """Plain numbers of ten digits, NaN and infinities as None."""
    if isinstance(x, Tensor):
        return numbers(x.tolist())
    if isinstance(x, dict):
        return {str(key): numbers(value) for key, value in x.items()}
    if isinstance(x, list | tuple):
        return [numbers(value) for value in x]
    if isinstance(x, float):
        return float(f"{x:.10g}") if math.isfinite(x) else None
    return x


def text(maps: Any) -> list[str]:
    return [str(m) for m in maps]


def outline(x: Tensor) -> dict[str, Any]:
    """Of a tensor that is too large to be written out: enough to tell it from another."""
    flat = x.double().flatten()
    return {
        "shape": list(x.shape),
        "dtype": str(x.dtype).removeprefix("torch."),
        "mean": float(flat.mean()),
        "root_mean_square": float(flat.square().mean().sqrt()),
        "ends": flat[[0, 1, -2, -1]].tolist(),
    }


def of_scores(path: str) -> dict[str, Any]:
    from fmiqa import ScoreMatrix

    found = ScoreMatrix.load(path)
    return {
        "images": len(found),
        "maps": text(found.maps),
        "values": outline(found.values),
        "column_means": found.values.double().mean(0)[:8],
        "targets": outline(found.targets),
        "groups": list(dict.fromkeys(found.groups)),
        "first_names": found.names[:3],
        "first_distortions": None if found.distortions is None else found.distortions[:3],
        "dataset": found.options.get("dataset"),
        "sources": list(found.options.get("sources", ())),
        "pooled": outline(found.pool()),
    }


def of_selection(path: str) -> dict[str, Any]:
    from fmiqa import ScoreMatrix, Selection

    found = Selection.load(path)
    figures: dict[str, Any] = {
        "maps": text(found.maps),
        "value": found.value,
        "curve": found.curve,
        "gains": [step.gain for step in found.steps],
        "steps": [step.label(step.map) for step in found.steps],
        "runners_up": [None if step.runner_up is None else str(step.runner_up) for step in found.steps],
        "runner_up_values": [step.runner_up_value for step in found.steps],
        "pool": found.pool,
        "power": found.power,
        "weights": found.weights,
        "sources": list(found.sources),
        "dataset": found.source.get("dataset"),
    }
    if path in ("selection-forward.json", "selection-weighted.json", "selection-backward.json"):
        figures["table"] = found.table()
    if found.fit is not None:
        figures["fit"] = found.fit.to_dict()
    if found.source:
        matrix = {"selection-vgg16.json": "scores-vgg16.safetensors"}.get(path, "scores.safetensors")
        matrix = "scores-joined.safetensors" if len(found.sources) > 1 else matrix
        matrix = str(Path(path).with_name("scores.safetensors")) if "/" in path else matrix
        figures["combined_of"] = matrix
        figures["combined"] = outline(found.combine(ScoreMatrix.load(matrix)))
    return figures


def of_metric(path: str) -> dict[str, Any]:
    metric = load_metric(path)
    tests, reference = pair()
    return {
        "class": type(metric).__name__,
        "maps": text(metric.maps),
        "pool": metric.pool,
        "power": metric.power,
        "weights": metric.weights,
        "value_of_pair": metric(tests, reference),
        "map_scores_of_pair": metric.map_scores(tests, reference),
    }


def load_metric(path: str) -> Any:
    from fmiqa import SelectedFeatureIQM

    measure = own_measure() if path == "metric-measure-custom.safetensors" else None
    if path == "metric-vgg16.safetensors":
        return SelectedFeatureIQM.load(path)
    return SelectedFeatureIQM.load(path, model=network(), measure=measure)


def of_validation(path: str) -> dict[str, Any]:
    from fmiqa import Validation

    found = Validation.load(path)
    # Where a fold's figure is NaN, version 0.1 fails to find the one and says 1 for the other.
    known = not found.mean.isnan().any()
    sizes = {"best_size": found.best_size, "one_standard_error_size": found.one_standard_error_size} if known else {}
    return {
        "selected": [text(maps) for maps in found.selected],
        "in_sample": found.in_sample,
        "plcc": found.plcc,
        "srocc": found.srocc,
        "all_plcc": found.all_plcc,
        "all_srocc": found.all_srocc,
        "mean": found.mean,
        "standard_error": found.standard_error,
        **sizes,
        **({"table": found.table()} if path == "validation.json" else {}),
    }


def of_held_out(path: str) -> dict[str, Any]:
    """Version 0.1 writes such a file and never loads one."""
    content = json.loads(Path(path).read_text())
    predictions = torch.tensor(list(content["predictions"].values()), dtype=torch.float64)
    return {
        **{name: content[name] for name in ("selected", "in_sample", "plcc", "srocc")},
        "predictions": outline(predictions),
        "predicted_first": dict(list(content["predictions"].items())[:3]),
        "search": content["options"]["search"],
    }


def of_observers(path: str) -> dict[str, Any]:
    from fmiqa import ObserverStudy

    found = ObserverStudy.load(path)
    return {
        "observers": found.observers,
        "maps": text(found.maps),
        "selected": [text(maps) for maps in found.selected],
        "fold_selected": [[text(maps) for maps in fold] for fold in found.fold_selected],
        "in_sample": found.in_sample,
        "ratings": found.ratings,
        "frequency": found.frequency,
        "stability": found.stability._asdict(),
        "stability_within": found.stability_within.value,
        "stability_between": found.stability_between.value,
        "cross_prediction_plcc": found.cross_prediction("plcc"),
        "cross_prediction_srocc": found.cross_prediction("srocc"),
        "own_advantage_plcc": found.own_advantage("plcc"),
        "own_advantage_srocc": found.own_advantage("srocc"),
        "left_out_plcc": found.left_out_plcc,
        "left_out_srocc": found.left_out_srocc,
        "table": found.table(),
        "cross_table": found.cross_table(),
    }


def of_reproduction(path: str) -> dict[str, Any]:
    from dataclasses import asdict

    from fmiqa import Reproduction

    found = Reproduction.load(path)
    measured = {}
    for row in found.measured:
        assert row.measured is not None
        measured[row.label] = {**asdict(row.measured), "maps": text(row.measured.maps)}
    return {
        "table": found.table,
        "network": found.network,
        "title": found.title,
        "rows": found.table_rows(),
        "published": {row.label: row.published for row in found.rows},
        "measured": measured,
    }


def of_cross(path: str) -> dict[str, Any]:
    from fmiqa import CrossDataset

    found = CrossDataset.load(path)
    return {
        "datasets": found.datasets,
        "selected": [text(maps) for maps in found.selected],
        "plcc": found.plcc,
        "srocc": found.srocc,
        "held_out_plcc": found.held_out_plcc,
        "held_out_plcc_shape": list(found.held_out_plcc.shape),
        "held_out_srocc": found.held_out_srocc,
        "shared": found.shared,
        "table_plcc": found.table_rows("plcc"),
        "table_srocc": found.table_rows("srocc"),
    }


def of_relevance(path: str) -> dict[str, Any]:
    from fmiqa.visualize import PredictionDifference

    return relevance_figures(PredictionDifference.load(path))


def relevance_figures(found: Any) -> dict[str, Any]:
    return {
        "maps": text(found.maps),
        "relevance": outline(found.relevance),
        "relevance_of_each_map": {str(m): outline(found.of(m)) for m in found.maps},
    }


def of_maximal(path: str) -> dict[str, Any]:
    from fmiqa.visualize import MaximalImages

    found = MaximalImages.load(path)
    return {
        "maps": text(found.maps),
        "activations": found.activations,
        "images": outline(found.images),
        "image_of_first_map": outline(found.of(found.maps[0])),
        "method": found.options["method"],
    }


def load_dissection(path: str = "concepts.safetensors") -> Any:
    from fmiqa.visualize import Dissection

    return Dissection.load(path)


def of_dissection(path: str) -> dict[str, Any]:
    found = load_dissection(path)
    segments = found.segments(own_extractor(), concepts(), found.maps[0], 2)
    return {
        **dissection_figures(found),
        "segments_of_first_map": {segment.name: int(segment.mask.sum()) for segment in segments},
    }


def dissection_figures(found: Any) -> dict[str, Any]:
    return {
        "maps": text(found.maps),
        "concepts": [[c.number, c.name, c.category] for c in found.concepts[:9]],
        "iou": outline(found.iou),
        "thresholds": found.thresholds,
        "top_images": found.top_images,
        "names": found.names,
        "threshold": found.threshold,
        "best": [[str(b.map), b.concept, b.category, b.iou, b.detector] for b in found.best()],
        "detectors_over_0.1": [str(b.map) for b in found.detectors(0.1)],
        "unique_detectors": found.unique_detectors,
        "table": found.table(),
    }


# Beginning of a file's name -> its class, how version 0.1 loads it, and its figures.
LOADERS: tuple[tuple[str, str, str, Any], ...] = (
    ("scores", "ScoreMatrix", "fmiqa.ScoreMatrix.load(path)", of_scores),
    ("selection", "Selection", "fmiqa.Selection.load(path)", of_selection),
    ("metric-vgg16", "SelectedFeatureIQM", "fmiqa.SelectedFeatureIQM.load(path)", of_metric),
    ("metric-measure-custom", "SelectedFeatureIQM",
     "fmiqa.SelectedFeatureIQM.load(path, model=network(), measure=Custom(...))", of_metric),
    ("metric", "SelectedFeatureIQM", "fmiqa.SelectedFeatureIQM.load(path, model=network())", of_metric),
    ("validation", "Validation", "fmiqa.Validation.load(path)", of_validation),
    ("held-out", "", "json.loads(path.read_text()): version 0.1 has no loader for it", of_held_out),
    ("observers", "ObserverStudy", "fmiqa.ObserverStudy.load(path)", of_observers),
    ("reproduction", "Reproduction", "fmiqa.Reproduction.load(path)", of_reproduction),
    ("reproduced/table1", "Reproduction", "fmiqa.Reproduction.load(path)", of_reproduction),
    ("reproduced/tid2013-alexnet/scores", "ScoreMatrix", "fmiqa.ScoreMatrix.load(path)", of_scores),
    ("reproduced/tid2013-alexnet/selected", "Selection", "fmiqa.Selection.load(path)", of_selection),
    ("reproduced/tid2013-alexnet/folds", "Validation", "fmiqa.Validation.load(path)", of_validation),
    ("cross", "CrossDataset", "fmiqa.CrossDataset.load(path)", of_cross),
    ("relevance", "PredictionDifference", "fmiqa.visualize.PredictionDifference.load(path)", of_relevance),
    ("maximal", "MaximalImages", "fmiqa.visualize.MaximalImages.load(path)", of_maximal),
    ("concepts", "Dissection", "fmiqa.visualize.Dissection.load(path)", of_dissection),
)  # fmt: skip

WHAT = {
    "scores.safetensors": "48 pictures at the 8 maps of the tiny network, SSIM",
    "scores-other.safetensors": "the same of 24 other pictures; two of their references are in scores.safetensors too",
    "scores-vgg16.safetensors": "48 pictures at 4 maps of VGG16's first layer, at half size, another SSIM",
    "scores-joined.safetensors": "scores and scores-vgg16 joined, sources tiny and half",
    "scores-by-hand.safetensors": "no options and no distortions; names beyond ASCII, layers of three kinds",
    "selection-forward.json": "forward search with its defaults",
    "selection-options.json": "forward search with every option that it has",
    "selection-srocc.json": "forward search by Spearman correlation",
    "selection-joined.json": "forward search of two networks joined",
    "selection-weighted.json": "weighted search of two networks joined, two powers tried",
    "selection-floating.json": "floating search of plain numbers (no source, maps map:0, map:1, ...); one leaves again",
    "selection-backward.json": "backward elimination from all maps",
    "selection-beam.json": "beam search",
    "selection-vgg16.json": "written by `fmiqa select`",
    "metric.safetensors": "of selection-forward",
    "metric-fitted.safetensors": "of selection-forward, with its logistic",
    "metric-options.safetensors": "of selection-options (geometric mean over layers), with a logistic of 4 parameters",
    "metric-joined.safetensors": "of selection-weighted: two networks, two measures, one at half size, with weights, "
    "power and logistic",
    "metric-vgg16.safetensors": "written by `fmiqa select --metric --fitted`: a network that fmiqa knows by name",
    "metric-all.safetensors": "AllFeatureIQM of the tiny network, with a logistic",
    "metric-float64.safetensors": "a network in float64",
    "metric-bfloat16.safetensors": "precision bfloat16; compare to some 1e-2 only",
    "metric-preset-amirshahi2016.safetensors": "presets.amirshahi2016 (AllFeatureIQM)",
    "metric-preset-amirshahi2018.safetensors": "presets.amirshahi2018 (AllFeatureIQM): maps before the ReLU",
    "validation.json": "cross_validate in two folds",
    "validation-by-distortion.json": "cross_validate, distortions left out one by one, by Spearman correlation; two "
    "figures are NaN, and are written so (a map is constant on a distortion)",
    "validation-command.json": "written by `fmiqa validate`",
    "held-out-weighted.json": "written by `fmiqa validate --search weighted`, of two networks joined",
    "observers.json": "observer_study of four observers, some ratings missing",
    "cross.json": "written by `fmiqa transfer`, with folds; two data sets share references",
    "cross-without-folds.json": "cross_dataset without folds: no held-out figures",
    "reproduction-by-hand.json": "rows of every kind: published and measured, not on disk, in place of another",
    "reproduced/table1.json": "written by `reproduce(..., out=)`, as is all of its folder",
    "reproduced/tid2013-alexnet/scores.safetensors": "a finished step: 12 pictures at 64 maps of AlexNet's conv1",
    "reproduced/tid2013-alexnet/selected.json": "a finished step: forward search",
    "reproduced/tid2013-alexnet/folds.json": "a finished step: cross_validate",
    "relevance.safetensors": "prediction difference of a picture of 20 x 20 and two maps",
    "maximal-fourier.safetensors": "activation maximisation of two maps, 12 x 12",
    "maximal-pixels.safetensors": "activation maximisation in the form of 2009 of one map, 8 x 10",
    "concepts.safetensors": "dissection of all 8 maps on six pictures",
}


def kind_of(path: str) -> str:
    """The kind that is written in a file."""
    if path.endswith(".json"):
        return str(json.loads(Path(path).read_text())["kind"])
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return str(file.metadata()["kind"])


def expect_files() -> dict[str, Any]:
    found = {}
    endings = (".json", ".safetensors")
    for path in sorted(str(p) for p in Path(".").rglob("*") if p.suffix in endings):
        if path == "expected.json" or path.endswith("run.json"):
            continue
        kind, figures = next((kind, f) for start, kind, _, f in LOADERS if path.startswith(start))
        own = "another measure: " + path.removeprefix("metric-measure-").removesuffix(".safetensors")
        found[path] = {
            "class": kind,
            "kind": kind_of(path),
            "what": WHAT.get(path, own),
            "figures": numbers(figures(path)),
        }
    return found


def as_json(content: Any, depth: int = 4, indent: str = "") -> str:
    """JSON with a line for each entry down to a depth, and the rest in lines."""
    if isinstance(content, dict) and depth and content:
        inner = indent + " "
        lines = [
            f"{inner}{json.dumps(key, ensure_ascii=False)}: {as_json(content[key], depth - 1, inner)}"
            for key in content
        ]
        return "{\n" + ",\n".join(lines) + "\n" + indent + "}"
    return json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def main() -> None:
    import fmiqa

    print(f"fmiqa {fmiqa.__version__} in {fmiqa.__file__}")
    if fmiqa.__version__ != "0.1.0":
        sys.exit("this makes the files of version 0.1, and is run with version 0.1.0 of fmiqa")
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "data")
    if folder.exists():
        sys.exit(f"{folder} exists already")
    warnings.simplefilter("ignore")  # random weights are what is wanted
    torch.set_num_threads(1)
    folder.mkdir(parents=True)
    with contextlib.chdir(folder):
        write_scores()
        write_selections()
        write_metrics()
        write_studies()
        write_reproduction()
        write_pictures()
        expected = {"version": fmiqa.__version__, "torch": torch.__version__, "files": expect_files()}
        Path("expected.json").write_text(as_json(expected) + "\n", encoding="utf-8")
        for path in sorted(p for p in Path(".").rglob("*") if p.is_file()):
            print(f"{path.stat().st_size:7d} {path}")


if __name__ == "__main__":
    main()
