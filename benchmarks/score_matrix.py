"""The score matrix of a data set against the network's bare forward passes, and against SSIM from other packages.

    python benchmarks/score_matrix.py --tid2013 TID2013-R/ --name TID2013-R --weights alexnet_features.pth --cold
    python benchmarks/score_matrix.py --network vgg16 --sizes 224x224 1080x1920
    python benchmarks/score_matrix.py --device cuda --tid2013 TID2013/ --name TID2013 --images 3000 --references 25 --decoded

The bare forward is torchvision's own module over the distorted images and the distinct references, decoded as ours,
in whichever memory format and batches are faster. Packages that compare one pair of layers at a time get the network's
features of test image and reference for free; their time is added to that of one bare forward. Without --tid2013, the
images are the embedded data set's. Every other score is checked against pytorch-msssim in float64 before it is timed.
"""  # noqa: E501

from __future__ import annotations

import argparse
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import measuring
import torch
import torchvision
from common import store
from torch import Tensor
from torch.utils.data import DataLoader, Subset
from torch.utils.flop_counter import FlopCounterMode

import fmiqa
from fmiqa import FeatureExtractor
from fmiqa._runtime.precision import strict_float32
from fmiqa._tables import text_table
from fmiqa.datasets import Demo, Sample
from fmiqa.datasets.base import SampleSource
from fmiqa.measures import Custom, Measure
from fmiqa.scoring.loading import reference_ids

