"""Samples of windows against numpy's normals."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from fmiqa import InputError
from fmiqa.visualize.patches import ConditionalSampler, MarginalSampler


def smooth_images(count: int = 4, side: int = 48) -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    noise = torch.rand(count, 3, side + 8, side + 8, generator=generator)
    return list(torch.nn.functional.avg_pool2d(noise, 9, 1))


def test_mean_and_covariance_are_numpys() -> None:
    image = smooth_images(1)[0]
    sampler = ConditionalSampler([image], window=3, padding=1, patches=400, seed=5)
    generator = torch.Generator().manual_seed(5)
    tops = torch.randint(48 - 4, (400,), generator=generator)
    lefts = torch.randint(48 - 4, (400,), generator=generator)
    cut = [image[:, t : t + 5, x : x + 5].numpy() for t, x in zip(tops.tolist(), lefts.tolist(), strict=True)]
    for channel in range(3):
        rows = np.stack([c[channel].ravel() for c in cut]).astype(np.float64)
        np.testing.assert_allclose(sampler.mean[channel], rows.mean(0), rtol=0, atol=1e-12)
        np.testing.assert_allclose(sampler.covariance[channel], np.cov(rows, rowvar=False), rtol=0, atol=1e-12)


@pytest.mark.parametrize("place", [(1, 1), (0, 2), (2, 0)])
def test_the_conditional_normal_is_that_of_numpy(place: tuple[int, int]) -> None:
    sampler = ConditionalSampler(smooth_images(), window=3, padding=1, patches=2000)
    window, around, weights, covariance = sampler.conditional(*place)
    for channel in range(3):
        s = sampler.covariance[channel].numpy().copy()
        s[np.diag_indices(25)] += 1e-6 * np.diag(s).mean()  # the jitter, part of the definition
        inverse = np.linalg.inv(s)
        # From the precision matrix: another way round than the regression that the sampler solves.
        own = inverse[np.ix_(window, window)]
        # The matrices' condition is some 1e6.
        np.testing.assert_allclose(covariance[channel], np.linalg.inv(own), rtol=1e-6, atol=1e-12)
        expected = -np.linalg.inv(own) @ inverse[np.ix_(window, around)]
        np.testing.assert_allclose(weights[channel], expected, rtol=0, atol=1e-6)


def test_samples_have_the_conditional_mean_and_covariance() -> None:
    images = smooth_images()
    sampler = ConditionalSampler(images, window=3, padding=1, patches=2000)
    top, left, count = torch.tensor([20]), torch.tensor([11]), 20_000
    drawn = sampler.sample(images[1], top, left, count, torch.Generator().manual_seed(0))[0, :, 2].flatten(1).double()
    window, around, weights, covariance = sampler.conditional(1, 1)
    patch = images[1][2, 19:24, 10:15].flatten().double()
    mean = sampler.mean[2, window] + weights[2] @ (patch[around] - sampler.mean[2, around])
    deviation = covariance[2].diagonal().sqrt()
    # Five standard errors of a mean, and of a variance, over 20,000 samples (none is clipped: values lie about .5).
    assert ((drawn.mean(0) - mean).abs() < 5 * deviation / count**0.5).all()
    found = torch.from_numpy(np.cov(drawn.numpy(), rowvar=False))
    scale = deviation[:, None] * deviation
    assert ((found - covariance[2]).abs() < 5 * scale * (2 / count) ** 0.5).all()


def test_windows_at_borders_see_a_patch_moved_inwards() -> None:
    images = smooth_images()
    sampler = ConditionalSampler(images, window=4, padding=2, patches=500)
    tops, lefts = torch.tensor([0, 44, 1, 20]), torch.tensor([0, 44, 43, 0])
    together = sampler.sample(images[0], tops, lefts, 3, torch.Generator().manual_seed(1))
    assert together.shape == (4, 3, 3, 4, 4)
    assert together.min() >= 0
    assert together.max() <= 1
    # The first window lies at the patch's corner: its mean there.
    window, around, weights, _ = sampler.conditional(0, 0)
    patch = images[0][1, :8, :8].flatten().double()
    mean = sampler.mean[1, window] + weights[1] @ (patch[around] - sampler.mean[1, around])
    many = sampler.sample(images[0], tops[:1], lefts[:1], 4000, torch.Generator())[0, :, 1].flatten(1).double()
    assert ((many.mean(0) - mean).abs() < 6 * many.std(0) / 4000**0.5 + 1e-6).all()


def test_marginal_samples_are_windows_of_the_images() -> None:
    image = (torch.arange(3 * 30 * 30) / 2700).reshape(3, 30, 30)  # all pixels differ
    sampler = MarginalSampler([image], window=5, patches=40)
    at = torch.tensor([0, 3])
    drawn = sampler.sample(image, at, at, 6, torch.Generator().manual_seed(2)).flatten(0, 1)
    known = image.unfold(1, 5, 1).unfold(2, 5, 1).permute(1, 2, 0, 3, 4).reshape(-1, 3, 5, 5)
    for patch in drawn:
        assert (known == patch).flatten(1).all(1).any()
    assert len(drawn.flatten(1).unique(dim=0)) > 1


def test_bad_input_is_named() -> None:
    image = torch.rand(3, 20, 20)
    with pytest.raises(InputError, match="0 images"):
        ConditionalSampler([])
    with pytest.raises(InputError, match="20x20 pixels, smaller than a patch of 34"):
        ConditionalSampler([image], window=30)
    with pytest.raises(InputError, match="use MarginalSampler"):
        ConditionalSampler([image], padding=0)
    with pytest.raises(InputError, match=r"\(3, H, W\), got \(20, 20\)"):
        MarginalSampler([image[0]])
