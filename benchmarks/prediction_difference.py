"""Prediction difference analysis of one image: time, and the ratio to a plain loop over whole images.

    python benchmarks/prediction_difference.py IMAGE --weights alexnet_features.pth --maps conv2:38 ... [--stride 4]

The plain loop runs the network on one whole image for each sample of each window, which serves all maps too; it is
timed on some samples, after both ways have been compared on them. Writes results/prediction_difference-<device>.json.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import measuring
import torch
from common import store

import fmiqa
from fmiqa import MapIndex
from fmiqa.datasets import read_image
from fmiqa.visualize import ConditionalSampler, prediction_difference
from fmiqa.visualize.replay import Replay

TOLERANCE = 1e-5  # of changes of float32 means of up to some tens


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    measuring.add_options(parser, repeats=3)
    parser.add_argument("image", type=Path)
    parser.add_argument("--weights", required=True, type=Path, help="AlexNet's")
    parser.add_argument("--maps", nargs="+", required=True)
    parser.add_argument("--stride", type=int, default=4)
    parser.add_argument("--samples", type=int, default=10)
    parser.add_argument("--check", type=int, default=8, help="windows on which both ways are compared and timed")
    args = parser.parse_args()
    device = measuring.device_of(args)
    extractor = fmiqa.FeatureExtractor("alexnet", weights=args.weights).to(device)
    image, maps = read_image(args.image).to(device), MapIndex(args.maps)
    sampler = ConditionalSampler([image.cpu()])

    windows = torch.Generator().manual_seed(0)
    tops = torch.randint(image.shape[1] - 9, (args.check,), generator=windows).to(device)
    lefts = torch.randint(image.shape[2] - 9, (args.check,), generator=windows).to(device)
    drawn = sampler.sample(image.float() / 255, tops, lefts, args.samples, windows)
    ways = {way: Replay(extractor, image, maps, local=way) for way in (True, False)}
    local, whole = (ways[way].mean_change(drawn, tops, lefts) for way in (True, False))
    difference = float((local - whole).abs().max())
    if not difference <= TOLERANCE:
        raise SystemExit(f"the two ways differ by {difference:.1e}, more than {TOLERANCE:g}; nothing timed")

    def loop() -> None:
        for number in range(args.check):
            for sample in range(args.samples):
                one = drawn[number : number + 1, sample : sample + 1]
                ways[False].mean_change(one, tops[number : number + 1], lefts[number : number + 1])

    plain = measuring.alternate({"loop": loop}, repeats=args.repeats, device=device)["loop"]
    plain /= args.check * args.samples
    start = time.perf_counter()
    found = prediction_difference(extractor, image, maps, sampler=sampler, stride=args.stride, samples=args.samples)
    taken = time.perf_counter() - start
    height, width = image.shape[1:]
    count = len(range(0, height - 9, args.stride)) + ((height - 10) % args.stride > 0)
    count *= len(range(0, width - 9, args.stride)) + ((width - 10) % args.stride > 0)
    runs = count * args.samples
    each = taken / runs
    every = (height - 9) * (width - 9) * args.samples
    print(f"{len(maps)} maps, {width}x{height}, stride {args.stride}: {count} windows, {runs} runs serve all maps")
    print(
        f"{taken:.0f} s, {1000 * each:.2f} ms a run; plain loop {1000 * plain:.2f} ms a run: {plain / each:.1f} times"
    )
    print(f"at stride 1: {every} runs, by these times {every * each / 60:.0f} min; plain {every * plain / 3600:.0f} h")
    content = {
        "maps": [str(m) for m in maps], "size": [height, width], "stride": args.stride, "samples": args.samples,
        "windows": count, "runs": runs, "seconds": taken, "seconds_a_run": each, "seconds_a_run_plain": plain,
        "ratio": plain / each, "largest_difference": difference,
        "largest_relevance": float(found.relevance.abs().max()),
    }  # fmt: skip
    print(f"written to {store(f'prediction_difference-{device.type}', content, device)}")


if __name__ == "__main__":
    main()