TOLERANCE = 2e-5  # of float32 scores against float64
TOLERANCE_FLOAT32 = 1e-3  # of packages that take E[x^2] - mu^2 in float32, of maps far from zero
SIGMA = 1.5
WINDOW = 11
TORCHMETRICS = "torchmetrics, one call a layer"
CHANNELS = 16  # compared at once in float64
WITHOUT_SSIM = "ours, compiled, without SSIM"
Package = Callable[[Tensor, Tensor], Tensor]
DECODERS = min(8, os.cpu_count() or 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    measuring.add_options(parser, repeats=3)
    parser.add_argument("--tid2013", type=Path, help="a data set in TID2013's layout; the embedded one without")
    parser.add_argument("--name", default="TID2013", help="the name of that data set")
    parser.add_argument("--network", choices=("alexnet", "vgg16"), default="alexnet")
    parser.add_argument("--weights", type=Path, help="file of the network's weights; random ones without")
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--references", type=int, default=4, help="reference pictures that the images are of")
    parser.add_argument("--decoded", action="store_true", help="decode all images before the clock starts")
    parser.add_argument("--sizes", type=measuring.sizes, nargs="*", default=[], help="noise images too, as 384x512")
    parser.add_argument("--noise-images", type=int, default=16, help="how many of each of these sizes")
    parser.add_argument("--alone", type=int, default=1, help="images for the packages that are slower")
    parser.add_argument("--no-packages", action="store_true", help="check against pytorch-msssim, but time ours alone")
    parser.add_argument("--memory", type=int, help="score_matrix's budget in bytes, its default without")
    parser.add_argument("--cold", action="store_true", help="what compiling costs, with and without a cache")
    args = parser.parse_args()
    device = measuring.device_of(args)
    warnings.simplefilter("ignore")
    options = {k: str(v) if isinstance(v, Path) else v for k, v in vars(args).items()}
    extractor = make_extractor(options)
    figures = [measure(args.name if args.tid2013 else "Demo", extractor, real_images(options), args)]
    for height, width in args.sizes:
        generator = torch.Generator().manual_seed(0)
        images = torch.randint(0, 256, (args.noise_images + 1, 3, height, width), generator=generator)
        noise = [Sample(images[0].byte(), x.byte(), 0.0, "noise", str(i)) for i, x in enumerate(images[1:])]
        figures.append(measure("noise", extractor, noise, args))
    content: dict[str, Any] = {"network": args.network, "weights": "file" if args.weights else "random"}
    content["runs"] = figures
    if args.cold:
        content["cold"] = cold(options, figures[0])
    print(f"written to {store(f'score_matrix-{args.network}-{device.type}', content, device)}")


def make_extractor(options: dict[str, Any]) -> FeatureExtractor:
    return FeatureExtractor(options["network"], weights=options["weights"]).to(options["device"])


def real_images(options: dict[str, Any]) -> SampleSource:
    """So many images, evenly of the first references."""
    count, references = options["images"], options["references"]
    if options["tid2013"]:
        data: Any = fmiqa.datasets.TID2013(options["tid2013"], partial=True, name=options["name"])
    else:
        data = Demo(references=references, size=384, levels=-(-count // (6 * references)))
    by_reference: dict[str, list[int]] = {}
    for row, reference in enumerate(data.reference_ids):
        by_reference.setdefault(reference, []).append(row)
    each = -(-count // references)
    rows = [row for _, own in zip(range(references), by_reference.values(), strict=False) for row in own[:each]]
    subset = Subset(data, rows[:count])
    return [subset[i] for i in range(len(subset))] if options["decoded"] else subset


class Bare:
    """The network's forward passes alone: torchvision's module up to its last activation."""

    def __init__(self, extractor: FeatureExtractor, memory_format: torch.memory_format, size: int) -> None:
        network = torchvision.models.get_model(extractor.network_name, weights=None).features[:-1]  # but the pooling
        state = extractor.network.state_dict()
        network.load_state_dict({name.removeprefix("features."): value for name, value in state.items()})
        self.network = network.eval().to(extractor.device, memory_format=memory_format)
        self.extractor, self.memory_format, self.size = extractor, memory_format, size

    @torch.inference_mode()
    def __call__(self, data: SampleSource, workers: int) -> None:
        for images in batches(data, workers, self.size):
            self.forward(images.to(self.extractor.device))

    def forward(self, images: Tensor) -> Tensor:
        with strict_float32(images.device):
            images = (images.float() / 255 - self.extractor.mean) / self.extractor.std
            last: Tensor = self.network(images.contiguous(memory_format=self.memory_format))
            return last


def batches(data: SampleSource, workers: int, size: int) -> Iterator[Tensor]:
    """Each distinct reference, then its test images in batches."""
    ids = reference_ids(data)
    assert ids is not None
    place = {name: number for number, name in enumerate(dict.fromkeys(ids))}
    order = sorted(range(len(ids)), key=lambda row: place[ids[row]])
    loader = DataLoader(data, sampler=order, batch_size=None, collate_fn=lambda x: x, num_workers=workers)  # type: ignore[arg-type]
    reference, batch = None, []
    for sample in loader:
        if batch and (sample.reference_id != reference or len(batch) == size):
            yield torch.stack(batch)
            batch = []
        if sample.reference_id != reference:
            reference = sample.reference_id
            yield sample.reference[None]
        batch.append(sample.distorted)
    yield torch.stack(batch)


def ours(
    extractor: FeatureExtractor,
    data: SampleSource,
    *,
    compiled: bool,
    workers: int,
    memory: int | None = None,
    measure: str | Measure = "ssim",
) -> Tensor:
    """The score matrix, without the check of the files."""
    options: dict[str, Any] = {"check": False, "workers": workers, "memory": memory, "compile": compiled}
    return fmiqa.score_matrix(extractor, data, measure=measure, **options).values


def corner(test: Tensor, _: Tensor) -> Tensor:
    """No comparison: one value of each map."""
    return test[..., 0, 0]


NOTHING = Custom(corner, higher_is_better=True)


def measure(name: str, extractor: FeatureExtractor, data: SampleSource, args: argparse.Namespace) -> dict[str, Any]:
    """Check and time one set of images; prints its table."""
    device, count = extractor.device, len(data)
    workers = 0 if device.type == "cpu" or isinstance(data, list) else DECODERS
    height, width = data[0].distorted.shape[1:]
    pairs = [layer_pairs(extractor, data[i]) for i in range(min(args.alone, count))]
    packages = other_packages()
    if min(window(x) for x, _ in pairs[0]) < WINDOW and packages.pop(TORCHMETRICS, None):
        print("maps smaller than torchmetrics' window, which it cannot make smaller: left out")
    agreement = check(extractor, data, pairs, packages, workers)
    if args.no_packages:
        packages.clear()
    last, many = torch.channels_last, 8 if device.type == "cpu" else 64
    bare = {
        f"bare forward, channels first, batches of {many}": Bare(extractor, torch.contiguous_format, many),
        f"bare forward, channels last, batches of {many}": Bare(extractor, last, many),
        "bare forward, channels last, one by one": Bare(extractor, last, 1),
    }
    with torch.inference_mode():
        for run in bare.values():
            agreement["last layer, bare against ours"] = last_layer_difference(run, extractor, data[0])

    calls: dict[str, Callable[[], object]] = {label: partial(run, data, workers) for label, run in bare.items()}
    own: dict[str, dict[str, Any]] = {
        "ours, eager": {"compiled": False},
        "ours, compiled": {"compiled": True},
        WITHOUT_SSIM: {"compiled": True, "measure": NOTHING},
    }
    # A full batch and one image: whatever is compiled is compiled before the clock starts.
    ids = reference_ids(data) or ()
    first = [data[i] for i in [row for row, name in enumerate(ids) if name == ids[0]][: many + 1]]
    for label, options in own.items():
        ours(extractor, first, workers=0, memory=args.memory, **options)
        calls[label] = partial(ours, extractor, data, workers=workers, memory=args.memory, **options)
    copy, copied = measuring.large_copy(device)
    product, operations = measuring.large_product(device)
    whole = measuring.alternate({**calls, "copy": copy, "product": product}, repeats=args.repeats, device=device)
    # By themselves: what they leave of the memory slows what comes after them by a tenth.
    theirs = {label: partial(each_layer, package, pairs) for label, package in packages.items()}
    whole |= measuring.alternate(theirs, repeats=args.repeats, device=device)
    limits = {"bytes_per_second": copied / whole.pop("copy"), "flops": operations / whole.pop("product")}
    floor = min(whole[label] for label in bare) / count
    each = {label: floor + v / len(pairs) if label in packages else v / count for label, v in whole.items()}

    references = len(set(reference_ids(data) or ()))
    print(f"\n{extractor.network_name}, {count} images {height}x{width} of {references} references ({name}), {device}")
    print("largest difference: " + ", ".join(f"{label} {value:.1e}" for label, value in agreement.items()))
    rows = [("", "ms an image", "/ bare forward")]
    rows += [(label, f"{1000 * value:.2f}", f"{value / floor:.3f}") for label, value in each.items()]
    print(text_table(rows))
    use = shares(next(iter(bare.values())), extractor, data, each, floor, limits)
    print(f"copies at {limits['bytes_per_second'] / 1e9:.1f} GB/s, products at {limits['flops'] / 1e9:.0f} GFLOP/s")
    print("share of that: " + ", ".join(f"{label} {value:.2f}" for label, value in use.items()))
    return {
        "images": count, "references": references, "size": [height, width], "data": name, "decoded": args.decoded,
        "largest_difference": agreement, "seconds_per_image": each,
        "ratio_to_bare": {label: value / floor for label, value in each.items()},
        "measured_limits": limits, "shares": use,
    }  # fmt: skip


@torch.inference_mode()
def layer_pairs(extractor: FeatureExtractor, sample: Sample) -> list[tuple[Tensor, Tensor]]:
    """Each layer's maps of the test image and of the reference."""
    with strict_float32(extractor.device):
        test, reference = (
            extractor(x[None].to(extractor.device)).values() for x in (sample.distorted, sample.reference)
        )
    pairs = zip(test, reference, strict=True)
    return [(x.contiguous(), y.contiguous()) for x, y in pairs]


@torch.inference_mode()
def each_layer(package: Package, pairs: list[list[tuple[Tensor, Tensor]]]) -> Tensor:
    """(images, maps), as a package has it."""
    return torch.stack([torch.cat([package(x, y) for x, y in layers]) for layers in pairs]).cpu()


def other_packages() -> dict[str, Package]:
    """SSIM of two layers (1, C, H, W) -> (C,), by the packages that are installed."""
    found: dict[str, Package] = {}
    try:
        from pytorch_msssim import ssim
    except ImportError:
        raise SystemExit("this needs pytorch-msssim: pip install pytorch-msssim") from None

    def one_call(x: Tensor, y: Tensor) -> Tensor:
        side = window(x)
        value: Tensor = ssim(x, y, data_range=1.0, size_average=False, win_size=side, win_sigma=SIGMA)
        return value

    def grouped(x: Tensor, y: Tensor) -> Tensor:
        return one_call(x.transpose(0, 1), y.transpose(0, 1))

    def one_at_a_time(x: Tensor, y: Tensor) -> Tensor:
        return torch.cat([one_call(a, b) for a, b in zip(x.split(1, 1), y.split(1, 1), strict=True)])

    found["pytorch-msssim, one call a layer"] = grouped
    found["pytorch-msssim, a map at a time"] = one_at_a_time
    try:
        from torchmetrics.functional.image import structural_similarity_index_measure as theirs
    except ImportError:
        print("torchmetrics is not installed, left out")
        return found

    def torchmetrics(x: Tensor, y: Tensor) -> Tensor:
        x, y = x.transpose(0, 1), y.transpose(0, 1)
        _, full = theirs(x, y, sigma=SIGMA, data_range=1.0, reduction="none", return_full_image=True)
        return full[..., 5:-5, 5:-5].mean((1, 2, 3))  # its own mean takes in windows over the mirrored border

    found[TORCHMETRICS] = torchmetrics
    return found


def window(maps: Tensor) -> int:
    side = min(WINDOW, *maps.shape[-2:])
    return side - (side % 2 == 0)


@torch.inference_mode()
def check(
    extractor: FeatureExtractor,
    data: SampleSource,
    pairs: list[list[tuple[Tensor, Tensor]]],
    packages: dict[str, Package],
    workers: int,
) -> dict[str, float]:
    """The largest difference of each way of computing the scores from pytorch-msssim in float64.

    Raises:
        SystemExit: one is beyond its tolerance.
    """
    grouped = packages["pytorch-msssim, one call a layer"]

    def exact(x: Tensor, y: Tensor) -> Tensor:
        parts = zip(x.split(CHANNELS, 1), y.split(CHANNELS, 1), strict=True)
        return torch.cat([grouped(a.double(), b.double()) for a, b in parts])

    expected = each_layer(exact, pairs)
    few = [data[i] for i in range(len(pairs))]
    found = {}
    for label, compiled in (("ours, eager", False), ("ours, compiled", True)):
        own = ours(extractor, few, compiled=compiled, workers=0)
        found[label] = float((own - expected).abs().max())
    limits = dict.fromkeys(found, TOLERANCE)
    for label, package in packages.items():
        if label.endswith("at a time"):
            continue  # the same arithmetic as in one call
        difference = each_layer(package, pairs) - expected
        found[label], limits[label] = float(difference.abs().max()), TOLERANCE_FLOAT32
    for label, value in found.items():
        if not value <= limits[label]:
            raise SystemExit(f"{label}: scores differ by {value:.2e}, more than {limits[label]:g}; nothing timed")
    return found


def last_layer_difference(bare: Bare, extractor: FeatureExtractor, sample: Sample) -> float:
    """Relative difference between the bare forward's maps and ours."""
    image = sample.distorted[None].to(extractor.device)
    with strict_float32(image.device):
        expected = extractor(image)[extractor.layers[-1]]
    difference = float((bare.forward(image) - expected).abs().max() / expected.abs().max())
    if not difference < 1e-4:
        raise SystemExit(f"the bare forward is another network: its maps differ by {difference:.1e} of their largest")
    return difference


def shares(
    bare: Bare,
    extractor: FeatureExtractor,
    data: SampleSource,
    each: dict[str, float],
    floor: float,
    limits: dict[str, float],
) -> dict[str, float]:
    """How near the runs come to the device's measured limits."""
    sample = data[0]
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        bare.forward(sample.distorted[None].to(extractor.device))
    passes = 1 + len(set(reference_ids(data) or ())) / len(data)
    flops = counter.get_total_flops() * passes
    layers = extractor.layer_shapes(*sample.distorted.shape[1:]).values()
    least = 4 * sum(c * h * w for c, h, w in layers)  # each map of a test image read once by SSIM
    found = {"arithmetic: bare": flops / floor / limits["flops"]}
    ssim = max(each["ours, compiled"] - each[WITHOUT_SSIM], 1e-9)
    found["bandwidth: SSIM, compiled"] = least / ssim / limits["bytes_per_second"]
    return found


def cold(options: dict[str, Any], figures: dict[str, Any]) -> dict[str, Any]:
    """What the first call costs in a fresh cache folder and with the cache of an earlier process."""
    each = figures["seconds_per_image"]
    saved = each["ours, eager"] - each["ours, compiled"]
    found: dict[str, Any] = {"seconds_saved_per_image": saved}
    with tempfile.TemporaryDirectory() as folder:
        environment = {"TORCHINDUCTOR_CACHE_DIR": folder, "TRITON_CACHE_DIR": f"{folder}/triton"}
        for label in ("fresh cache", "cache of another process"):
            run = measuring.in_fresh_process(__file__, options, environment=environment)
            if "failed" in run:
                raise SystemExit(f"compiling failed: {run['failed']}")
            cost = run["first"] - run["second"]
            pays = cost / saved if saved > 0 else None
            found[label] = {**run, "cost": cost, "images_until_paid": pays}
            after = "never" if pays is None else f"after {pays:.0f} images"
            print(f"compiling, {label}: {cost:.1f} s; has paid {after}")
    return found


def first_calls(options: dict[str, Any]) -> dict[str, Any]:
    """Seconds of the first and the second compiled run on a few images, after an eager one."""
    device = measuring.device_of(options)
    extractor = make_extractor(options)
    data = real_images({**options, "images": 8, "references": 2, "decoded": True})

    def run(compiled: bool) -> float:
        return measuring.seconds(lambda: ours(extractor, data, compiled=compiled, workers=0), device)

    return {"eager": run(False), "first": run(True), "second": run(True)}


if __name__ == "__main__":
    measuring.start(main, first_calls)
