"""DeepWSD and DeepJSD against their definition, written out window by window."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
import torchvision
from scipy.spatial.distance import jensenshannon
from scipy.special import softmax
from scipy.stats import wasserstein_distance
from torch import Tensor, nn

from fmiqa import InputError, WeightsError
from fmiqa.evaluation.peers import DeepJSD, DeepWSD, deep

Picture = Callable[..., Tensor]
METRICS = {"DeepWSD": DeepWSD, "DeepJSD": DeepJSD}

# 1e-9 of float64 sums of at most some 10^5 terms; the fourth root does not enlarge relative errors.
TOLERANCE = {"rtol": 1e-9, "atol": 0}


@pytest.fixture(scope="module")
def weights(own_weights: dict[str, dict[str, Tensor]]) -> dict[str, Tensor]:
    return own_weights["squeezenet1_1"]


@pytest.fixture(scope="module")
def metrics(weights: dict[str, Tensor]) -> dict[str, nn.Module]:
    return {name: metric(weights).double() for name, metric in METRICS.items()}


def quantile(masses: np.ndarray, level: float) -> int:
    """The first place at which the masses up to there reach a level; the last place where they never do."""
    total = 0.0
    for place, mass in enumerate(masses):
        total += mass
        if total >= level:
            return place
    return len(masses) - 1


def wasserstein(p: np.ndarray, q: np.ndarray) -> float:
    """The integral of the squared difference of quantiles, from one level where either jumps to the next."""
    levels = sorted([0.0, *np.cumsum(p), *np.cumsum(q)])
    return sum(
        (high - low) * (quantile(p, (low + high) / 2) - quantile(q, (low + high) / 2)) ** 2
        for low, high in pairwise(levels)
    )


def divergence(x: np.ndarray, y: np.ndarray) -> float:
    return float(jensenshannon(softmax(x), softmax(y)) ** 2)


def windows(maps: np.ndarray) -> list[np.ndarray]:
    """(C, H, W) -> windows of 64 values: every K-th of the values in memory."""
    _, height, width = maps.shape
    rows, columns = (max(1, round(side / 8)) * 8 for side in (height, width))
    placed = np.zeros((len(maps), rows, columns))
    for row in range(rows):  # the top rows stay where they are, and so do the columns at the right
        for column in range(columns):
            here = column - (columns - width)
            if row < height and here >= 0:
                placed[:, row, column] = maps[:, row, here]
    flat = placed.ravel()
    count = len(flat) // 64
    return [flat[start::count] for start in range(count)]


def stages(images: Tensor, weights: dict[str, Tensor]) -> list[np.ndarray]:
    factor = max(1, round(max(images.shape[-2:]) / 256))
    height, width = (side // factor for side in images.shape[-2:])
    blocks = images[0, :, : height * factor, : width * factor].reshape(3, height, factor, width, factor)
    maps = blocks.mean((2, 4))[None]
    features = torchvision.models.squeezenet1_1(weights=None).double().eval().features
    features.load_state_dict({name.removeprefix("features."): value for name, value in weights.items()})
    found = [maps[0].numpy()]
    with torch.no_grad():
        for place, layer in enumerate(features):
            maps = layer(maps)
            if place in (1, 4, 7, 12):
                found.append(maps[0].numpy().copy())
    return found


def written_out(name: str, test: Tensor, reference: Tensor, weights: dict[str, Tensor]) -> float:
    means = []
    for x, y in zip(stages(test, weights), stages(reference, weights), strict=True):
        here, there = windows(x), windows(y)
        total_x, total_y = np.sum(here) + 1e-6, np.sum(there) + 1e-6
        found = []
        for u, v in zip(here, there, strict=True):
            d = wasserstein(u**2 / total_x, v**2 / total_y) if name == "DeepWSD" else divergence(u, v)
            weight = 1 / (math.sqrt(math.exp(-1 / (d + 10))) * (d + 10) ** 2)
            found.append(d + weight * ((u - v) ** 2).sum())
        means.append(np.mean(found))
    return float(math.log(1 + np.mean(means)) ** 0.25)


# Sides that are cut, extended and kept; maps that shrink to a side of 3; f = 1 and f = 2 with rows left over.
@pytest.mark.parametrize("size", [(40, 51), (56, 35), (35, 401)])
@pytest.mark.parametrize("name", METRICS)
def test_written_out(
    name: str,
    size: tuple[int, int],
    metrics: dict[str, nn.Module],
    weights: dict[str, Tensor],
    picture: Picture,
    noisy: Picture,
) -> None:
    reference = picture(*size)
    test = noisy(reference, 0.1)
    value = metrics[name](test, reference)
    assert value.shape == (1,)
    np.testing.assert_allclose(value.item(), written_out(name, test, reference, weights), **TOLERANCE)


def test_wasserstein_of_equal_totals_is_that_of_scipy(metrics: dict[str, nn.Module]) -> None:
    # The places that hold masses are neighbours, so that a squared distance is the distance. Scipy takes shares.
    generator = torch.Generator().manual_seed(0)
    x, y = torch.zeros(2, 1, 64, 1, dtype=torch.float64).unbind()
    x[0, 5:7, 0] = torch.rand(2, generator=generator, dtype=torch.float64)
    y[0, 5:7, 0] = x[0, 5:7, 0].flip(0)
    mass = (x.square().sum() / (x.sum() + 1e-6)).item()
    places = np.arange(64)
    shares = [side[0, :, 0].square().numpy() for side in (x, y)]
    expected = mass * wasserstein_distance(places, places, *shares)
    # Sums of two float64 numbers each.
    np.testing.assert_allclose(metrics["DeepWSD"].distances(x, y).item(), expected, rtol=1e-13)


@pytest.mark.parametrize("name", METRICS)
def test_properties(name: str, metrics: dict[str, nn.Module], picture: Picture, noisy: Picture) -> None:
    reference = picture(40, 48)
    tests = torch.cat([noisy(reference, s) for s in (0.02, 0.1, 0.3)])
    values = metrics[name](tests, reference)
    assert metrics[name](reference, reference).item() == 0
    assert values[0] > 0
    assert bool((values.diff() > 0).all()), values
    # Convolutions of other batch sizes round differently, by some 1e-15 of the values.
    alone = torch.cat([metrics[name](test, reference) for test in tests.split(1)])
    torch.testing.assert_close(values, alone, rtol=1e-9, atol=0)
    torch.testing.assert_close(metrics[name](reference.expand_as(tests), tests), values, rtol=1e-9, atol=0)


@pytest.mark.parametrize("name", METRICS)
def test_gradients(name: str, metrics: dict[str, nn.Module], picture: Picture, noisy: Picture) -> None:
    reference = picture(40, 48)
    for strength in (0.0, 0.1):
        test = noisy(reference, strength).requires_grad_()
        (gradient,) = torch.autograd.grad(metrics[name](test, reference).sum(), test)
        assert bool(gradient.isfinite().all())
        assert bool((gradient == 0).all()) == (strength == 0)
    (black,) = torch.zeros(1, 1, 3, 40, 48, dtype=torch.float64).requires_grad_()
    (gradient,) = torch.autograd.grad(metrics[name](black, reference).sum(), black)
    assert bool(gradient.isfinite().all())


@pytest.mark.parametrize("name", METRICS)
def test_gradient_is_that_of_differences(
    name: str, metrics: dict[str, nn.Module], picture: Picture, noisy: Picture
) -> None:
    reference = picture(24, 24)
    test = noisy(reference, 0.1).requires_grad_()
    direction = torch.randn(test.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    (gradient,) = torch.autograd.grad(metrics[name](test, reference).sum(), test)
    step = 1e-6
    with torch.no_grad():
        ends = [metrics[name](test + sign * step * direction, reference).item() for sign in (1, -1)]
    # Central differences err by step^2 and by 1e-16 / step, and by the kinks of ReLUs between both ends.
    assert (gradient * direction).sum().item() == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-4)


def test_single_precision(weights: dict[str, Tensor], metrics: dict[str, nn.Module], picture: Picture) -> None:
    reference, test = picture(40, 48).float(), picture(40, 48, seed=1).float()
    for name, metric in METRICS.items():
        value = metric(weights)(test, reference)
        assert value.dtype == torch.float32
        # Sums of 64 masses and some ten layers of float32, each off by some 1e-7.
        torch.testing.assert_close(value.double(), metrics[name](test, reference), rtol=1e-4, atol=0)


def test_uint8_images_are_those_divided_by_255(metrics: dict[str, nn.Module], picture: Picture) -> None:
    test, reference = ((255 * picture(40, 40, seed=s)).round().to(torch.uint8) for s in (0, 1))
    for metric in metrics.values():
        assert torch.equal(metric(test, reference), metric(test.float() / 255, reference.float() / 255))


def test_errors(metrics: dict[str, nn.Module], picture: Picture) -> None:
    with pytest.raises(InputError, match="DeepJSD compares images of one shape"):
        metrics["DeepJSD"](picture(40, 48), picture(40, 40))
    with pytest.raises(InputError, match="too small"):
        metrics["DeepWSD"](picture(8, 8), picture(8, 8))
    with pytest.raises(WeightsError, match=r"features\.0\.weight is missing"):
        DeepWSD({})


def test_only_what_is_compared_is_kept() -> None:
    assert len(deep._STAGES) == 4
    with pytest.warns(UserWarning, match="random weights"):
        metric = DeepWSD(None)
    assert metric.extractor.layers == [layer for stage in deep._STAGES for layer in stage]
    assert not any(parameter.requires_grad for parameter in metric.parameters())
