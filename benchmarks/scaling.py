"""Cost curves: the score matrix against images, maps and pixels, a selection step against images and maps, processes.

    python benchmarks/scaling.py [--network alexnet --device cuda --processes 1 2 4]

Images and scores are random. Each curve has the exponent p of time ~ size^p, fitted by least squares to the logarithms.
The processes are started by torchrun (gloo, on CPUs), and have to give the same bits in any number.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import measuring
import torch
from common import store
from torch import Tensor

import fmiqa
from fmiqa import FeatureExtractor, FeatureMap
from fmiqa._tables import text_table
from fmiqa.datasets import Sample

STEPS = 4  # of a selection; the first is left out, it also prepares the data


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    measuring.add_options(parser, repeats=3)
    parser.add_argument("--network", default="alexnet")
    parser.add_argument("--images", type=int, nargs="+", default=[8, 16, 32, 64, 128])
    parser.add_argument("--size", type=measuring.sizes, default=(192, 256), help="of the images")
    parser.add_argument("--shares", type=int, nargs="+", default=[16, 8, 4, 2, 1], help="each nth channel of a layer")
    parser.add_argument("--sides", type=int, nargs="+", default=[128, 192, 256, 384, 512, 768])
    parser.add_argument("--selection-images", type=int, nargs="+", default=[312, 625, 1250, 2500, 5000])
    parser.add_argument("--selection-maps", type=int, nargs="+", default=[288, 576, 1152, 2304, 4224])
    parser.add_argument("--compiled", action="store_true", help="the compiled form of score_matrix")
    parser.add_argument("--processes", type=int, nargs="*", default=[1, 2])
    args = parser.parse_args()
    device = measuring.device_of(args)
    warnings.simplefilter("ignore")
    curves = {**matrix_curves(args, device), **selection_curves(args, device)}
    content: dict[str, Any] = {
        "network": args.network,
        "size": list(args.size),
        "compiled": args.compiled,
        "curves": curves,
    }
    if args.processes:
        content["processes"] = process_curve(args.processes)
    print(f"written to {store(f'scaling-{device.type}', content, device)}")


def matrix_curves(args: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """Seconds of `score_matrix` against images, maps and pixels."""
    extractor = FeatureExtractor(args.network, weights=None).to(device)
    few = min(args.images)

    def scoring(count: int, height: int, width: int, nth: int = 1) -> Callable[[], object]:
        data = noise(count, height, width)
        maps = some_maps(extractor, nth)
        return lambda: fmiqa.score_matrix(extractor, data, maps=maps, check=False, compile=args.compiled)

    scoring(few, *args.size)()
    images = {n: scoring(n, *args.size) for n in args.images}
    maps = {len(some_maps(extractor, nth)): scoring(few, *args.size, nth) for nth in args.shares}
    pixels = {side * side: scoring(few, side, side) for side in args.sides}
    return {
        "score matrix / images": curve("score matrix against images", images, args, device),
        "score matrix / maps": curve("score matrix against maps of all layers", maps, args, device),
        "score matrix / pixels": curve("score matrix against pixels", pixels, args, device),
    }


def some_maps(extractor: FeatureExtractor, nth: int) -> list[FeatureMap]:
    return [m for m in extractor.maps if m.channel % nth == 0]


def curve(
    title: str, calls: dict[int, Callable[[], object]], args: argparse.Namespace, device: torch.device
) -> dict[str, Any]:
    """Time each call, and fit the exponent."""
    least = measuring.alternate({str(x): call for x, call in calls.items()}, repeats=args.repeats, device=device)
    return fitted(title, list(calls), list(least.values()))


def fitted(title: str, x: list[int], y: list[float]) -> dict[str, Any]:
    power = measuring.exponent(x, y)
    print(f"\n{title}: seconds ~ size^{power:.2f}")
    rows = [("size", "seconds", "microseconds / size")]
    rows += [(str(a), f"{b:.4f}", f"{1e6 * b / a:.4g}") for a, b in zip(x, y, strict=True)]
    print(text_table(rows), flush=True)
    return {"size": x, "seconds": y, "exponent": power}


def selection_curves(args: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """Seconds of one step of `forward_select` against images and candidate maps."""
    n, m = (sorted(given)[len(given) // 2] for given in (args.selection_images, args.selection_maps))
    step_seconds(200, 50, device)
    found = {}
    for title, given, shape in (
        ("selection step / images", args.selection_images, lambda size: (size, m)),
        ("selection step / maps", args.selection_maps, lambda size: (n, size)),
    ):
        least = [min(step_seconds(*shape(size), device) for _ in range(args.repeats)) for size in given]
        fixed = f"{m} maps" if title.endswith("images") else f"{n} images"
        found[title] = {**fitted(f"{title}, {fixed}", given, least), "fixed": fixed}
    return found


def step_seconds(images: int, maps: int, device: torch.device) -> float:
    """The fastest step after the first, on scores that all rise with the targets."""
    values, targets = random_scores(images, maps)
    ends = []
    fmiqa.forward_select(
        values.to(device), targets.to(device), max_maps=STEPS, callback=lambda _: ends.append(time.perf_counter())
    )
    assert len(ends) == STEPS, "the selection stopped early"
    return min(b - a for a, b in pairwise(ends))


def random_scores(images: int, maps: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    targets = torch.rand(images, generator=generator, dtype=torch.float64)
    values = torch.rand(images, maps, generator=generator, dtype=torch.float64)
    return values + 0.5 * targets[:, None], targets


def process_curve(counts: list[int]) -> dict[str, Any]:
    """Seconds with so many processes of one thread each, which have to agree in all bits."""
    script = Path(__file__).with_name("processes.py")
    runs: dict[int, dict[str, Any]] = {}
    for count in counts:
        command = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--standalone"]
        command += ["--nproc-per-node", str(count), str(script)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        if done.returncode:
            raise SystemExit(f"{count} processes failed:\n{done.stderr[-2000:]}")
        runs[count] = json.loads(done.stdout.strip().splitlines()[-1])
    first = runs[counts[0]]
    rows = [("processes", "score matrix: s", "speed", "selection: s", "speed")]
    for count, run in runs.items():
        if run["values_sha256"] != first["values_sha256"] or run["maps"] != first["maps"]:
            raise SystemExit(f"{count} processes give other scores or maps than {counts[0]}")
        line = [str(count)]
        for key in ("score_matrix", "selection"):
            line += [f"{run[key]:.2f}", f"{first[key] / run[key]:.2f}"]
        rows.append(tuple(line))
    print(f"\n{os.cpu_count()} cores, one thread a process; the same bits in all runs")
    print(text_table(rows))
    return {str(count): run for count, run in runs.items()}


def noise(count: int, height: int, width: int) -> list[Sample]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count + 1, 3, height, width), generator=generator).byte()
    return [Sample(images[0], image, 0.0, "noise", str(i)) for i, image in enumerate(images[1:])]


if __name__ == "__main__":
    main()
