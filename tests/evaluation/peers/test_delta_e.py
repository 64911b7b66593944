"""Mean dE*ab against published CIELAB values, the closed form pixel by pixel, and scikit-image."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from fmiqa import InputError
from fmiqa.evaluation.peers import cielab, delta_e_ab

Picture = Callable[..., Tensor]

# CIELAB of sRGB colours under D65, 2 degree observer, as published with two decimals.
PUBLISHED = {
    (255, 0, 0): (53.24, 80.09, 67.20),
    (0, 255, 0): (87.73, -86.18, 83.18),
    (0, 0, 255): (32.30, 79.19, -107.86),
    (255, 255, 0): (97.14, -21.55, 94.48),
    (0, 255, 255): (91.11, -48.09, -14.13),
    (255, 0, 255): (60.32, 98.23, -60.82),
    (255, 255, 255): (100.0, 0.0, 0.0),
    (128, 128, 128): (53.59, 0.0, 0.0),
    (0, 0, 0): (0.0, 0.0, 0.0),
}


def direct(pixel: np.ndarray) -> np.ndarray:
    """CIELAB of one sRGB colour, the matrix worked out from the primaries' chromaticities and the white."""
    white = np.array([0.95047, 1.0, 1.08883])
    primaries = np.array([[x / y, 1, (1 - x - y) / y] for x, y in ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06))]).T
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in pixel]
    xyz = primaries @ (np.linalg.solve(primaries, white) * linear)
    fx, fy, fz = (t ** (1 / 3) if t > 216 / 24389 else (24389 / 27 * t + 16) / 116 for t in xyz / white)
    return np.array([116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)])


@pytest.mark.parametrize("colour", PUBLISHED, ids=str)
def test_published_colours(colour: tuple[int, int, int], device: torch.device) -> None:
    image = (torch.tensor(colour, dtype=torch.float32) / 255).view(1, 3, 1, 1).to(device)
    # Half of the last decimal. Float32 adds some 500 times its epsilon, 6e-5.
    np.testing.assert_allclose(cielab(image).flatten().cpu(), PUBLISHED[colour], rtol=0, atol=0.0051)


def test_differences_of_published_colours() -> None:
    colours = list(PUBLISHED)
    images = torch.tensor(colours, dtype=torch.uint8)[:, :, None, None].expand(-1, -1, 4, 5)
    for test, lab in zip(images, PUBLISHED.values(), strict=True):
        expected = [float(np.linalg.norm(np.subtract(lab, other))) for other in PUBLISHED.values()]
        values = delta_e_ab(test.expand_as(images), images)
        np.testing.assert_allclose(values, expected, rtol=0, atol=0.02)  # six coordinates rounded to .005


def test_against_the_closed_form(picture: Picture, noisy: Picture, device: torch.device) -> None:
    reference = picture(12, 17)
    reference[..., :4, :] /= 50  # dark colours, on the straight parts of both curves
    test = noisy(reference, 0.1)
    distances = []
    for x, y in zip(test[0].flatten(1).T.numpy(), reference[0].flatten(1).T.numpy(), strict=True):
        distances.append(np.linalg.norm(direct(x) - direct(y)))
    expected = float(np.mean(distances))
    # The matrix in the library is rounded to 7 decimals, 3e-6 of its least entry; with a*'s factor 500 that is at most
    # 5e-4 of a difference. Seen: 2e-6.
    assert delta_e_ab(test.to(device), reference.to(device)).item() == pytest.approx(expected, abs=5e-4)
    single = delta_e_ab(test.float().to(device), reference.float().to(device))
    assert single.item() == pytest.approx(expected, abs=1e-3)  # float32: 500 times its epsilon a coordinate


def test_against_scikit_image(picture: Picture, noisy: Picture) -> None:
    color = pytest.importorskip("skimage.color")
    reference = picture()
    test = noisy(reference, 0.1)
    x, y = (color.rgb2lab(side[0].permute(1, 2, 0).numpy()) for side in (test, reference))
    expected = color.deltaE_cie76(x, y).mean()
    assert delta_e_ab(test, reference).item() == pytest.approx(expected, abs=0.01)  # its matrix has 6 decimals


def test_the_slightest_difference_of_each_curve_is_continuous() -> None:
    # Both curves join a straight line to a power; colours on both sides of the joint are next to each other.
    for joint in (0.04045, 12.92 * (6 / 29) ** 3):
        sides = torch.tensor([joint - 1e-9, joint + 1e-9], dtype=torch.float64).view(2, 1, 1, 1).expand(2, 3, 1, 1)
        # sRGB's constants are rounded so that its curve jumps by about 1e-8 of linear light, 1e-5 of L*.
        assert delta_e_ab(sides[:1], sides[1:]).item() < 1e-4


def test_properties(picture: Picture, noisy: Picture, device: torch.device) -> None:
    reference = picture().to(device)
    tests = torch.cat([noisy(reference, s) for s in (0.0, 0.01, 0.05, 0.1, 0.3)])
    values = delta_e_ab(tests, reference)
    assert values[0] == 0
    assert bool((values.diff() > 0).all())
    assert torch.equal(delta_e_ab(reference.expand_as(tests), tests), values)  # symmetric
    alone = torch.cat([delta_e_ab(test, reference) for test in tests.split(1)])
    torch.testing.assert_close(values, alone, rtol=1e-12, atol=0)  # a sum over pixels in another order


def test_uint8_images_are_those_divided_by_255(picture: Picture, noisy: Picture) -> None:
    test, reference = ((255 * side).round().to(torch.uint8) for side in (noisy(picture(), 0.1), picture()))
    assert torch.equal(delta_e_ab(test, reference), delta_e_ab(test.float() / 255, reference.float() / 255))


def test_gradients(picture: Picture, noisy: Picture) -> None:
    reference = picture(4, 5)
    test = noisy(reference, 0.1).clamp(0.01, 0.99)
    assert torch.autograd.gradcheck(delta_e_ab, (test.requires_grad_(), reference.clamp(0.01, 0.99).requires_grad_()))
    for image in (reference, 0 * reference, 0 * reference + 1):
        same = image.detach().clone().requires_grad_()
        (gradient,) = torch.autograd.grad(delta_e_ab(same, image.detach()).sum(), same)
        assert torch.equal(gradient, torch.zeros_like(gradient))


def test_errors(picture: Picture) -> None:
    image = picture(8, 9)
    with pytest.raises(InputError, match="dE_ab, test: expected RGB images"):
        delta_e_ab(image[:, :1], image[:, :1])
    with pytest.raises(InputError, match="dE_ab compares images of one shape"):
        delta_e_ab(image, image.expand(2, -1, -1, -1))
