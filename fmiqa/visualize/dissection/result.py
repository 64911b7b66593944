"""`Dissection`: which concept each feature map detects, as network dissection found it.

Source: D. Bau, B. Zhou, A. Khosla, A. Oliva, A. Torralba, "Network Dissection: Quantifying Interpretability of Deep
Visual Representations", CVPR 2017, https://arxiv.org/abs/1704.05796.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from fmiqa._result import Result, Rows
from fmiqa._runtime.precision import strict_float32
from fmiqa.errors import InputError
from fmiqa.features.enlarging import enlarged, seen_by
from fmiqa.features.extractor import FeatureExtractor
from fmiqa.maps import FeatureMap, MapIndex
from fmiqa.visualize.dissection.concepts import Concept, ConceptData

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["BestConcept", "Dissection", "Segment"]


class BestConcept(NamedTuple):
    """The concept that a map's segments overlap most.

    `concept` and `category` are empty where they overlap none.
    """

    map: FeatureMap
    concept: str
    category: str
    iou: float
    detector: bool


class Segment(NamedTuple):
    """An image, (3, H, W) uint8, and where in it a map exceeds its threshold, (H, W) bool."""

    image: Tensor
    mask: Tensor
    name: str


@dataclass(frozen=True, eq=False)
class Dissection(Result):
    """What `dissect` found.

    Args:
        maps: The M feature maps.
        concepts: The K concepts.
        iou: (M, K) float64, intersection over union of each map's segments with each concept.
        thresholds: (M,) what a map exceeds in its segments.
        top_images: (M, top) the images of greatest activation, greatest first, as positions in `names`.
        names: The images' names.
        threshold: Above which IoU a map counts as a detector.
        options: Options of the run: network, weights, data set, quantile.
    """

    maps: MapIndex
    concepts: tuple[Concept, ...]
    iou: Tensor
    thresholds: Tensor
    top_images: Tensor
    names: tuple[str, ...]
    threshold: float = 0.04
    options: dict[str, Any] = field(default_factory=dict)

    kind: ClassVar[str] = "fmiqa dissection 1"
    binary: ClassVar[bool] = True

    def best(self, threshold: float | None = None) -> list[BestConcept]:
        """The best concept of each map, in the order of the maps.

        Args:
            threshold: Above which IoU a map is a detector; the run's own by default.
        """
        limit = self.threshold if threshold is None else threshold
        found = []
        for map, row in zip(self.maps, self.iou.tolist(), strict=True):
            iou = max(row)
            concept = self.concepts[row.index(iou)]
            name, category = (concept.name, concept.category) if iou > 0 else ("", "")
            found.append(BestConcept(map, name, category, iou, iou > limit))
        return found

    def detectors(self, threshold: float | None = None) -> list[BestConcept]:
        """The maps that detect a concept, best first.

        Args:
            threshold: See `best`.
        """
        return sorted((b for b in self.best(threshold) if b.detector), key=lambda b: -b.iou)

    @property
    def unique_detectors(self) -> dict[str, int]:
        """Category -> how many different concepts have a detector."""
        counts = {concept.category: 0 for concept in self.concepts}
        for _, category in {(b.concept, b.category) for b in self.detectors()}:
            counts[category] += 1
        return counts

    def segments(
        self, extractor: FeatureExtractor, data: ConceptData, map: FeatureMap | str, count: int = 5
    ) -> list[Segment]:
        """A map's segments in its top images (the paper's Figure 3).

        Args:
            extractor: The network that was dissected.
            data: The images that it was dissected on.
            map: One of `maps`.
            count: Number of top images.

        Raises:
            InputError: Another network or data set than the dissection's, a map that is not in it.
        """
        row = self.maps.index(map)
        if self.options.get("weights_sha256", extractor.weights_sha256) != extractor.weights_sha256:
            raise InputError(f"the dissection is of {self.options['network']} with other weights than this extractor's")
        segments = []
        for position in self.top_images[row, :count].tolist():
            item = data[position]
            if item.name != self.names[position]:
                raise InputError(
                    f"image {position} of this data set is {item.name!r}, the dissection's was {self.names[position]!r}"
                )
            with torch.inference_mode(), strict_float32(extractor.device):
                (features,) = extractor(item.image[None].to(extractor.device), [self.maps[row]]).values()
                size = int(item.image.shape[-2]), int(item.image.shape[-1])
                seen = seen_by(extractor, MapIndex([self.maps[row]]))[self.maps[row].layer]
                mask = enlarged(features[0], size, seen, extractor.viewing.size(*size))[0].cpu() > self.thresholds[row]
            segments.append(Segment(item.image, mask.clone(), item.name))
        return segments

    def table(self) -> Rows:
        """A row for each map, the header first; a detector's IoU has a star."""
        header = ("map", "concept", "category", "IoU")
        rows = [(str(b.map), b.concept or "-", b.category or "-", _starred(b)) for b in self.best()]
        return [header, *rows]

    def to_dict(self) -> dict[str, Any]:
        """Everything but tensors, as plain values for JSON."""
        return {
            "maps": [str(m) for m in self.maps],
            "concepts": [(c.number, c.name, c.categories) for c in self.concepts],
            "names": self.names,
            "threshold": self.threshold,
            "options": self.options,
        }

    def tensors(self) -> dict[str, Tensor]:
        """IoU, thresholds and top images."""
        return {"iou": self.iou, "thresholds": self.thresholds, "top_images": self.top_images}

    @classmethod
    def from_dict(cls, content: dict[str, Any], tensors: dict[str, Tensor]) -> Self:
        """The result again."""
        concepts = tuple(Concept(n, name, tuple(categories)) for n, name, categories in content["concepts"])
        maps, names = MapIndex(content["maps"]), tuple(content["names"])
        complete = tensors["iou"].shape == (len(maps), len(concepts)) and tensors["thresholds"].shape == (len(maps),)
        if not complete or len(tensors["top_images"]) != len(maps):
            raise ValueError("its parts do not fit together")
        return cls(maps, concepts, **tensors, names=names, threshold=content["threshold"], options=content["options"])

    def tables(self) -> dict[str, Rows]:
        """The table by a caption that sums it up."""
        return {self._summary(): self.table()}

    def _summary(self) -> str:
        kinds = ", ".join(f"{count} {category}" for category, count in self.unique_detectors.items())
        return (
            f"{len(self.detectors())} of {len(self.maps)} maps detect a concept (*, IoU > {self.threshold:g}); "
            f"different concepts: {kinds}"
        )


def _starred(best: BestConcept) -> str:
    return f"{best.iou:.3f}{'*' if best.detector else ''}"
