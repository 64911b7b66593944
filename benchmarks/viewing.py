"""What the scale at which a network sees images does to a metric chosen at another one.

    python benchmarks/viewing.py --tid2013r TID2013-R/ --weights alexnet_features.pth --scores alexnet.safetensors

Maps are chosen on 20 references of TID2013-R at their own size and judged on the other five, whose images are shown
at half, the same, and twice the size: once seen as they are, once seen at the size that the maps were chosen at.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import torch
from common import store
from torch import Tensor
from torch.nn.functional import interpolate

import fmiqa
from fmiqa import FeatureExtractor, Viewing
from fmiqa._tables import text_table
from fmiqa.datasets import Sample
from fmiqa.datasets.base import SampleSource


class Resized:
    """A data set as it looks at another number of pixels."""

    def __init__(self, data: SampleSource, rows: list[int], factor: float) -> None:
        self.data, self.rows, self.factor = data, rows, factor

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Sample:
        sample = self.data[self.rows[index]]
        reference, distorted = self._resize(sample.reference), self._resize(sample.distorted)
        return dataclasses.replace(sample, reference=reference, distorted=distorted)

    def _resize(self, image: Tensor) -> Tensor:
        if self.factor == 1:
            return image
        size = [round(side * self.factor) for side in image.shape[1:]]
        resized = interpolate(image[None].float(), size=size, mode="bicubic", antialias=True, align_corners=False)[0]
        return resized.round().clamp(0, 255).to(torch.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tid2013r", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--scores", type=Path, required=True, help="score matrix of AlexNet on TID2013-R")
    args = parser.parse_args()

    data = fmiqa.datasets.TID2013(args.tid2013r, partial=True, name="TID2013-R")
    scores = fmiqa.ScoreMatrix.load(args.scores)
    split = fmiqa.grouped_folds(scores.groups, folds=5, seed=0)[0]
    selection = fmiqa.forward_select(scores.rows(split.train))
    targets = data.targets[split.held_out]
    head = ("images shown at", "seen as", "PLCC", "SROCC", "all maps: PLCC", "SROCC")
    rows: list[tuple[str, ...]] = [head]
    figures = []
    for shown in (0.5, 1.0, 2.0):
        images = Resized(data, split.held_out.tolist(), shown)
        for label, viewing in (("they are", Viewing()), ("where chosen", Viewing(factor=1 / shown))):
            if shown == 1 and label == "where chosen":
                continue  # the same
            extractor = FeatureExtractor("alexnet", weights=args.weights, viewing=viewing)
            seen = fmiqa.score_matrix(extractor, images, check=False, progress=True)
            row: dict[str, object] = {"shown": shown, "seen": viewing.options()}
            cells = []
            for name, combined in (("selected", selection.combine(seen)), ("all", seen.pool())):
                values = (float(fmiqa.plcc(combined, targets)), float(fmiqa.srocc(combined, targets)))
                row[name] = {"plcc": values[0], "srocc": values[1]}
                cells += [f"{v:.4f}" for v in values]
            rows.append((f"{shown:g} x size", label, *cells))
            figures.append(row)
    print(f"\nTID2013-R, AlexNet, {len(selection)} maps chosen on 20 references; {len(targets)} images of 5 others")
    print(text_table(rows))
    protocol = {"data": "TID2013-R", "fold": 0, "seed": 0, "maps": [str(m) for m in selection.maps]}
    print(f"\nwritten to {store('viewing', {'protocol': protocol, 'rows': figures})}")


if __name__ == "__main__":
    main()
