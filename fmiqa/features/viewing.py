"""The scale at which networks see an image, which is part of a metric's definition.

A network's filters have fixed sizes in pixels, the eye's have fixed sizes in degrees of visual angle. Maps selected
on images of one angular resolution should look at others at the same one.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from fmiqa._checks import check_tensor, is_positive, is_traced
from fmiqa.errors import InputError

__all__ = ["Viewing", "pixels_per_degree"]


@dataclass(frozen=True)
class Viewing:
    """How test and reference image, both alike, are resized before a network sees them; at most one option.

    Resizing is bilinear and antialiased, in floating point: no value leaves the range of the image's own.

    Args:
        factor: Factor by which both sides are scaled; .5 halves them.
        short_side: Length of the shorter side, in pixels.
        pixels_per_degree: Angular resolution that the network is to see; images must then come with their own
            (`native_pixels_per_degree`).
        native_pixels_per_degree: Angular resolution of the images as they were judged, see `pixels_per_degree`.

    Raises:
        InputError: Options contradict each other or are not positive.

    Example:
        >>> import torch
        >>> Viewing(short_side=100)(torch.rand(1, 3, 200, 300)).shape
        torch.Size([1, 3, 100, 150])
        >>> Viewing().is_native
        True
    """

    factor: float | None = None
    short_side: int | None = None
    pixels_per_degree: float | None = None
    native_pixels_per_degree: float | None = None

    def __post_init__(self) -> None:
        given = [v for v in asdict(self).values() if v is not None]
        if not all(is_positive(v) for v in given):
            raise InputError(f"viewing options are positive numbers, got {self}")
        angular = (self.pixels_per_degree is None) == (self.native_pixels_per_degree is None)
        kinds = [self.factor, self.short_side, self.pixels_per_degree]
        if not angular or sum(v is not None for v in kinds) > 1:
            raise InputError(
                "give one of factor, short_side, or pixels_per_degree together with native_pixels_per_degree; "
                f"got {self}"
            )

    @property
    def is_native(self) -> bool:
        """Whether images are left as they are."""
        return self.factor is None and self.short_side is None and self.pixels_per_degree is None

    def options(self) -> dict[str, Any]:
        """The settings, as JSON can hold them; empty for native viewing."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) that an image is seen at.

        Raises:
            InputError: A side is not positive.
        """
        if height < 1 or width < 1:
            raise InputError(f"images have positive sides, got {width} wide and {height} high")
        factor = 1.0
        if self.factor is not None:
            factor = self.factor
        elif self.short_side is not None:
            factor = self.short_side / min(height, width)
        elif self.pixels_per_degree is not None and self.native_pixels_per_degree is not None:
            factor = self.pixels_per_degree / self.native_pixels_per_degree
        return max(1, round(height * factor)), max(1, round(width * factor))

    def __call__(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) uint8 or float -> as the network sees it; float in [0, 1] if resized.

        Raises:
            InputError: The images are not a tensor (N, 3, H, W) of uint8 or float.
        """
        check_tensor(images, "images (N, 3, H, W)")
        if images.ndim != 4 or not (images.is_floating_point() or images.dtype == torch.uint8):
            raise InputError(f"images are (N, 3, H, W), uint8 or float, got {tuple(images.shape)} of {images.dtype}")
        if self.is_native:
            return images
        height, width = images.shape[-2:]
        if is_traced():  # where sizes are tensors
            height, width = int(height), int(width)
        size = self.size(height, width)
        if isinstance(height, int) and size == (height, width):  # a program for any size always resizes
            return images
        if not images.is_floating_point():
            images = images.float() / 255
        return interpolate(images, size=size, mode="bilinear", antialias=True, align_corners=False)


def pixels_per_degree(*, distance: float, pixels_per_unit: float) -> float:
    """Angular resolution of a screen.

    Args:
        distance: Distance from the eye to the screen, in any unit of length.
        pixels_per_unit: Pixels of the screen per unit of that length.

    Returns:
        Pixels per degree of visual angle at the screen's centre.

    Raises:
        InputError: A value is not positive.

    Example:
        >>> round(pixels_per_degree(distance=50, pixels_per_unit=40), 1)     # centimetres: 50 cm, 40 pixels a cm
        34.9
    """
    if not all(is_positive(v) for v in (distance, pixels_per_unit)):
        raise InputError(f"distance and pixels_per_unit are positive, got {distance} and {pixels_per_unit}")
    return 2 * distance * math.tan(math.radians(0.5)) * pixels_per_unit
