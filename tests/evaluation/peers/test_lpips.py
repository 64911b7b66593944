"""LPIPS against its definition, written out, and against its own package where that is installed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor, nn

from fmiqa import InputError, WeightsError
from fmiqa.evaluation.peers import LPIPS, lpips

Picture = Callable[..., Tensor]
Weights = dict[str, dict[str, Tensor]]

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.fixture(scope="module")
def metric(own_weights: Weights) -> nn.Module:
    return LPIPS(own_weights["alexnet"], own_weights["lpips"]).double()


def written_out(test: Tensor, reference: Tensor, weights: Weights) -> float:
    features = torchvision.models.alexnet(weights=None).double().eval().features
    features.load_state_dict({name.removeprefix("features."): value for name, value in weights["alexnet"].items()})
    linear = [value.flatten().double().numpy() for value in weights["lpips"].values()]
    # The library holds these in float32, also for wider networks.
    mean, deviation = (torch.tensor(v).double().view(1, 3, 1, 1) for v in (MEAN, DEVIATION))
    x, y = ((side - mean) / deviation for side in (test, reference))
    total = 0.0
    for layer in features:
        with torch.no_grad():
            x, y = layer(x.clone()), layer(y.clone())
        if isinstance(layer, nn.ReLU):
            channels, found = linear.pop(0), []
            for row in range(x.shape[2]):
                for column in range(x.shape[3]):
                    u, v = (side[0, :, row, column].numpy() for side in (x, y))
                    u, v = u / (np.sqrt((u**2).sum()) + 1e-10), v / (np.sqrt((v**2).sum()) + 1e-10)
                    found.append((channels * (u - v) ** 2).sum())
            total += float(np.mean(found))
    return total


def test_written_out(metric: nn.Module, own_weights: Weights, picture: Picture, noisy: Picture) -> None:
    reference = picture(70, 95)
    for strength in (0.02, 0.3):
        test = noisy(reference, strength)
        # Float64 sums of some 10^4 terms.
        assert metric(test, reference).item() == pytest.approx(written_out(test, reference, own_weights), rel=1e-10)


def test_its_own_package(own_weights: Weights, picture: Picture, noisy: Picture) -> None:
    package = pytest.importorskip("lpips")
    theirs = package.LPIPS(net="alex", pnet_rand=True, verbose=False).eval()
    for name, parameter in theirs.net.named_parameters():  # slice1.0.weight, ... for features.0.weight, ...
        parameter.data.copy_(own_weights["alexnet"]["features." + name.split(".", 1)[1]])
    reference = picture(70, 95).float()
    test = noisy(reference, 0.1)
    expected = theirs(test, reference, normalize=True).flatten()
    # Five layers of float32.
    torch.testing.assert_close(LPIPS(own_weights["alexnet"])(test, reference), expected, rtol=1e-4, atol=1e-7)


def test_properties(metric: nn.Module, picture: Picture, noisy: Picture) -> None:
    reference = picture(70, 80)
    tests = torch.cat([noisy(reference, strength) for strength in (0.02, 0.1, 0.3)])
    values = metric(tests, reference)
    assert metric(reference, reference).item() == 0
    assert values[0] > 0
    assert bool((values.diff() > 0).all()), values
    # Convolutions of other batch sizes round differently, by some 1e-15 of the values.
    torch.testing.assert_close(metric(reference.expand_as(tests), tests), values, rtol=1e-10, atol=0)
    for start in (reference, tests[:1], torch.zeros_like(reference)):
        test = start.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(metric(test, reference).sum(), test)
        assert bool(gradient.isfinite().all())


def test_errors(metric: nn.Module, own_weights: Weights, picture: Picture, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="LPIPS compares images of one shape"):
        metric(picture(70, 80), picture(70, 70))
    with pytest.raises(WeightsError, match=r"lin0\.model\.1\.weight is missing"):
        LPIPS(own_weights["alexnet"], {})
    monkeypatch.setattr(lpips, "find_spec", lambda _: None)
    with pytest.raises(WeightsError, match=r"in the package lpips: install it .* lpips/weights/v0.1/alex.pth"):
        LPIPS(own_weights["alexnet"])
