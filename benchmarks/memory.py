"""Peak memory against the budget given to `score_matrix`, and of a selection on a matrix of KADID-10k's size.

    python benchmarks/memory.py [--device cuda --budgets 256 1024 4096]

Each case runs in a process of its own, which has scored one small image before, so that libraries are loaded. The peak
is what the process takes beyond that: images, features, moments, and what the libraries take beside. On a CPU, a
process may not take more than --limit; one that wants more is reported, and takes nothing from the others.
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
from measuring import MIB, PeakMemory

import fmiqa
from fmiqa import FeatureExtractor, MapIndex, ScoreMatrix
from fmiqa._tables import text_table
from fmiqa.datasets import Sample

CASES = [
    ("alexnet", (384, 512), 8),
    ("vgg16", (384, 512), 8),
    ("alexnet", (1080, 1920), 2),
    ("vgg16", (1080, 1920), 1),
    ("alexnet", (3000, 4000), 1),
    ("vgg16", (3000, 4000), 1),
]
KADID = (10_125, 4224)  # images, maps of VGG16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    measuring.add_options(parser, repeats=1)
    parser.add_argument("--budgets", type=int, nargs="+", default=[256, 1024, 4096], help="MiB given to score_matrix")
    parser.add_argument("--limit", type=int, default=14 * 1024, help="MiB that a process may take, on a CPU")
    parser.add_argument("--compiled", action="store_true", help="the compiled form")
    parser.add_argument("--networks", nargs="+", default=["alexnet", "vgg16"])
    parser.add_argument("--largest", type=measuring.sizes, default=(3000, 4000), help="leave larger images out")
    parser.add_argument("--matrix", type=measuring.sizes, default=KADID, help="images x maps; 0x0 leaves it out")
    parser.add_argument("--scratch", type=Path, help="folder for the matrix's file")
    args = parser.parse_args()
    device = measuring.device_of(args)
    limit = args.limit * MIB if device.type == "cpu" else None
    options = {"device": args.device, "threads": args.threads, "compiled": args.compiled}

    rows = [("network", "image", "images", "budget MiB", "peak MiB", "peak / budget", "seconds")]
    figures: list[dict[str, Any]] = []
    for network, (height, width), count in CASES:
        if network not in args.networks or height * width > args.largest[0] * args.largest[1]:
            continue
        for budget in args.budgets:
            case = {"network": network, "size": [height, width], "images": count, "budget": budget * MIB}
            found = measuring.in_fresh_process(__file__, {**options, **case}, limit=limit)
            figures.append({**case, **found})
            rows.append((network, f"{height}x{width}", str(count), str(budget), *cells(found, budget * MIB)))
            print(" ".join(rows[-1]), flush=True)
    print("\n" + text_table(rows))
    content: dict[str, Any] = {"compiled": args.compiled, "limit": limit, "score_matrix": figures}
    if all(args.matrix):
        content["selection"] = selection(args, options, limit)
    print(f"written to {store(f'memory-{device.type}', content, device)}")


def cells(found: dict[str, Any], budget: int) -> tuple[str, str, str]:
    if "failed" in found:
        return ("failed", "-", found["failed"])
    return (f"{found['peak'] / MIB:.0f}", f"{found['peak'] / budget:.2f}", f"{found['seconds']:.1f}")


def selection(args: argparse.Namespace, options: dict[str, Any], limit: int | None) -> dict[str, Any]:
    """Two steps of forward selection on a matrix that is read from disk."""
    images, maps = args.matrix
    generator = torch.Generator().manual_seed(0)
    targets = torch.rand(images, generator=generator, dtype=torch.float64)
    values = torch.rand(images, maps, generator=generator).add_(0.5 * targets[:, None].float())
    with tempfile.TemporaryDirectory(dir=args.scratch) as folder:
        path = Path(folder) / "matrix.safetensors"
        names = [str(i) for i in range(images)]
        ScoreMatrix(values, MapIndex.of_layers({"map": maps}), targets, names, names).save(path)
        found = measuring.in_fresh_process(__file__, {**options, "matrix": str(path)}, limit=limit)
    size = 4 * images * maps
    print(f"\nforward_select, 2 steps, {images} images x {maps} maps ({size / MIB:.0f} MiB of float32) from disk")
    if "failed" in found:
        print(f"failed: {found['failed']}")
    else:
        times = found["peak"] / size
        print(f"peak {found['peak'] / MIB:.0f} MiB, {times:.1f} times the matrix; {found['seconds']:.0f} s")
    return {"images": images, "maps": maps, "matrix_bytes": size, **found}


def case(options: dict[str, Any]) -> dict[str, Any]:
    """Peak and seconds of one case, in its own process."""
    warnings.simplefilter("ignore")
    device = measuring.device_of(options)
    if "matrix" in options:
        small = torch.rand(50, 8)
        fmiqa.forward_select(small, small[:, 0] + small[:, 1], max_maps=2)
        with PeakMemory(device) as memory:
            taken = measuring.seconds(
                lambda: fmiqa.forward_select(ScoreMatrix.load(options["matrix"]), max_maps=2), device
            )
        return {"peak": memory.bytes, "seconds": taken}
    extractor = FeatureExtractor(options["network"], weights=None).to(device)
    keywords: dict[str, Any] = {"check": False, "compile": options["compiled"]}
    fmiqa.score_matrix(extractor, noise(1, 192, 192), memory=16 * MIB, **keywords)
    data = noise(options["images"], *options["size"])
    with PeakMemory(device) as memory:
        taken = measuring.seconds(
            lambda: fmiqa.score_matrix(extractor, data, memory=options["budget"], **keywords), device
        )
    return {"peak": memory.bytes, "seconds": taken}


def noise(count: int, height: int, width: int) -> list[Sample]:
    images = torch.randint(0, 256, (count + 1, 3, height, width), dtype=torch.uint8)
    return [Sample(images[0], image, 0.0, "noise", str(i)) for i, image in enumerate(images[1:])]


if __name__ == "__main__":
    measuring.start(main, case)
