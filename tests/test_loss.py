"""A metric as a loss."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fmiqa
from fmiqa import AllFeatureIQM, FeatureExtractor, InputError, QualityLoss, SelectedFeatureIQM, fit_logistic
from fmiqa.measures import Custom


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 5, 2), nn.ReLU(), nn.Conv2d(4, 6, 3), nn.ReLU())


def metric(measure: Any = "ssim", **options: Any) -> SelectedFeatureIQM:
    return SelectedFeatureIQM(FeatureExtractor(network()), ["0:1", "2:3"], measure=measure, **options)


def images() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    reference = torch.rand(3, 3, 48, 56, generator=generator)
    return (reference + 0.1 * torch.randn(reference.shape, generator=generator)).clamp(0, 1), reference


@pytest.mark.parametrize(
    "make",
    [metric, lambda: AllFeatureIQM(FeatureExtractor(network())), fmiqa.load_metric],
    ids=["maps", "all", "ready"],
)
def test_it_is_one_less_the_quality(make: Any) -> None:
    iqm, (test, reference) = make(), images()
    expected = 1 - iqm(test, reference)
    assert torch.equal(iqm.as_loss("none")(test, reference), expected)
    assert torch.equal(iqm.as_loss("mean")(test, reference), expected.mean())
    assert torch.equal(iqm.as_loss("sum")(test, reference), expected.sum())
    prepared = iqm.prepare(reference)
    torch.testing.assert_close(iqm.as_loss()(test, prepared), expected.mean())


def test_measures_with_another_best_value_lose_nothing_at_equal_images() -> None:
    _, reference = images()
    assert float(metric("mse").as_loss()(reference, reference)) == 0
    assert float(metric("psnr").as_loss()(reference, reference)) == pytest.approx(0, abs=1e-6)
    both = SelectedFeatureIQM(
        {"a": FeatureExtractor(network()), "b": FeatureExtractor(network())},
        ["a/0:1", "b/2:3"],
        measure={"a": "ssim", "b": "mse"},
        weights=torch.tensor([1.0, 2.0]),
    )
    assert float(both.as_loss()(reference, reference)) == pytest.approx(0, abs=1e-6)
    assert float(metric("ssim", power=2.0).as_loss()(reference, reference)) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("make", [metric, fmiqa.load_metric], ids=["maps", "ready"])
def test_only_images_receive_gradients(make: Any) -> None:
    loss, (test, reference) = make().as_loss(), images()
    for other in (reference, test):  # also finite at equal images
        sides = [test.clone().requires_grad_(), other.clone().requires_grad_()]
        loss(*sides).backward()
        for side in sides:
            assert side.grad is not None
            assert bool(side.grad.isfinite().all())
    model = nn.ModuleDict({"loss": loss, "own": nn.Linear(2, 2)}).train()
    assert [name for name, p in model.named_parameters() if p.requires_grad] == ["own.weight", "own.bias"]
    assert all(p.grad is None for p in loss.parameters())
    assert not any(module.training for module in loss.modules() if isinstance(module, FeatureExtractor))


def test_a_step_against_the_gradient_lessens_it() -> None:
    loss, (test, reference) = metric().as_loss(), images()
    leaf = test.clone().requires_grad_()
    before = loss(leaf, reference)
    (slope,) = torch.autograd.grad(before, leaf)
    with torch.no_grad():
        assert loss(test - 0.01 * slope / slope.norm(), reference) < before


def test_what_has_no_best_value_is_refused() -> None:
    fit = fit_logistic(torch.linspace(0, 1, 20), torch.linspace(0, 1, 20) ** 2)
    with pytest.raises(InputError, match=r"scale of subjective scores.*without fit="):
        metric(fit=fit).as_loss()
    unbounded = Custom(lambda x, y: -(x - y).square().sum((-2, -1)), higher_is_better=True, label="likelihood")
    with pytest.raises(InputError, match=r"Custom.* has no best value; minimize -iqm"):
        metric(unbounded).as_loss()
    with pytest.raises(InputError, match="reduction must be one of mean, sum, none, got 'average'"):
        metric().as_loss("average")  # type: ignore[arg-type]
    assert isinstance(metric().as_loss(), QualityLoss)
