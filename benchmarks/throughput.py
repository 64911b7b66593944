"""Seconds of a score matrix of generated images, in memory and in files, against the network's bare forward passes.

    python benchmarks/throughput.py --device cuda
    python benchmarks/throughput.py --images 24 --references 2 --size 96x128

The bare forward is torchvision's own module on batches that lie on the device already. Loading is what decodes the
files, with as many workers as the score matrix, and nothing else. The first score matrix of each kind is not timed.
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from pathlib import Path
from typing import Any

import measuring
import torch
from common import store
from PIL import Image
from score_matrix import Bare, make_extractor
from torch import Tensor
from torch.nn import functional as F

import fmiqa
from fmiqa._runtime.precision import strict_float32
from fmiqa._tables import text_table
from fmiqa.datasets import ImageDataset, Record, Sample
from fmiqa.datasets.base import SampleSource
from fmiqa.features.extractor import FeatureExtractor
from fmiqa.scoring.loading import default_workers, loaded


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    measuring.add_options(parser, repeats=3)
    parser.add_argument("--networks", nargs="+", choices=("alexnet", "vgg16"), default=["alexnet", "vgg16"])
    parser.add_argument("--weights", type=Path, help="file of the only network's weights; random ones without")
    parser.add_argument("--images", type=int, default=3000)
    parser.add_argument("--references", type=int, default=25)
    parser.add_argument("--size", type=measuring.sizes, default=(384, 512))
    parser.add_argument("--format", choices=("bmp", "png", "jpeg"), default="bmp", help="of the files")
    parser.add_argument("--batch", type=int, help="test images in a batch, the default's without")
    parser.add_argument("--workers", type=int, help="what decodes ahead, the default's without")
    parser.add_argument("--precision", choices=("float32", "tf32", "bfloat16"), default="float32")
    args = parser.parse_args()
    device = measuring.device_of(args)
    warnings.simplefilter("ignore")
    samples = generated(args.images, args.references, *args.size)
    with tempfile.TemporaryDirectory() as folder:
        files = written(samples, Path(folder), args.format)
        runs = [measure(network, samples, files, device, args) for network in args.networks]
    content = {"images": args.images, "references": args.references, "size": args.size, "format": args.format}
    print(f"written to {store(f'throughput-{device.type}', {**content, 'runs': runs}, device)}")


def generated(count: int, references: int, height: int, width: int) -> list[Sample]:
    """Smooth pictures, and each with noise of several strengths."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(references, 3, 12, 16, generator=generator)
    pictures = [F.interpolate(c[None], (height, width), mode="bicubic")[0].mul(255).clamp(0, 255) for c in coarse]
    samples = []
    for i in range(count):
        number, level = i * references // count, 1 + i % 12
        noise = torch.randn(height, width, generator=generator) * 4 * level
        test = (pictures[number] + noise).clamp(0, 255).byte()
        samples.append(Sample(pictures[number].byte(), test, float(-level), f"scene{number:03d}", f"image{i:05d}"))
    return samples


def written(samples: list[Sample], folder: Path, kind: str) -> ImageDataset:
    """The same as files."""
    records = []
    for sample in samples:
        reference, test = (folder / f"{name}.{kind}" for name in (sample.reference_id, sample.name))
        if not reference.exists():
            save(sample.reference, reference)
        save(sample.distorted, test)
        records.append(Record(reference, test, sample.score, sample.reference_id, sample.name))
    return ImageDataset(records, name="generated")


def save(image: Tensor, path: Path) -> None:
    Image.fromarray(image.permute(1, 2, 0).contiguous().numpy()).save(path)


def measure(
    network: str, samples: list[Sample], files: ImageDataset, device: torch.device, args: argparse.Namespace
) -> dict[str, Any]:
    """Time one network; prints its table."""
    extractor = make_extractor({"network": network, "weights": args.weights, "device": device})
    scored = extractor
    if args.precision != "float32":
        weights = extractor.network.state_dict()
        scored = FeatureExtractor(network, weights=weights, precision=args.precision).to(device)
    workers = default_workers(files, device) if args.workers is None else args.workers
    options: dict[str, Any] = {"check": False, "batch_size": args.batch, "workers": args.workers}

    def score(data: SampleSource) -> Tensor:
        return fmiqa.score_matrix(scored, data, **options).values

    def load() -> None:
        for _ in loaded(files, range(len(files)), workers, digests=False):
            pass

    size = args.batch or (8 if device.type == "cpu" else 64)
    bare = Bare(extractor, torch.channels_last if device.type == "cpu" else torch.contiguous_format, size)
    batch = torch.stack([sample.distorted for sample in samples[:size]]).to(device)
    passes = len(samples) + len({sample.reference_id for sample in samples})

    @torch.inference_mode()
    def forward() -> None:
        with strict_float32(device):
            for start in range(0, passes, size):
                bare.forward(batch[: passes - start])

    first = samples[: 2 * size]
    score(first)
    if args.format != "jpeg":
        few = min(len(samples), 2 * size)
        difference = float((score(files)[:few] - score(samples)[:few]).abs().max())
        if difference > 1e-3:
            raise SystemExit(f"scores from files differ by {difference:.1e} from those of the same images in memory")
    calls = {"bare forward": forward, "loading": load}
    calls |= {"score matrix, in memory": lambda: score(samples), "score matrix, files": lambda: score(files)}
    seconds = measuring.alternate(calls, repeats=args.repeats, device=device)
    floor = seconds["bare forward"]
    print(f"\n{network}, {len(samples)} images {args.size[0]}x{args.size[1]}, {args.precision}, {device}")
    rows = [("", "seconds", "ms an image", "/ bare forward")]
    for label, value in seconds.items():
        rows.append((label, f"{value:.2f}", f"{1000 * value / len(samples):.3f}", f"{value / floor:.2f}"))
    print(text_table(rows))
    share = seconds["loading"] / seconds["score matrix, files"]
    print(f"loading alone takes {share:.2f} of the time from files, with {workers} workers")
    return {"network": network, "precision": args.precision, "seconds": seconds, "workers": workers, "loading": share}


if __name__ == "__main__":
    main()
