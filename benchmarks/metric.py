"""The selected metric against the all-maps one and against other packages' metrics: time and memory.

    python benchmarks/metric.py --weights alexnet_features.pth [--selection selected.json --size 384x512 --batch 1]

Without --selection, the maps are those that forward selection chose on TID2013-R; `conv1 only` is as many maps of the
first layer. Before anything is timed: the selected metric's value and gradient are those of the same maps within the
all-maps one, and every other metric ranks a clean image over a noisy one. Peak memory is that of a fresh process, in
which the metric has seen a smaller image before. Nothing is prepared: each call gets test and reference image.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import measuring
import torch
import torchvision
from common import lpips_alex, store
from measuring import MIB, PeakMemory
from torch import Tensor

from fmiqa import AllFeatureIQM, FeatureExtractor, SelectedFeatureIQM, Selection
from fmiqa._tables import text_table

Metric = Callable[[Tensor, Tensor], Tensor]

# forward_select on TID2013-R, AlexNet; PLCC .9087 in sample
MAPS = [
    *("conv2:38", "conv2:33", "conv2:82", "conv1:36", "conv3:250", "conv2:74", "conv2:190", "conv2:110"),
    *("conv2:179", "conv3:322", "conv3:53", "conv4:50", "conv4:174", "conv1:51", "conv2:112", "conv5:163"),
]
ALL = "AllFeatureIQM"
SMALL = 192  # side of the image that a process sees before it is measured; MS-SSIM needs 161
TOLERANCE = 1e-5
WORK = ("forward", "forward and backward")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    measuring.add_options(parser, repeats=10)
    parser.add_argument("--network", default="alexnet")
    parser.add_argument("--weights", type=Path, help="file of its weights; random ones without")
    parser.add_argument("--selection", type=Path, help="selection file, of that network")
    parser.add_argument("--maps", nargs="+", default=MAPS, help="the maps, where there is no selection file")
    parser.add_argument("--size", type=measuring.sizes, default=(384, 512))
    parser.add_argument("--batch", type=int, default=1)
    args = parser.parse_args()
    device = measuring.device_of(args)
    warnings.simplefilter("ignore")
    if args.selection:
        args.maps = [str(m) for m in Selection.load(args.selection).maps]
    options = {k: str(v) if isinstance(v, Path) else v for k, v in vars(args).items()}
    metrics: dict[str, Metric] = {}
    for name, make in MAKERS.items():
        try:
            metrics[name] = make(options)
        except ImportError as error:
            print(f"{name} is left out: {error}")
    check(metrics, options, device)

    test, reference = images(args.batch, *args.size, device)
    figures: dict[str, dict[str, Any]] = {name: {} for name in metrics}
    for work in WORK:
        calls = {name: partial(run, metric, work, test, reference) for name, metric in metrics.items()}
        for call in calls.values():
            call()
        for name, least in measuring.alternate(calls, repeats=args.repeats, device=device).items():
            figures[name][work] = {"seconds": least}
    del metrics
    for name, figure in figures.items():
        for work in WORK:
            found = measuring.in_fresh_process(__file__, {**options, "metric": name, "work": work})
            if "failed" in found:
                raise SystemExit(f"{name}, {work}: {found['failed']}")
            figure[work] |= found
    report(figures, args)
    content = {"network": args.network, "weights": "file" if args.weights else "random", "maps": list(args.maps)}
    content |= {"size": list(args.size), "batch": args.batch, "metrics": figures}
    print(f"written to {store(f'metric-{device.type}', content, device)}")


def report(figures: dict[str, dict[str, Any]], args: argparse.Namespace) -> None:
    """Print the table, and put each figure's ratio to the all-maps metric beside it."""
    rows: list[tuple[str, ...]] = [
        ("", *(f"{start}{unit}" for start in ("", "+ backward ") for unit in ("ms", "/ all maps", "MiB", "/ all maps")))
    ]
    for name, figure in figures.items():
        line = [name]
        for work in WORK:
            for key, unit in (("seconds", 1e-3), ("peak", MIB)):
                ratio = figure[work][key] / figures[ALL][work][key]
                figure[work][f"{key}_ratio"] = ratio
                line += [f"{figure[work][key] / unit:.1f}", f"{ratio:.3f}"]
        rows.append(tuple(line))
    height, width = args.size
    print(f"\nforward, and forward and backward; {args.batch} image(s) {height}x{width}, {args.network}, {args.device}")
    print(text_table(rows))


def run(metric: Metric, work: str, test: Tensor, reference: Tensor) -> Tensor:
    """The metric's value, or its gradient in the test images."""
    if work == "forward":
        with torch.inference_mode():
            return metric(test, reference)
    leaf = test.clone().requires_grad_()
    metric(leaf, reference).sum().backward()
    assert leaf.grad is not None
    return leaf.grad


