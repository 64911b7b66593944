"""Images with labelled concepts, the material of network dissection: what a data set of them must offer.

Source: D. Bau, B. Zhou, A. Khosla, A. Oliva, A. Torralba, "Network Dissection: Quantifying Interpretability of Deep
Visual Representations", CVPR 2017, https://arxiv.org/abs/1704.05796 (Broden, section 2.2).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from fmiqa.errors import InputError

__all__ = ["Concept", "ConceptImage", "ConceptData", "Labels"]

Labels = Tensor | Sequence[int]
"""Of one category: (H, W) or (L, H, W) concept numbers by pixel, or (n,) numbers that hold for the whole image."""


@dataclass(frozen=True)
class Concept:
    """Something that can be seen in an image and has a name.

    Args:
        number: Its number in label maps, from 1; 0 stands for nothing.
        name: The name in words.
        categories: What kind of thing it is ("colour", "material"); the first is its primary category.

    Raises:
        InputError: A number below 1, or no category.

    Example:
        >>> Concept(7, "red", ("colour",)).category
        'colour'
    """

    number: int
    name: str
    categories: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.number < 1:
            raise InputError(f"concepts are numbered from 1 (0 is no concept), got {self.number} for {self.name!r}")
        if not self.categories:
            raise InputError(f"a concept has at least one category, {self.name!r} ({self.number}) has none")

    @property
    def category(self) -> str:
        """The primary category: IoU is taken over the images that carry a concept of it."""
        return self.categories[0]


@dataclass(frozen=True, eq=False)
class ConceptImage:
    """An image and where which concepts are in it.

    A pixel may carry concepts of several categories, and several of one category in layers.

    Args:
        image: (3, H, W) uint8.
        labels: Category -> (h, w) or (L, h, w) integer concept numbers by pixel, 0 = nothing, or whole-image concept
            numbers, a tuple of int or a 1-D tensor. All label maps are of one size, which need not be the image's.
        name: The name that reports use.
        size: (h, w) of the label maps; needed only if all labels are of the whole image and are to weigh as another
            number of pixels than the image has.

    Raises:
        InputError: An image or labels of another form.

    Example:
        >>> sky = torch.tensor([[3, 3], [0, 0]])
        >>> item = ConceptImage(torch.zeros(3, 2, 2, dtype=torch.uint8), {"object": sky, "scene": (8,)}, "coast")
        >>> item.label_size, item.label_maps().shape, item.whole_image()
        ((2, 2), torch.Size([1, 2, 2]), [8])
    """

    image: Tensor
    labels: Mapping[str, Labels]
    name: str
    size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.image.ndim != 3 or self.image.shape[0] != 3 or self.image.dtype != torch.uint8:
            given = f"{tuple(self.image.shape)} {self.image.dtype}"
            raise InputError(f"image {self.name!r}: expected (3, H, W) uint8, got {given}")
        sizes = {} if self.size is None else {"size": tuple(self.size)}
        for category, labels in self.labels.items():
            form = f"image {self.name!r}, labels of {category!r}: "
            if not isinstance(labels, Tensor):
                if not all(isinstance(number, int) for number in labels):
                    raise InputError(f"{form}whole-image labels are whole numbers, got {labels!r}")
            elif labels.is_floating_point() or labels.is_complex() or labels.ndim not in (1, 2, 3):
                given = f"{tuple(labels.shape)} {labels.dtype}"
                raise InputError(f"{form}expected integers of shape (h, w), (L, h, w) or (n,), got {given}")
            elif labels.ndim > 1:
                sizes[category] = tuple(labels.shape[-2:])
        if len(set(sizes.values())) > 1:
            raise InputError(f"image {self.name!r}: label maps must be of one size, got {sizes}")

    @property
    def label_size(self) -> tuple[int, int]:
        """(h, w) in which pixels are counted: the label maps', else `size`, else the image's."""
        for labels in self.labels.values():
            if isinstance(labels, Tensor) and labels.ndim > 1:
                return int(labels.shape[-2]), int(labels.shape[-1])
        return self.size or (int(self.image.shape[-2]), int(self.image.shape[-1]))

    def label_maps(self) -> Tensor:
        """(L, h, w) int64: the label maps of all categories, one layer behind the other; L may be 0."""
        layers = [x.reshape(-1, *x.shape[-2:]) for x in self.labels.values() if isinstance(x, Tensor) and x.ndim > 1]
        none = torch.zeros(0, *self.label_size, dtype=torch.long, device="cpu")
        return torch.cat([none, *(x.long() for x in layers)])

    def whole_image(self) -> list[int]:
        """The numbers of the concepts that hold for the whole image, over all categories."""
        numbers: set[int] = set()
        for labels in self.labels.values():
            if not isinstance(labels, Tensor):
                numbers.update(labels)
            elif labels.ndim == 1:
                numbers.update(labels.tolist())
        return sorted(numbers - {0})


class ConceptData(Protocol):
    """Any data set of `ConceptImage` objects that knows its concepts.

    A source that also has `sizes`, the (height, width) of each image, spares `dissect` one decoding of all images.
    """

    @property
    def concepts(self) -> Sequence[Concept]:
        """All concepts that may be labelled."""
        ...

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> ConceptImage: ...
