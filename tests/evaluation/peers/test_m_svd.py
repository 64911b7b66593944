"""M-SVD of images: the measure on grey values from 0 to 255."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from fmiqa import InputError
from fmiqa.evaluation.peers import m_svd
from fmiqa.measures import MSVD

Picture = Callable[..., Tensor]


def test_grey_values_from_0_to_255(picture: Picture, noisy: Picture, device: torch.device) -> None:
    reference = picture().to(device)
    test = noisy(reference, 0.1)
    weights = torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64, device=device).view(1, 3, 1, 1)
    x, y = ((255 * weights * side).sum(1, keepdim=True) for side in (test, reference))
    torch.testing.assert_close(m_svd(test, reference), MSVD()(x, y)[:, 0], rtol=1e-12, atol=0)


def test_properties(picture: Picture, noisy: Picture, device: torch.device) -> None:
    reference = picture().to(device)
    tests = torch.cat([noisy(reference, s) for s in (0.0, 0.02, 0.1, 0.3)])
    values = m_svd(tests, reference)
    assert values[0] == 0
    assert bool((values.diff() > 0).all()), values
    # Singular values of up to 8 x 255 are off by some 1e-13.
    alone = torch.cat([m_svd(test, reference) for test in tests.split(1)])
    torch.testing.assert_close(values, alone, rtol=0, atol=1e-10)
    torch.testing.assert_close(m_svd(reference.expand_as(tests), tests), values, rtol=0, atol=1e-10)


def test_uint8_images_are_those_divided_by_255(picture: Picture, noisy: Picture) -> None:
    test, reference = ((255 * side).round().to(torch.uint8) for side in (noisy(picture(), 0.1), picture()))
    assert torch.equal(m_svd(test, reference), m_svd(test.float() / 255, reference.float() / 255))


def test_errors(picture: Picture) -> None:
    image = picture(15, 20)
    with pytest.raises(InputError, match="maps of 20x15 are too small"):
        m_svd(image, image)
    with pytest.raises(InputError, match="M-SVD compares images of one shape"):
        m_svd(image, image[..., :16])
