"""The metrics that the method stands on, beside classical ones, on TID2013-R and on the JPEG experiment.

    python benchmarks/presets.py --tid2013r TID2013-R/ --weights WEIGHTS/ --cache CACHE/ \
        --jpegtid JPEGTID/ --references REFERENCES/ [--vgg16] [--images 40]

On torchvision's AlexNet. DeepSim's VGG16 is at hand only with random weights (--vgg16, some 10 s an image), so it
stands on torchvision's SqueezeNet 1.1 too: neither is the published metric, and each says so. The maps of "paper,
chosen" are chosen on TID2013-R: in sample there; on the JPEG experiment the pictures are the same, the rest is not.
Score matrices and classical metrics' scores are kept in CACHE, and a stopped run goes on from them. Prints tables and
writes results/presets.json.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from common import add_jpegtid_options, jpegtid, kept_scores, some_of, store
from torch import Tensor
from torch.utils.data import Dataset

import fmiqa
from fmiqa import FeatureExtractor, ScoreMatrix, SelectedFeatureIQM, pool_scores, presets
from fmiqa.datasets import Sample
from fmiqa.evaluation.peers import peer_scores
from fmiqa.scoring.scorer import MapScorer

PEERS = ("SSIM", "MS-SSIM", "FSIM", "VIF", "GMSD")
CHOSEN = "paper, chosen on TID2013-R"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tid2013r", type=Path, required=True, help="folder in TID2013's layout")
    parser.add_argument("--weights", type=Path, required=True, help="folder of alexnet_ and squeezenet1_1_features.pth")
    parser.add_argument("--cache", type=Path, required=True, help="folder for score matrices and peers' scores")
    add_jpegtid_options(parser, required=True)
    parser.add_argument("--vgg16", action="store_true", help="DeepSim on VGG16 with random weights too")
    parser.add_argument("--images", type=int, default=0, help="only so many of each data set, to try the script")
    parser.add_argument("--resamples", type=int, default=1000, help="of the bootstrap over references")
    args = parser.parse_args()

    metrics = {name: make() for name, make in makers(args).items()}
    sets: dict[str, Any] = {
        "TID2013-R": fmiqa.datasets.TID2013(args.tid2013r, partial=True, name="TID2013-R"),
        "jpegtid": jpegtid(args),
    }
    content: dict[str, Any] = {}
    selection: fmiqa.Selection | None = None
    for name, whole in sets.items():
        folder = args.cache / (f"{name}-{args.images}" if args.images else name)
        data = some_of(whole, args.images)
        matrices = {metric: matrix(iqm, data, folder / f"{metric}.safetensors") for metric, iqm in metrics.items()}
        scores = {metric: combined(metrics[metric], found) for metric, found in matrices.items()}
        plain = matrices["paper, all maps"]
        if selection is None:
            selection = fmiqa.forward_select(plain, progress=True)
        scores[CHOSEN + (" (in sample)" if name == "TID2013-R" else "")] = selection.combine(plain)
        found = kept_scores(folder / "peers.json", PEERS, partial(one_peer, data))
        scores |= {f"{peer} (piq)": found[peer] for peer in PEERS}
        missing = {metric: int(values.isnan().sum()) for metric, values in scores.items()}
        if any(missing.values()):
            print(f"left out, of a layer with negative mean: { ({k: v for k, v in missing.items() if v}) }")
            scores = {metric: values for metric, values in scores.items() if not missing[metric]}
        result = fmiqa.compare(
            scores, plain.targets, plain.groups, baseline="paper, all maps", resamples=args.resamples
        )
        print(f"\n{name}, {len(plain)} images of {len(set(plain.groups))} references\n{result}")
        content[name] = {"images": len(plain), **result.to_dict()}
    assert selection is not None
    content["chosen"] = [str(m) for m in selection.maps]
    if args.images:
        print("\na trial on some of the images: nothing is stored")
    else:
        print(f"\nwritten to {store('presets', content)}")


def makers(args: argparse.Namespace) -> dict[str, Callable[[], SelectedFeatureIQM]]:
    """The presets by name, each with the network that is at hand."""

    def alexnet(stage: Any) -> FeatureExtractor:
        return FeatureExtractor("alexnet", weights=args.weights / "alexnet_features.pth", stage=stage)

    def squeezenet() -> FeatureExtractor:
        return FeatureExtractor("squeezenet1_1", weights=args.weights / "squeezenet1_1_features.pth")

    found: dict[str, Callable[[], SelectedFeatureIQM]] = {
        "paper, all maps": lambda: presets.paper(alexnet("relu"), alexnet("relu").maps),
        "amirshahi2016": lambda: presets.amirshahi2016(alexnet("relu")),
        "amirshahi2018": lambda: presets.amirshahi2018(alexnet("conv")),
        "deepsim on SqueezeNet": lambda: presets.deepsim(squeezenet()),
        "deepsim on SqueezeNet, lowest 10 %": lambda: presets.deepsim(squeezenet(), pool="lowest"),
    }
    if args.vgg16:
        found["deepsim on random VGG16"] = lambda: presets.deepsim(FeatureExtractor("vgg16", weights=None))
    return found


def matrix(iqm: SelectedFeatureIQM, data: Dataset[Sample], path: Path) -> ScoreMatrix:
    """The scores of the metric's maps, from the cache where they are there."""
    if not path.exists():
        (scorer,) = iqm.scorers
        assert isinstance(scorer, MapScorer)
        fmiqa.score_matrix(scorer.extractor, data, measure=scorer.measure, save=path, progress=True)  # type: ignore[arg-type]
    return ScoreMatrix.load(path)


def combined(iqm: SelectedFeatureIQM, scores: ScoreMatrix) -> Tensor:
    """(N,) what the metric makes of its maps' scores."""
    return pool_scores(scores.values.double(), iqm.maps, pool=iqm.pool, weights=iqm.weights, power=iqm.power)


def one_peer(data: Dataset[Sample], name: str) -> Tensor:
    return peer_scores(data, [name], progress=True)[name]  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
