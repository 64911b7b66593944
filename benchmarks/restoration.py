"""A ready-made metric as a loss: pictures restored from noise and from JPEG by gradient descent on their pixels.

    python benchmarks/restoration.py [--metric fast --steps 300 --size 256]

The pictures are procedural. The loss is 1 - quality against the reference, nothing else; PSNR, which the descent does
not see, tells whether pixels come back too. Prints a table, writes results/restoration.json and
docs/images/restoration.jpg.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import store
from torch import Tensor
from tqdm import tqdm

import fmiqa
from fmiqa._plotting import new_figure, save_figure
from fmiqa._tables import text_table
from fmiqa.datasets.distortions import DISTORTIONS
from fmiqa.datasets.scenes import scene

PICTURE = Path(__file__).parent.parent / "docs" / "images" / "restoration.jpg"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--metric", default="fast", choices=tuple(fmiqa.list_metrics()))
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--rate", type=float, default=0.01, help="Adam's learning rate")
    parser.add_argument("--size", type=int, default=256, help="side of the pictures")
    args = parser.parse_args()
    iqm = fmiqa.load_metric(args.metric)
    figure = new_figure(7.5, 5.2)
    axes = figure.subplots(2, 3)
    found: dict[str, Any] = {}
    rows = [("from", "quality before", "after", "PSNR before", "after", "gradients")]
    for number, (kind, row) in enumerate(zip(("white noise", "JPEG"), axes, strict=True)):
        reference = scene(number, args.size, 0)
        distorted = DISTORTIONS[kind](reference, 5, 5, np.random.default_rng(0))
        start, target = (image[None].float() / 255 for image in (distorted, reference))
        restored, finite = descend(iqm, start, target, args)
        figures = [float(iqm(x, target)) for x in (start, restored)] + [psnr(x, target) for x in (start, restored)]
        found[kind] = dict(zip(("quality", "quality_after", "psnr", "psnr_after"), figures, strict=True))
        rows.append((kind, *(f"{v:.4f}" for v in figures[:2]), *(f"{v:.1f} dB" for v in figures[2:]), finite))
        captions = (
            f"{kind}: {figures[0]:.3f}, {figures[2]:.1f} dB",
            f"restored: {figures[1]:.3f}, {figures[3]:.1f} dB",
        )
        for ax, image, caption in zip(row, (start, restored, target), (*captions, "reference"), strict=True):
            ax.imshow(image[0].permute(1, 2, 0).numpy())
            ax.set_title(caption, fontsize=9)
            ax.set_axis_off()
    save_figure(figure, str(PICTURE))
    print(f"{iqm.signature}, {args.steps} steps of Adam\n{text_table(rows)}")
    print(f"written to {store('restoration', {'metric': iqm.signature, 'steps': args.steps, 'figures': found})}")


def descend(iqm: fmiqa.ReadyMetric, start: Tensor, target: Tensor, args: argparse.Namespace) -> tuple[Tensor, str]:
    """The picture after gradient descent, and whether all gradients were finite."""
    picture = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([picture], lr=args.rate)
    prepared, finite = iqm.prepare(target), True
    for _ in tqdm(range(args.steps)):
        optimizer.zero_grad()
        (1 - iqm(picture.clamp(0, 1), prepared)).sum().backward()
        assert picture.grad is not None
        finite &= bool(picture.grad.isfinite().all())
        optimizer.step()
    return picture.detach().clamp(0, 1), "finite" if finite else "NOT FINITE"


def psnr(image: Tensor, reference: Tensor) -> float:
    return float(-10 * (image - reference).square().mean().log10())


if __name__ == "__main__":
    main()