def images(batch: int, height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Smooth random references in [0, 1], and the same with noise."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(batch, 3, height // 16, width // 16, generator=generator)
    reference = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bicubic").clamp(0, 1)
    test = (reference + 0.1 * torch.randn(reference.shape, generator=generator)).clamp(0, 1)
    return test.to(device), reference.to(device)


def check(metrics: dict[str, Metric], options: dict[str, Any], device: torch.device) -> None:
    """The selected metrics agree with the all-maps one; the others know good from bad.

    Raises:
        SystemExit: they do not.
    """
    test, reference = images(2, SMALL, SMALL, device)
    whole = metrics[ALL]
    assert isinstance(whole, AllFeatureIQM)
    for name, metric in metrics.items():
        if isinstance(metric, SelectedFeatureIQM):
            columns = whole.maps.positions(metric.maps)

            def same_maps(x: Tensor, y: Tensor, columns: list[int] = columns) -> Tensor:
                return whole.map_scores(x, y)[:, columns].mean(-1)

            for work in WORK:
                found, expected = (run(m, work, test, reference) for m in (metric, same_maps))
                error = float((found - expected).abs().max() / expected.abs().max())
                if not error < TOLERANCE:
                    raise SystemExit(f"{name}: {work} differs by {error:.1e} from the same maps of {ALL}")
        clean, noisy = (float(run(metric, "forward", x, reference).mean()) for x in (reference, test))
        if not (clean > noisy if name in HIGHER_IS_BETTER else clean < noisy):
            raise SystemExit(f"{name} gives {clean} to the reference itself and {noisy} to a noisy image")


def peak(options: dict[str, Any]) -> dict[str, Any]:
    """Peak memory of one metric at one work, in its own process."""
    warnings.simplefilter("ignore")
    device = measuring.device_of(options)
    metric = MAKERS[options["metric"]](options)
    run(metric, options["work"], *images(1, SMALL, SMALL, device))
    test, reference = images(options["batch"], *options["size"], device)
    with PeakMemory(device) as memory:
        run(metric, options["work"], test, reference)
    return {"peak": memory.bytes}


def extractor(options: dict[str, Any]) -> FeatureExtractor:
    return FeatureExtractor(options["network"], weights=options["weights"]).to(options["device"])


def selected(options: dict[str, Any]) -> Metric:
    return SelectedFeatureIQM(extractor(options), options["maps"])


def first_layer(options: dict[str, Any]) -> Metric:
    network = extractor(options)
    own = [m for m in network.maps if m.layer == network.layers[0]]
    count = min(len(options["maps"]), len(own))
    return SelectedFeatureIQM(network, [own[i * len(own) // count] for i in range(count)])


def all_maps(options: dict[str, Any]) -> Metric:
    return AllFeatureIQM(extractor(options))


def lpips(options: dict[str, Any]) -> Metric:
    if options["network"] != "alexnet" or not options["weights"]:
        raise ImportError("it needs AlexNet's weights, --network alexnet --weights FILE")
    metric = lpips_alex(Path(options["weights"])).requires_grad_(False).to(options["device"])
    return lambda x, y: metric(x, y, normalize=True).flatten()


def dists(options: dict[str, Any]) -> Metric:
    """DISTS with its own alpha and beta, on a VGG16 of random weights: the time is the same."""
    import DISTS_pytorch

    untrained = torchvision.models.vgg16(weights=None)
    with mock.patch("torchvision.models.vgg16", return_value=untrained):
        metric = DISTS_pytorch.DISTS(load_weights=False)
    own = torch.load(Path(DISTS_pytorch.__file__).parent / "weights.pt", weights_only=True)
    metric.alpha.data, metric.beta.data = own["alpha"], own["beta"]
    metric.requires_grad_(False).eval().to(options["device"])

    def call(x: Tensor, y: Tensor) -> Tensor:
        value: Tensor = metric(x, y, require_grad=x.requires_grad)
        return value.flatten()

    return call


def ssim(options: dict[str, Any]) -> Metric:
    from pytorch_msssim import ssim

    return lambda x, y: ssim(x, y, data_range=1.0, size_average=False)


def ms_ssim(options: dict[str, Any]) -> Metric:
    from pytorch_msssim import ms_ssim

    return lambda x, y: ms_ssim(x, y, data_range=1.0, size_average=False)


def gmsd(options: dict[str, Any]) -> Metric:
    import piq

    return lambda x, y: piq.gmsd(x, y, data_range=1.0, reduction="none")


MAKERS: dict[str, Callable[[dict[str, Any]], Metric]] = {
    ALL: all_maps,
    "SelectedFeatureIQM": selected,
    "SelectedFeatureIQM, conv1 only": first_layer,
    "LPIPS (AlexNet)": lpips,
    "DISTS": dists,
    "SSIM": ssim,
    "MS-SSIM": ms_ssim,
    "GMSD": gmsd,
}
HIGHER_IS_BETTER = (ALL, "SelectedFeatureIQM", "SelectedFeatureIQM, conv1 only", "SSIM", "MS-SSIM")


if __name__ == "__main__":
    measuring.start(main, peak)
