"""The data set that comes with the library: procedural pictures, real distortions, a simulated observer."""

from __future__ import annotations

import csv
import os
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fmiqa.datasets.base import IQADataset, Sample
from fmiqa.datasets.distortions import DISTORTIONS
from fmiqa.datasets.scenes import scene
from fmiqa.errors import InputError
from fmiqa.maps import FeatureMap, MapIndex

if TYPE_CHECKING:
    from fmiqa.features.extractor import FeatureExtractor

__all__ = ["Demo"]

# AlexNet's deeper layers then keep the 3 positions a side that SSIM needs.
_SMALLEST = 64

# Found by a search for four maps that forward selection finds again (on seeds 0, 1 and 2): at each of its
# steps one of them comes nearer to the score than any other map of the network.
_PLANTED = ("conv1:44", "conv2:142", "conv3:52", "conv3:338")


class Demo(IQADataset):
    """A data set without files or downloads, scored by a simulated observer; no person ever saw it.

    Pictures are procedural, distortions are real (white noise, Gaussian blur, JPEG, desaturation, contrast
    loss, quantization), and the simulated observer looks at a few planted feature maps of AlexNet with
    fmiqa's random weights of seed 0:

        q = mean SSIM over the planted maps
        score = 9 / (1 + exp(-(q - 0.75) / 0.12)) + noise

    So it is known which maps matter, and whether a selection finds them. That is what it is for: trying the
    library out, and testing it. It says nothing of how good a metric is.

    Args:
        references: How many pictures.
        size: Their height and width in pixels, at least 64.
        levels: Levels of each distortion, from barely visible to severe.
        seed: Seed of the pictures, of the white noise and of the simulated observer's noise.
        noise: Standard deviation of the simulated observer's noise, in units of the score.
        planted: The maps the simulated observer looks at.

    Attributes:
        planted: the same as a `MapIndex`.

    Raises:
        InputError: An option is out of its range, or no such map.

    Example:
        >>> demo = Demo(references=2, levels=3, size=96)
        >>> len(demo), demo.planted
        (36, MapIndex(['conv1:44', 'conv2:142', 'conv3:52', 'conv3:338']))
        >>> sample = demo[8]
        >>> sample.name, sample.distorted.shape
        ('scene01_jpeg_3', torch.Size([3, 96, 96]))
    """

    thread_safe = True

    def __init__(
        self,
        *,
        references: int = 16,
        size: int = 192,
        levels: int = 5,
        seed: int = 0,
        noise: float = 0.25,
        planted: Iterable[FeatureMap | str] = _PLANTED,
    ) -> None:
        if references < 1 or levels < 1:
            raise InputError(f"the demo needs at least one reference and one level, got {references} and {levels}")
        if seed < 0:
            raise InputError(f"seed is a whole number from 0, got {seed}")
        if size < _SMALLEST:
            raise InputError(f"the demo's pictures need at least {_SMALLEST} pixels a side, got {size}")
        if not 0 <= noise < np.inf:
            raise InputError(f"noise is a standard deviation, a finite number from 0, got {noise}")
        self.planted = MapIndex(planted)
        self._seed, self._levels = seed, levels
        self._scenes = [scene(i, size, seed) for i in range(references)]
        self._items = [
            _Item(i, kind, level)
            for i in range(references)
            for kind in range(len(DISTORTIONS))
            for level in range(1, levels + 1)
        ]
        super().__init__(
            "Demo (simulated observer)",
            self._simulated_scores(noise),
            reference_ids=[item.reference_id for item in self._items],
            names=[item.name for item in self._items],
            distortions=[item.distortion for item in self._items],
        )

    @staticmethod
    def extractor() -> FeatureExtractor:
        """AlexNet with the random weights of the network that the simulated observer looks through.

        It is `FeatureExtractor("alexnet", weights=None)` without the warning that random weights judge no images: here
        they are what the scores were made with, so that a selection can find the planted maps.

        Example:
            >>> data = Demo(references=1, levels=1, size=64)
            >>> all(m in data.extractor().maps for m in data.planted)
            True
        """
        # Here, not above: the numerics are only needed where a demo is made.
        from fmiqa.features.extractor import FeatureExtractor

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return FeatureExtractor("alexnet", weights=None, seed=0)

    def write(self, folder: str | os.PathLike[str]) -> Path:
        """Write the set as PNG files and a table, as `CSVDataset` reads them.

        Args:
            folder: The folder to write to, which is made if it is missing. It gets `references/`,
                `distorted/` and `scores.csv` with the columns reference, distorted,
                score (the simulated observer's), reference_id, name, distortion and level.

        Returns:
            The path of `scores.csv`.
        """
        root = Path(folder)
        (root / "references").mkdir(parents=True, exist_ok=True)
        (root / "distorted").mkdir(exist_ok=True)
        for reference_id, picture in zip(dict.fromkeys(self.reference_ids), self._scenes, strict=True):
            _save(picture, root / "references" / f"{reference_id}.png")
        with (root / "scores.csv").open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(["reference", "distorted", "score", "reference_id", "name", "distortion", "level"])
            for s in self:
                reference, distorted = f"references/{s.reference_id}.png", f"distorted/{s.name}.png"
                _save(s.distorted, root / distorted)
                table.writerow([reference, distorted, s.score, s.reference_id, s.name, s.distortion, s.level])
        return root / "scores.csv"

    def _sample(self, index: int) -> Sample:
        item = self._items[index]
        return Sample(
            self._scenes[item.scene],
            self._distorted(item),
            score=self.targets[index].item(),
            reference_id=item.reference_id,
            name=item.name,
            distortion=item.distortion,
            level=item.level,
        )

    def _distorted(self, item: _Item) -> Tensor:
        rng = np.random.default_rng([self._seed, item.scene, item.kind, item.level])
        return DISTORTIONS[item.distortion](self._scenes[item.scene], item.level, self._levels, rng)

    def _simulated_scores(self, noise: float) -> list[float]:
        quality = self._simulated_quality().numpy()
        scores = 9 / (1 + np.exp(-(quality - 0.75) / 0.12))
        rng = np.random.default_rng([self._seed, 0, 0, 0, 1])  # drawn from by no scene and no distortion
        scores += noise * rng.standard_normal(len(scores))
        # As published scores are; it also takes off what floating point does differently between machines.
        return [round(score, 4) for score in scores.tolist()]

    def _simulated_quality(self) -> Tensor:
        """(N,) float64, the mean SSIM over the planted maps."""
        from fmiqa.measures import SSIM  # here for the same reason

        extractor, ssim = self.extractor(), SSIM()
        per_scene = len(self._items) // len(self._scenes)
        quality = []
        with torch.inference_mode():
            for i, reference in enumerate(self._scenes):
                items = self._items[i * per_scene : (i + 1) * per_scene]
                images = torch.stack([reference, *(self._distorted(item) for item in items)])
                values = [ssim(x[1:], x[:1]) for _, x in extractor.features(images, self.planted)]
                quality.append(torch.cat(values, 1).double().mean(1))
        return torch.cat(quality)


@dataclass(frozen=True)
class _Item:
    scene: int
    kind: int
    level: int

    @property
    def reference_id(self) -> str:
        return f"scene{self.scene + 1:02d}"

    @property
    def distortion(self) -> str:
        return list(DISTORTIONS)[self.kind]

    @property
    def name(self) -> str:
        return f"{self.reference_id}_{self.distortion.lower().replace(' ', '_')}_{self.level}"


def _save(image: Tensor, path: Path) -> None:
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(path)
