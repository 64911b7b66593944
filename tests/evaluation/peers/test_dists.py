"""DISTS against the package piq, whose downloads are replaced by random weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

from fmiqa import InputError, Viewing, WeightsError
from fmiqa.evaluation.peers import DISTS

Picture = Callable[..., Tensor]
Weights = dict[str, dict[str, Tensor]]


@pytest.fixture(scope="module")
def metric(own_weights: Weights) -> nn.Module:
    return DISTS(own_weights["vgg16"], own_weights["dists"])


def test_piq(
    metric: nn.Module, own_weights: Weights, picture: Picture, noisy: Picture, monkeypatch: pytest.MonkeyPatch
) -> None:
    piq = pytest.importorskip("piq")

    def vgg16(**_: Any) -> nn.Module:
        with torch.device("meta"):
            network = torchvision.models.vgg16(weights=None)
        network.features.load_state_dict(
            {name.removeprefix("features."): value for name, value in own_weights["vgg16"].items()}, assign=True
        )
        return network.eval()

    total = sum(value.sum() for value in own_weights["dists"].values())
    shares = {name: value / total for name, value in own_weights["dists"].items()}
    monkeypatch.setattr(piq.perceptual, "vgg16", vgg16)
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", lambda *_, **__: shares)
    reference = picture(65, 50).float()
    tests = torch.cat([noisy(reference, strength) for strength in (0.02, 0.1, 0.3)])
    expected = piq.DISTS(reduction="none")(tests, reference.expand_as(tests))
    # Sums and 13 layers of float32, in another order; piq's are the less exact, as 1 less a sum of 2950 terms.
    torch.testing.assert_close(metric(tests, reference), expected, rtol=0, atol=2e-5)
    assert bool((expected.diff() > 1e-3).all())


def test_properties(metric: nn.Module, picture: Picture, noisy: Picture) -> None:
    reference = picture(48, 40).float()
    tests = torch.cat([noisy(reference, strength) for strength in (0.02, 0.1, 0.3)])
    values = metric(tests, reference)
    assert metric(reference, reference).item() == 0
    assert values[0] > 0
    assert bool((values.diff() > 0).all()), values
    # Convolutions of other batch sizes round differently, by some 1e-7 in each of 13 layers.
    torch.testing.assert_close(metric(reference.expand_as(tests), tests), values, rtol=1e-4, atol=1e-6)
    for strength in (0.0, 0.1):
        test = noisy(reference, strength).requires_grad_()
        (gradient,) = torch.autograd.grad(metric(test, reference).sum(), test)
        assert bool(gradient.isfinite().all())


def test_large_images_are_seen_at_256(metric: nn.Module, picture: Picture) -> None:
    test, reference = picture(270, 300, seed=1).float(), picture(270, 300).float()
    seen = Viewing(short_side=256)
    assert torch.equal(metric(test, reference), metric(seen(test), seen(reference)))


def test_errors(metric: nn.Module, own_weights: Weights, picture: Picture, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="DISTS compares images of one shape"):
        metric(picture(40, 48).float(), picture(40, 40).float())
    with pytest.raises(WeightsError, match=r"alpha has shape \(1, 3, 1, 1\), expected \(1, 1475, 1, 1\)"):
        DISTS(own_weights["vgg16"], {"alpha": torch.ones(1, 3, 1, 1), "beta": torch.ones(1, 1475, 1, 1)})

    def fetch(*_: Any, **__: Any) -> dict[str, Tensor]:
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", fetch)
    with pytest.raises(WeightsError, match=r"alpha and beta of DISTS could not be fetched \(no route to host\)"):
        DISTS(own_weights["vgg16"])
