"""What a window of an image might have looked like: samples of its pixels given those around it, or of any window.

Zintgraf, Cohen, Adel & Welling, "Visualizing deep neural network decisions: prediction difference analysis" (ICLR
2017), section 3.1: the pixels of a patch of one colour channel are taken as multivariate normal.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any, Protocol

import torch
from torch import Tensor

from fmiqa._checks import check_picture
from fmiqa.errors import InputError

__all__ = ["ConditionalSampler", "MarginalSampler", "PatchSampler"]

_JITTER = 1e-6  # of the mean variance, added to each variance: patches of flat images have none


class PatchSampler(Protocol):
    """Draws new pixels for windows of an image."""

    window: int

    def sample(self, image: Tensor, tops: Tensor, lefts: Tensor, count: int, generator: torch.Generator) -> Tensor:
        """(W, count, 3, window, window) in [0, 1], for W windows of an image (3, H, W) in [0, 1]."""
        ...

    def options(self) -> dict[str, Any]:
        """What the samples depend on."""
        ...


class ConditionalSampler:
    """Pixels of a window given those around it: normal, a colour channel at a time, clipped to [0, 1].

    At the image's border the patch of surroundings is moved inwards, and the window lies off its centre.

    Args:
        images: (3, H, W) each, uint8 or float in [0, 1]: the images whose patches the normal is fitted to.
        window: Side of the window, in pixels.
        padding: Pixels of surroundings on each side.
        patches: How many patches it is fitted to, spread evenly over the images.
        seed: Seed of the places where they are taken.

    Attributes:
        mean: (3, p^2) of patches of p = window + 2 padding pixels a side, in float64.
        covariance: (3, p^2, p^2), in float64.

    Raises:
        InputError: No images, or images smaller than a patch; sizes under 1, or fewer than two patches.

    Example:
        >>> images = torch.rand(2, 3, 40, 50)
        >>> sampler = ConditionalSampler(images, window=4, padding=1, patches=500)
        >>> at = torch.tensor([3, 20])
        >>> sampler.sample(images[0], at, at, 5, torch.Generator()).shape
        torch.Size([2, 5, 3, 4, 4])
    """

    def __init__(
        self, images: Iterable[Tensor], *, window: int = 10, padding: int = 2, patches: int = 20_000, seed: int = 0
    ) -> None:
        if padding < 1:
            raise InputError(f"padding is at least 1 pixel, got {padding}; without surroundings use MarginalSampler")
        self.window, self.padding, self.patches, self.seed = window, padding, patches, seed
        self.side = window + 2 * padding
        found = _patches(images, self.side, patches, seed).double().flatten(2).transpose(0, 1)  # (3, n, p^2)
        self.mean = found.mean(1)
        centred = found - self.mean[:, None]
        self.covariance = centred.transpose(1, 2) @ centred / (found.shape[1] - 1)
        self._factors: dict[tuple[Any, ...], tuple[Tensor, ...]] = {}

    def options(self) -> dict[str, Any]:
        """What the samples depend on."""
        content = self.mean.numpy().tobytes() + self.covariance.numpy().tobytes()
        return {
            "sampler": "conditional",
            "window": self.window,
            "padding": self.padding,
            "sha256": hashlib.sha256(content).hexdigest(),
        }

    def conditional(self, top: int, left: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The normal of a window that lies at (top, left) in its patch, given the other pixels of the patch.

        Returns:
            The window's and the surroundings' places in the patch (k^2,) and (p^2 - k^2,); the weights
            (3, k^2, p^2 - k^2) of the surroundings, as they differ from their mean; the covariance (3, k^2, k^2).
        """
        inside = torch.zeros(self.side, self.side, dtype=torch.bool, device="cpu")
        inside[top : top + self.window, left : left + self.window] = True
        window, around = inside.flatten().nonzero()[:, 0], (~inside).flatten().nonzero()[:, 0]
        covariance = self.covariance.clone()
        variances = covariance.diagonal(dim1=1, dim2=2)
        variances += _JITTER * variances.mean(1, keepdim=True) + torch.finfo(torch.float64).tiny
        between = covariance[:, window][:, :, around]
        weights = torch.linalg.solve(covariance[:, around][:, :, around], between.transpose(1, 2)).transpose(1, 2)
        return window, around, weights, covariance[:, window][:, :, window] - weights @ between.transpose(1, 2)

    def sample(self, image: Tensor, tops: Tensor, lefts: Tensor, count: int, generator: torch.Generator) -> Tensor:
        """New pixels for windows of an image.

        Args:
            image: (3, H, W) float in [0, 1].
            tops: (W,) first rows.
            lefts: (W,) first columns.
            count: How many samples of each window.
            generator: Generator of random numbers, on the CPU.

        Returns:
            (W, count, 3, window, window).

        Raises:
            InputError: The image is smaller than a patch.
        """
        height, width = image.shape[1:]
        _check_size(height, width, self.side, "the image")
        k = self.window
        noise = torch.randn(len(tops), count, 3, k * k, generator=generator, device="cpu").to(image)
        rows = (tops - self.padding).clamp(0, height - self.side)
        columns = (lefts - self.padding).clamp(0, width - self.side)
        samples = torch.empty_like(noise)
        places = torch.stack([tops - rows, lefts - columns], 1)
        for place in places.unique(dim=0):
            members = (places == place).all(1).nonzero()[:, 0]
            window, around, weights, mean, factor = self._factor(int(place[0]), int(place[1]), image)
            patches = _cut(image, rows[members], columns[members], self.side).flatten(2)  # (w, 3, p^2)
            centre = torch.einsum("wca,cka->wck", patches[:, :, around] - mean[:, around], weights) + mean[:, window]
            samples[members] = centre[:, None] + torch.einsum("wscj,ckj->wsck", noise[members], factor)
        return samples.clamp_(0, 1).view(len(tops), count, 3, k, k)

    def _factor(self, top: int, left: int, like: Tensor) -> tuple[Tensor, ...]:
        key = top, left, like.device, like.dtype
        if key not in self._factors:
            window, around, weights, covariance = self.conditional(top, left)
            factor = torch.linalg.cholesky(covariance)
            floats = (v.to(like) for v in (weights, self.mean, factor))
            self._factors[key] = (window.to(like.device), around.to(like.device), *floats)
        return self._factors[key]


