"""Pictures with planted concepts: patterns and colours whose place is known to the pixel, made by code.

They stand in for Broden's textures and colours where no labelled pictures are at hand. The colours are the eleven basic
ones of B. Berlin, P. Kay, "Basic Color Terms", University of California Press 1969.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from fmiqa.datasets.scenes import scene
from fmiqa.errors import InputError
from fmiqa.visualize.dissection.concepts import Concept, ConceptImage

__all__ = ["PlantedConcepts"]

Field = NDArray[np.float64]  # (H, W), or (H, W, 3) in colour
Rng = np.random.Generator


class PlantedConcepts:
    """Pictures made when asked for, the same at every call.

    Patches of irregular form lie on muted natural-statistics pictures, some over others. Even pictures have patterns
    (category "pattern": stripes of four directions, checkers, dots, honeycomb, lattice; periods of 4 to 24 pixels,
    contrasts, sharpness and tints vary), odd ones colours (category "colour": shades of the eleven basic colours,
    lightly textured). A pixel is labelled where the patch covers at least half of it. All concepts are about equally
    frequent.

    Args:
        count: How many pictures.
        size: Their height and width.
        seed: Seed of all pictures.

    Raises:
        InputError: No pictures, or pictures of less than 32 pixels.

    Example:
        >>> data = PlantedConcepts(count=2, size=64)
        >>> item = data[0]
        >>> item.image.shape, list(item.labels), item.label_maps().shape
        (torch.Size([3, 64, 64]), ['pattern'], torch.Size([1, 64, 64]))
        >>> [concept.name for concept in data.concepts][:2]
        ['vertical stripes', 'horizontal stripes']
    """

    def __init__(self, *, count: int = 200, size: int = 160, seed: int = 0) -> None:
        if count < 1 or size < 32:
            raise InputError(f"at least one picture of 32 pixels or more, got count {count}, size {size}")
        self.count, self.size, self.seed = count, size, seed
        self.name = f"planted concepts (seed {seed})"
        kinds = [(name, "pattern") for name in _PATTERNS] + [(name, "colour") for name in _COLOURS]
        self.concepts = tuple(Concept(n, name, (kind,)) for n, (name, kind) in enumerate(kinds, start=1))

    @property
    def names(self) -> list[str]:
        """The pictures' names."""
        return [_name(index) for index in range(self.count)]

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """(height, width) of each picture."""
        return [(self.size, self.size)] * self.count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> ConceptImage:
        if not 0 <= index < self.count:
            raise IndexError(f"pictures 0 to {self.count - 1}, got {index}")
        rng = np.random.default_rng([self.seed, index, 1])
        picture = _background(rng, index, self.size, self.seed)
        label = np.zeros((self.size, self.size), np.int64)
        category = ("pattern", "colour")[index % 2]
        own = [concept for concept in self.concepts if concept.category == category]
        for n in range(_PATCHES):
            concept = own[(index // 2 * _PATCHES + n) % len(own)]
            if category == "pattern":
                period = 4 * 6 ** rng.uniform()
                content = _tinted(rng, _PATTERNS[concept.name](rng, *_turned(rng, self.size), period))
            else:
                period = 0.0
                content = _shaded(rng, _COLOURS[concept.name], self.size)
            cover = _patch(rng, self.size, at_least=1.25 * period)
            picture += cover[..., None] * (content - picture)
            label[cover >= 0.5] = concept.number
        pixels = np.rint(picture.clip(0, 1) * 255).astype(np.uint8)
        image = torch.from_numpy(pixels).permute(2, 0, 1).contiguous()
        return ConceptImage(image, {category: torch.from_numpy(label)}, _name(index))


_PATCHES = 3  # with neither 8 patterns nor 11 colours a common divisor: all concepts meet
_SMALLEST, _GREATEST = 0.09, 0.17  # radii of patches, in picture sizes
_SCENES = (0, 1, 3, 5, 7)  # of the eight families: those without stripes, checkers and mosaics of their own


def _name(index: int) -> str:
    return f"planted-{index:04d}"


def _background(rng: Rng, index: int, size: int, seed: int) -> Field:
    """A scene of low contrast and little colour, so that what is planted stands out."""
    which = index // 2  # patterns and colours have the same backgrounds
    pixels = scene(which // len(_SCENES) * 8 + _SCENES[which % len(_SCENES)], size, seed + 1)
    picture: Field = pixels.permute(1, 2, 0).numpy() / 255
    grey = picture.mean(2, keepdims=True)
    level = rng.uniform(0.35, 0.65)
    muted: Field = level + 0.45 * (grey - grey.mean()) + 0.15 * (picture - grey)
    return muted


def _patch(rng: Rng, size: int, *, at_least: float) -> Field:
    """How much of each pixel a star-shaped patch at a random place covers."""
    radius = max(size * rng.uniform(_SMALLEST, _GREATEST), at_least)
    cx, cy = rng.uniform(0.1 * size, 0.9 * size, 2)
    x, y = _grid(size)
    u, v = _rotate(x - cx, y - cy, rng.uniform(0, math.pi))
    stretch = rng.uniform(1, 1.5)
    u, v = u / stretch, v * stretch
    angle = np.arctan2(v, u)
    edge = radius * (1 + sum(rng.uniform(-0.12, 0.12) * np.cos(k * angle + rng.uniform(0, 6)) for k in (2, 3, 5)))
    cover: Field = np.clip(edge - np.hypot(u, v) + 0.5, 0, 1)
    return cover


def _turned(rng: Rng, size: int) -> tuple[Field, Field]:
    """Coordinates in pixels, turned a little."""
    return _rotate(*_grid(size), math.radians(rng.uniform(-6, 6)))


def _stripes(direction: float) -> Callable[[Rng, Field, Field, float], Field]:
    """Stripes across a direction given in degrees, 90 down."""

    def pattern(rng: Rng, x: Field, y: Field, period: float) -> Field:
        u, _ = _rotate(x, y, math.radians(direction))
        return _sharpened(rng, np.sin(2 * math.pi * (u / period + rng.uniform())))

    return pattern


def _checkers(rng: Rng, x: Field, y: Field, period: float) -> Field:
    a, b = (np.sin(2 * math.pi * (z / period + rng.uniform())) for z in (x, y))
    return _sharpened(rng, a * b)


def _dots(rng: Rng, x: Field, y: Field, period: float) -> Field:
    nearest, _ = _hexagonal(rng, x, y, period)
    return _step(nearest - rng.uniform(0.25, 0.36) * period)


def _honeycomb(rng: Rng, x: Field, y: Field, period: float) -> Field:
    nearest, second = _hexagonal(rng, x, y, period)
    return _step(second - nearest - rng.uniform(0.15, 0.3) * period)


def _lattice(rng: Rng, x: Field, y: Field, period: float) -> Field:
    """Thin lines across each other, upright or on the slant."""
    x, y = _rotate(x, y, rng.integers(2) * math.pi / 4)
    distance = np.minimum(*(period * abs((z / period + rng.uniform()) % 1 - 0.5) for z in (x, y)))
    return _step(distance - max(0.7, rng.uniform(0.1, 0.17) * period))


_PATTERNS: dict[str, Callable[[Rng, Field, Field, float], Field]] = {
    "vertical stripes": _stripes(0),
    "horizontal stripes": _stripes(90),
    "diagonal stripes (/)": _stripes(45),
    "diagonal stripes (\\)": _stripes(-45),
    "checkers": _checkers,
    "dots": _dots,
    "honeycomb": _honeycomb,
    "lattice": _lattice,
}

# Ranges of hue (degrees), saturation and value.
_COLOURS: dict[str, tuple[tuple[float, float], ...]] = {
    "black": ((0, 360), (0, 0.3), (0.02, 0.12)),
    "white": ((0, 360), (0, 0.04), (0.94, 1)),
    "red": ((-8, 6), (0.8, 1), (0.6, 1)),
    "green": ((95, 150), (0.6, 1), (0.4, 0.85)),
    "yellow": ((50, 60), (0.75, 1), (0.88, 1)),
    "blue": ((212, 245), (0.7, 1), (0.5, 1)),
    "brown": ((15, 30), (0.6, 0.9), (0.25, 0.48)),
    "purple": ((270, 295), (0.6, 1), (0.4, 0.75)),
    "pink": ((325, 350), (0.25, 0.5), (0.92, 1)),
    "orange": ((22, 36), (0.85, 1), (0.92, 1)),
    "grey": ((0, 360), (0, 0.04), (0.35, 0.7)),
}


def _shaded(rng: Rng, ranges: tuple[tuple[float, float], ...], size: int) -> Field:
    """One shade of a colour under light that falls off, with a fine grain."""
    hue, saturation, value = (rng.uniform(*limits) for limits in ranges)
    shade = np.array(colorsys.hsv_to_rgb(hue / 360 % 1, saturation, value))
    x, y = _grid(size)
    slope, _ = _rotate(x / size - 0.5, y / size - 0.5, rng.uniform(0, 2 * math.pi))
    light = 1 + rng.uniform(0, 0.15) * slope + rng.uniform(0, 0.03) * rng.standard_normal((size, size))
    return shade * light[..., None]


def _tinted(rng: Rng, weight: Field) -> Field:
    """Two colours, little saturated and of different brightness, mixed by a pattern in [0, 1]."""
    contrast = rng.uniform(0.4, 0.9)
    dark = rng.uniform(0.02, 0.98 - contrast)
    values = [dark, dark + contrast]
    if rng.integers(2):
        values.reverse()
    first, second = (np.array(colorsys.hsv_to_rgb(rng.uniform(), rng.uniform(0, 0.3), value)) for value in values)
    tinted: Field = first + weight[..., None] * (second - first)
    return tinted


def _hexagonal(rng: Rng, x: Field, y: Field, period: float) -> tuple[Field, Field]:
    """The distances to the nearest and the second nearest point of a hexagonal lattice."""
    rows = period * math.sqrt(3) / 2
    x, y = x + rng.uniform() * period, y + rng.uniform() * period
    row = np.floor(y / rows)
    distances = []
    for step in (-1, 0, 1, 2):
        shift = (row + step) % 2 * period / 2
        across = (x - shift + period / 2) % period - period / 2
        down = y - (row + step) * rows
        distances += [np.hypot(across, down), np.hypot(period - abs(across), down)]
    nearest, second = np.sort(np.stack(distances), axis=0)[:2]
    return nearest, second


def _sharpened(rng: Rng, wave: Field) -> Field:
    """A wave in [-1, 1] brought to [0, 1], with edges from smooth to sharp."""
    sharpness = rng.uniform(0.5, 4)
    sharpened: Field = 0.5 + 0.5 * np.tanh(sharpness * wave) / math.tanh(sharpness)
    return sharpened


def _step(distance: Field) -> Field:
    """0 inside, 1 outside, with an edge of a pixel."""
    step: Field = np.clip(distance + 0.5, 0, 1)
    return step


def _grid(size: int) -> tuple[Field, Field]:
    """x and y of the pixels."""
    y, x = np.mgrid[:size, :size].astype(float)
    return x, y


def _rotate(x: Field, y: Field, angle: float) -> tuple[Field, Field]:
    c, s = math.cos(angle), math.sin(angle)
    return c * x + s * y, c * y - s * x
