"""Activation maximisation of AlexNet: how far beyond the most exciting image, and whether conv1's pictures fit its filters.

    python benchmarks/maximization.py IMAGE ... --weights alexnet_features.pth --maps conv2:38 ...

A filter's peak is the frequency at which its response is largest; a picture's, that of its own spectrum once its mean
and the frequencies below those that a filter of 11 pixels can tell apart are left out. Writes results/maximization.json.
"""  # noqa: E501

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from common import store
from torch import Tensor

import fmiqa
from fmiqa._tables import text_table
from fmiqa.datasets import read_image
from fmiqa.visualize import maximize_activation, mean_activations

SIDE = 128
RESOLVED = 1 / 11  # cycles a pixel: conv1's filters are 11 pixels wide


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", nargs="+", type=Path)
    parser.add_argument("--weights", required=True, type=Path, help="AlexNet's")
    parser.add_argument("--maps", nargs="+", required=True)
    parser.add_argument("--steps", type=int, default=512)
    args = parser.parse_args()
    extractor = fmiqa.FeatureExtractor("alexnet", weights=args.weights)
    most = mean_activations(extractor, (read_image(path) for path in args.images), args.maps).amax(0)
    content: dict[str, object] = {"images": len(args.images), "steps": args.steps}
    rows = [("map", "most exciting image", "fourier", "times", "pixels", "times")]
    found = {}
    for method in ("fourier", "pixels"):
        start = time.perf_counter()
        found[method] = maximize_activation(extractor, args.maps, method=method, steps=args.steps).activations
        again = maximize_activation(extractor, args.maps[:1], method=method, steps=8)
        same = maximize_activation(extractor, args.maps[:1], method=method, steps=8)
        content[method] = {
            "seconds": time.perf_counter() - start,
            "times_the_most_exciting_image": dict(zip(args.maps, (found[method] / most).tolist(), strict=True)),
            "same_seed_same_picture": torch.equal(again.images, same.images),
        }
    for number, name in enumerate(args.maps):
        own, least = [float(values[number]) for values in found.values()], float(most[number])
        rows.append((name, f"{least:.2f}", *(f"{v:.1f}" for value in own for v in (value, value / least))))
    print(text_table(rows))
    conv1 = [str(m) for m in extractor.maps if m.layer == "conv1"]
    pictures = maximize_activation(extractor, conv1, steps=args.steps, size=(SIDE, SIDE)).images
    filters = next(iter(extractor.network.parameters())) / extractor.std
    ours, theirs = (torch.stack([peak(x) for x in group]) for group in (pictures, filters))
    # A wave has no sign: the half-plane is that of the filter.
    ours = torch.where(((ours * theirs).sum(1) < 0)[:, None], -ours, ours)
    tuned = theirs.norm(dim=1) >= RESOLVED
    near = (ours - theirs).norm(dim=1) <= RESOLVED / 2
    correlation = [float(torch.corrcoef(torch.stack([ours[tuned, k], theirs[tuned, k]]))[0, 1]) for k in (0, 1)]
    print(
        f"conv1: {int(tuned.sum())} of {len(conv1)} filters are tuned to a frequency of at least 1/11; correlation of "
        f"their pictures' peaks with theirs {correlation[0]:.3f} (down), {correlation[1]:.3f} (across); "
        f"{int((near & tuned).sum())} within 1/22 cycles a pixel"
    )
    content["conv1"] = {
        "tuned": int(tuned.sum()), "correlation_down": correlation[0], "correlation_across": correlation[1],
        "within_half_a_resolved_step": int((near & tuned).sum()),
    }  # fmt: skip
    print(f"written to {store('maximization', content)}")


def peak(picture: Tensor) -> Tensor:
    """(down, across) in cycles a pixel, where the power of (3, h, w), summed over colours, is largest."""
    centred = picture - picture.mean((1, 2), keepdim=True)
    power = torch.fft.fft2(centred, s=(SIDE, SIDE)).abs().square().sum(0)
    frequencies = torch.fft.fftfreq(SIDE)
    if picture.shape[1] == SIDE:  # else it is a filter, which cannot tell these apart anyway
        power = power * (frequencies[:, None].square() + frequencies.square() >= RESOLVED**2)
    down, across = divmod(int(power.argmax()), SIDE)
    return torch.stack([frequencies[down], frequencies[across]])


if __name__ == "__main__":
    main()