class MarginalSampler:
    """Windows of other places and images, whatever surrounds them: the cheap alternative.

    Args:
        images: (3, H, W) each, uint8 or float in [0, 1].
        window: Side of the window, in pixels.
        patches: Number of windows to draw from.
        seed: Seed of the places where they are taken.

    Raises:
        InputError: As for `ConditionalSampler`.

    Example:
        >>> sampler = MarginalSampler(torch.rand(2, 3, 40, 50), window=4, patches=100)
        >>> at = torch.tensor([3])
        >>> sampler.sample(torch.rand(3, 40, 50), at, at, 5, torch.Generator()).shape
        torch.Size([1, 5, 3, 4, 4])
    """

    def __init__(self, images: Iterable[Tensor], *, window: int = 10, patches: int = 20_000, seed: int = 0) -> None:
        self.window, self.seed = window, seed
        self._patches = _patches(images, window, patches, seed)

    def options(self) -> dict[str, Any]:
        """What the samples depend on."""
        digest = hashlib.sha256(self._patches.numpy().tobytes()).hexdigest()
        return {"sampler": "marginal", "window": self.window, "sha256": digest}

    def sample(self, image: Tensor, tops: Tensor, lefts: Tensor, count: int, generator: torch.Generator) -> Tensor:
        """As in `ConditionalSampler`."""
        chosen = torch.randint(len(self._patches), (len(tops), count), generator=generator, device="cpu")
        return self._patches[chosen].to(image)


def _patches(images: Iterable[Tensor], side: int, count: int, seed: int) -> Tensor:
    """(n, 3, side, side) float32 in [0, 1] from random places, as many of each image, about `count` in all."""
    if not isinstance(images, Iterable):
        raise InputError(f"images is a list of images (3, H, W), got {type(images).__name__}")
    pictures = list(images)
    if side < 1 or count < 2 or not pictures:
        raise InputError(
            f"patches of at least 1 pixel, at least two of them, from at least one image; got a side of {side}, "
            f"{count} patches and {len(pictures)} images"
        )
    generator = torch.Generator().manual_seed(seed)
    each, found = -(-count // len(pictures)), []
    for number, picture in enumerate(pictures):
        check_picture(picture, f"image {number} to take patches from")
        height, width = picture.shape[1:]
        _check_size(height, width, side, f"image {number} to take patches from")
        tops = torch.randint(height - side + 1, (each,), generator=generator, device="cpu")
        lefts = torch.randint(width - side + 1, (each,), generator=generator, device="cpu")
        pixels = picture.cpu().float() / 255 if picture.dtype == torch.uint8 else picture.cpu().float()
        found.append(_cut(pixels, tops, lefts, side))
    return torch.cat(found)


def _check_size(height: int, width: int, side: int, what: str) -> None:
    if min(height, width) < side:
        raise InputError(f"{what} is {width}x{height} pixels, smaller than a patch of {side}; use a smaller window")


def _cut(image: Tensor, tops: Tensor, lefts: Tensor, side: int) -> Tensor:
    """(W, 3, side, side)."""
    steps = torch.arange(side, device=image.device)
    tops, lefts = tops.to(image.device), lefts.to(image.device)
    return image[:, (tops[:, None] + steps)[:, :, None], (lefts[:, None] + steps)[:, None, :]].transpose(0, 1)
