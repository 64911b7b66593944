"""What the benchmark scripts share: where results go, and what they were measured on."""

from __future__ import annotations

import argparse
import datetime
import json
import platform
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset

import fmiqa
from fmiqa import FeatureExtractor, ScoreMatrix, Selection, Viewing
from fmiqa._io import write_whole
from fmiqa.selection import splits

RESULTS = Path(__file__).parent / "results"

# Pictures of every data set are seen at one size. Those of TID2013 have a shorter side of 384 pixels as they are.
SOURCES = {
    "alexnet": ("alexnet", Viewing(short_side=384)),
    "alexnet-half": ("alexnet", Viewing(short_side=192)),
    "squeezenet": ("squeezenet1_1", Viewing(short_side=384)),
    "squeezenet-half": ("squeezenet1_1", Viewing(short_side=192)),
}


def machine(device: torch.device | None = None) -> dict[str, Any]:
    """Device, versions and date; by default the device is a GPU where there is one."""
    cuda = torch.cuda.is_available() if device is None else device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name() if cuda else f"CPU, threads: {torch.get_num_threads()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "fmiqa": fmiqa.__version__,
        "date": datetime.date.today().isoformat(),
    }


def store(name: str, content: dict[str, Any], device: torch.device | None = None) -> Path:
    """Write `results/<name>.json`, with what it was measured on."""
    path = RESULTS / f"{name}.json"
    write_whole(path, (json.dumps({"machine": machine(device), **content}, indent=1) + "\n").encode())
    return path


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


def kept_scores(cache: Path, names: Iterable[str], compute: Callable[[str], Tensor]) -> dict[str, Tensor]:
    """Scores by metric that a JSON file keeps; the named ones that it lacks are computed and kept."""
    kept = json.loads(cache.read_text()) if cache.exists() else {}
    for name in names:
        if name not in kept:
            kept[name] = compute(name).tolist()
            write_whole(cache, json.dumps(kept).encode())
    return {name: torch.tensor(values, dtype=torch.float64) for name, values in kept.items()}


def some_of(data: Dataset[fmiqa.datasets.Sample], images: int) -> Dataset[fmiqa.datasets.Sample]:
    """So many images from all over a data set, to try a script on; all of them for 0."""
    count = len(data)  # type: ignore[arg-type]
    return Subset(data, [i * count // images for i in range(images)]) if 0 < images < count else data


def all_maps(scores: ScoreMatrix) -> Selection:
    """No choice at all, as a selection."""
    combined = scores.pool()
    fit = fmiqa.fit_logistic(combined, scores.targets)
    return Selection(scores.maps, (), float(fit.plcc), {"search": "none", "pool": "mean"}, scores.options, fit)


def mean_and_error(values: Tensor) -> tuple[str, str]:
    """The mean over folds and its standard error, as text."""
    mean, error = splits.mean_and_error(values)
    return f"{mean:.4f}", f"{error:.4f}"


def add_jpegtid_options(parser: argparse.ArgumentParser, *, required: bool) -> None:
    """The JPEG experiment on reference pictures of TID2013."""
    parser.add_argument("--jpegtid", type=Path, required=required, help="folder of scores.csv and distorted_images/")
    parser.add_argument("--references", type=Path, required=required, help="its reference images")


def jpegtid(args: argparse.Namespace) -> fmiqa.datasets.CSVDataset:
    """The data set that these options name."""
    return fmiqa.datasets.CSVDataset(
        args.jpegtid / "scores.csv", reference="ref", distorted="dist", score="mos", name="jpegtid",
        reference_root=args.references, distorted_root=args.jpegtid / "distorted_images",
    )  # fmt: skip


def live_r19(folder: Path) -> fmiqa.datasets.CSVDataset:
    """LIVE-R19: images and scores.csv, with the DMOS of LIVE Release 2 (lower = better)."""
    return fmiqa.datasets.CSVDataset(
        folder / "scores.csv", reference="ref", distorted="dist", score="dmos", higher_is_better=False,
        distortion="type", name="LIVE-R19",
    )  # fmt: skip


EXPERIMENTS = {"TID2013-R": "tid2013r", "LIVE-R19": "live19", "jpegtid": "jpegtid"}  # name -> its folder in the cache


def add_experiments_options(parser: argparse.ArgumentParser) -> None:
    """Where the experiments, the weights and what is kept of them are."""
    parser.add_argument("--tid2013r", type=Path, required=True, help="folder in TID2013's layout")
    parser.add_argument("--live19", type=Path, required=True, help="folder of LIVE-R19's images and scores.csv")
    add_jpegtid_options(parser, required=True)
    parser.add_argument("--weights", type=Path, required=True, help="folder of alexnet_ and squeezenet1_1_features.pth")
    parser.add_argument("--cache", type=Path, required=True, help="folder for score matrices and peers' scores")


def experiments(args: argparse.Namespace) -> dict[str, fmiqa.datasets.ImageDataset]:
    """The data sets that these options name."""
    tid = fmiqa.datasets.TID2013(args.tid2013r, partial=True, name="TID2013-R")
    return {"TID2013-R": tid, "LIVE-R19": live_r19(args.live19), "jpegtid": jpegtid(args)}


def lpips_alex(weights: Path) -> torch.nn.Module:
    """LPIPS of its own package on AlexNet, whose convolutions come from a file instead of a download."""
    import lpips

    metric = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False).eval()
    state = torch.load(weights, weights_only=True)
    own = dict(metric.net.named_parameters())  # slice1.0.weight, ... for features.0.weight, ...
    for name, parameter in own.items():
        parameter.data.copy_(state["features." + name.split(".", 1)[1]])
    return metric
