"""Procedural colour pictures for the demo data set: edges, textures and 1/f fields, no two alike.

Dead leaves (shapes of many sizes that hide one another) and 1/f noise are the two classical models of what
natural images have in common: A. B. Lee, D. Mumford, J. Huang, "Occlusion models for natural images",
International Journal of Computer Vision 41 (2001); D. J. Field, JOSA A 4 (1987).
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["scene"]

Field = NDArray[np.float64]  # (H, W), or (H, W, 3) in colour
Rng = np.random.Generator


def scene(index: int, size: int, seed: int) -> Tensor:
    """One picture.

    Args:
        index: Which of them; eight families of pictures take turns, each picture with colours, sizes and
            directions of its own.
        size: Height and width.
        seed: Seed of all pictures.

    Returns:
        (3, size, size) uint8, RGB.

    Example:
        >>> scene(3, 64, seed=0).shape
        torch.Size([3, 64, 64])
    """
    rng = np.random.default_rng([seed, index])
    picture = _FAMILIES[index % len(_FAMILIES)](rng, size)
    picture = picture * (1 + 0.06 * _pink(rng, size, 1.0)[..., None])
    low, high = np.quantile(picture, (0.005, 0.995))
    pixels = np.clip((picture - low) / (high - low), 0, 1) * 255
    return torch.from_numpy(np.rint(pixels).astype(np.uint8)).permute(2, 0, 1).contiguous()


def _clouds(rng: Rng, size: int) -> Field:
    return _pink_colour(rng, size, rng.uniform(1.1, 1.6)) + 0.6 * (_ramp(rng, size)[..., None] * _colour(rng))


def _leaves(rng: Rng, size: int) -> Field:
    return _dead_leaves(rng, size, count=260, smallest=0.06, stretch=3.5)


def _pebbles(rng: Rng, size: int) -> Field:
    return _dead_leaves(rng, size, count=420, smallest=0.035, stretch=1.3)


def _hills(rng: Rng, size: int) -> Field:
    """Ridges before a sky, each nearer one darker and rougher."""
    _, y = _grid(size)
    picture = _blend(y + 0.5, _colour(rng, 0.95), _colour(rng, 0.8))
    for depth in range(5):
        profile = _pink(rng, size, 1.2)[0] * 0.05 - 0.2 + 0.14 * depth
        ground = _colour(rng, 0.85 - 0.13 * depth) * (1 + 0.05 * (1 + depth) * _pink(rng, size, 0.7)[..., None])
        picture = np.where((y > profile)[..., None], ground, picture)
    return picture


def _fabric(rng: Rng, size: int) -> Field:
    """Two gratings across each other, bent by a smooth field."""
    bend = 0.03 * _pink(rng, size, 2.0)
    angle = rng.uniform(0, math.pi)
    wave = [
        np.sin(2 * math.pi * rng.uniform(7, 22) * (_ramp(rng, size, angle + turn) + bend)) for turn in (0, math.pi / 2)
    ]
    warp = _blend(_soft_step(wave[0], 0.3), _colour(rng), _colour(rng))
    return _blend(_soft_step(wave[1], 0.6), warp, _colour(rng) * np.ones_like(warp))


def _checkers(rng: Rng, size: int) -> Field:
    """A checkered floor seen aslant, in uneven light."""
    angle = rng.uniform(0, math.pi)
    u, v = _ramp(rng, size, angle), _ramp(rng, size, angle + math.pi / 2)
    depth = 1 / (1.15 + v)
    tiles = (np.floor(u * depth * 9) + np.floor(depth * 9)) % 2
    light = 1 + 0.25 * _pink(rng, size, 1.8)
    return _blend(tiles, _colour(rng, 0.9), _colour(rng, 0.45)) * light[..., None]


def _balls(rng: Rng, size: int) -> Field:
    """Shaded balls with highlights before a gradient."""
    x, y = _grid(size)
    picture = _blend(_ramp(rng, size) + 0.5, _colour(rng), _colour(rng, 0.4))
    for _ in range(22):
        cx, cy, radius = rng.uniform(-0.5, 0.5), rng.uniform(-0.5, 0.5), rng.uniform(0.04, 0.2)
        dx, dy = (x - cx) / radius, (y - cy) / radius
        inside = dx**2 + dy**2 < 1
        height = np.sqrt(np.clip(1 - dx**2 - dy**2, 0, 1))
        light = np.clip(0.6 * height - 0.45 * dx - 0.55 * dy, 0.08, 1)
        ball = light[..., None] * _colour(rng) + (np.clip(light, 0, 1) ** 24)[..., None]
        picture = np.where(inside[..., None], ball, picture)
    return picture


def _mosaic(rng: Rng, size: int) -> Field:
    """Voronoi cells with dark joints."""
    x, y = _grid(size)
    sites = rng.uniform(-0.55, 0.55, (90, 2))
    distance = np.hypot(x[..., None] - sites[:, 0], y[..., None] - sites[:, 1])
    nearest = np.argmin(distance, -1)
    first, second = np.moveaxis(np.partition(distance, 1, -1)[..., :2], -1, 0)
    colours = np.stack([_colour(rng, rng.uniform(0.4, 1)) for _ in sites])
    picture: Field = colours[nearest] * (0.15 + 0.85 * _soft_step(second - first - 0.012, 0.006))[..., None]
    return picture


_FAMILIES: tuple[Callable[[Rng, int], Field], ...] = (
    _leaves,
    _hills,
    _checkers,
    _clouds,
    _mosaic,
    _balls,
    _fabric,
    _pebbles,
)


def _dead_leaves(rng: Rng, size: int, *, count: int, smallest: float, stretch: float) -> Field:
    """Ellipses with radii of density r^-3, painted over one another, each with its own grain."""
    x, y = _grid(size)
    picture = _pink_colour(rng, size, 1.2)
    grain = _pink(rng, size, 0.6)
    radii = smallest / np.sqrt(1 - rng.uniform(0, 1 - (smallest / 0.3) ** 2, count))
    for radius in np.sort(radii)[::-1]:
        cx, cy = rng.uniform(-0.55, 0.55, 2)
        angle, ratio = rng.uniform(0, math.pi), rng.uniform(1, stretch)
        box = _around(cy, radius, size), _around(cx, radius, size)
        dx, dy = x[box] - cx, y[box] - cy
        u, v = dx * math.cos(angle) + dy * math.sin(angle), dy * math.cos(angle) - dx * math.sin(angle)
        inside = (u / radius) ** 2 + (v * ratio / radius) ** 2 < 1
        shade = 1 + 0.4 * v[inside] / radius + rng.uniform(0, 0.25) * grain[box][inside]
        picture[box][inside] = _colour(rng, rng.uniform(0.35, 1)) * shade[:, None]
    return picture


def _pink(rng: Rng, size: int, exponent: float) -> Field:
    """A field with amplitude 1/f^exponent, mean 0 and deviation 1."""
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size))
    frequency[0, 0] = np.inf
    spectrum = np.fft.rfft2(rng.standard_normal((size, size))) / frequency**exponent
    field = np.fft.irfft2(spectrum, s=(size, size))
    pink: Field = field / field.std()
    return pink


def _pink_colour(rng: Rng, size: int, exponent: float) -> Field:
    """Three pink fields, alike in most of their brightness and apart in their colour."""
    fields = np.stack([_pink(rng, size, exponent) for _ in range(4)], -1)
    return 0.25 * (fields[..., :1] + 0.7 * fields[..., 1:]) + 0.5


def _grid(size: int) -> tuple[Field, Field]:
    """x and y of every pixel, -0.5 to 0.5."""
    axis = np.linspace(-0.5, 0.5, size)
    x, y = np.meshgrid(axis, axis)
    return x, y


def _around(centre: float, radius: float, size: int) -> slice:
    """The pixels between centre - radius and centre + radius along one axis of `_grid`."""
    first, last = ((centre + side * radius + 0.5) * (size - 1) for side in (-1, 1))
    return slice(max(0, math.floor(first)), max(0, math.ceil(last) + 1))


def _ramp(rng: Rng, size: int, angle: float | None = None) -> Field:
    x, y = _grid(size)
    angle = rng.uniform(0, 2 * math.pi) if angle is None else angle
    return x * math.cos(angle) + y * math.sin(angle)


def _colour(rng: Rng, value: float = 0.9) -> Field:
    return np.array(colorsys.hsv_to_rgb(rng.uniform(), rng.uniform(0.2, 0.85), value))


def _blend(weight: Field, first: Field, second: Field) -> Field:
    return (1 - weight[..., None]) * first + weight[..., None] * second


def _soft_step(field: Field, width: float) -> Field:
    return 0.5 + 0.5 * np.tanh(field / width)
