"""Viewing conditions: sizes, angular resolution, antialiasing."""

from __future__ import annotations

import math

import pytest
import torch

import fmiqa
from fmiqa.features.viewing import Viewing, pixels_per_degree


@pytest.mark.parametrize(
    ("viewing", "size"),
    [
        (Viewing(), (384, 512)),
        (Viewing(factor=0.5), (192, 256)),
        (Viewing(short_side=96), (96, 128)),
        (Viewing(pixels_per_degree=20, native_pixels_per_degree=40), (192, 256)),
    ],
)
def test_sizes(viewing: Viewing, size: tuple[int, int]) -> None:
    assert viewing.size(384, 512) == size
    assert viewing(torch.rand(1, 3, 384, 512)).shape[-2:] == size


def test_twice_the_distance_is_twice_the_resolution() -> None:
    near, far = (pixels_per_degree(distance=d, pixels_per_unit=40) for d in (50, 100))
    assert far == pytest.approx(2 * near)
    assert near == pytest.approx(40 * 100 * math.tan(math.pi / 360))


def test_native_viewing_hands_images_on_untouched_and_others_stay_in_range() -> None:
    images = torch.randint(0, 256, (1, 3, 32, 48), dtype=torch.uint8)
    assert Viewing()(images) is images
    small = Viewing(factor=0.5)(images)
    assert 0 <= float(small.min()) <= float(small.max()) <= 1
    torch.testing.assert_close(small, Viewing(factor=0.5)(images.float() / 255))


def test_shrinking_is_antialiased() -> None:
    """Stripes finer than the small image can hold become grey, not coarser stripes."""
    stripes = torch.zeros(1, 3, 64, 64)
    stripes[..., ::2] = 1
    small = Viewing(factor=0.25)(stripes)
    assert float((small[..., 2:-2] - 0.5).abs().max()) < 0.05


@pytest.mark.parametrize(
    "options",
    [
        {"factor": 0.0},
        {"factor": 0.5, "short_side": 100},
        {"pixels_per_degree": 30.0},
        {"native_pixels_per_degree": 30.0},
        {"factor": math.inf},
    ],
)
def test_contradictions_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(fmiqa.InputError):
        Viewing(**options)  # type: ignore[arg-type]
