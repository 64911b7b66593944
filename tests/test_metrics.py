"""The metrics: one number an image, differentiable, portable in one file."""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from fmiqa import (
    SSIM,
    AllFeatureIQM,
    FeatureExtractor,
    FileFormatError,
    InputError,
    SelectedFeatureIQM,
    Selection,
    fit_logistic,
    pool_scores,
    score_matrix,
)
from fmiqa._io import save_tensors
from fmiqa.datasets import Sample, read_image
from fmiqa.measures import Custom

CHOSEN = ["conv2:17", "conv1:5", "conv3:100", "conv1:0"]

# Kernels for other batches, processors and devices add up in another order: maps of the first layers in float32 differ
# by some 1e-6 of their range L, and SSIM, whose least denominator is (.01 L)^2, by up to 100 times as much.
CLOSE = {"rtol": 0, "atol": 1e-4}


@pytest.fixture(scope="module")
def extractor() -> FeatureExtractor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return FeatureExtractor("alexnet", weights=None)


@pytest.fixture(scope="module")
def iqm(extractor: FeatureExtractor) -> SelectedFeatureIQM:
    return SelectedFeatureIQM(extractor, CHOSEN)


def make_pair(count: int = 3, height: int = 96, width: int = 100, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    reference = torch.randint(0, 256, (count, 3, height, width), generator=generator)
    test = (reference + 20 * torch.randn(reference.shape, generator=generator)).clamp(0, 255)
    return test.to(torch.uint8), reference.to(torch.uint8)


@pytest.mark.parametrize("pool", ["mean", "layer_geometric"])
def test_metrics_are_pooled_score_matrix_columns(shared: Path, device: torch.device, pool: Any) -> None:
    extractor = FeatureExtractor("alexnet", weights=shared / "weights/alexnet_features.pth").to(device)
    part = (slice(None), slice(96, 288), slice(128, 384))
    samples = []
    for number, strength in (("01", "040"), ("21", "070")):
        reference = read_image(shared / f"data/tid2013r/reference_images/I{number}.png")[part]
        test = read_image(shared / f"data/jpegtid/distorted_images/i{number}_jpeg_{strength}.jpg")[part]
        samples.append(Sample(reference, test, 0.0, number, number))
    scores = score_matrix(extractor, samples)
    test, reference = (
        torch.stack(side).to(device) for side in zip(*((s.distorted, s.reference) for s in samples), strict=True)
    )
    for metric, maps in (
        (SelectedFeatureIQM(extractor, CHOSEN, pool=pool), CHOSEN),
        (AllFeatureIQM(extractor, pool=pool), None),
    ):
        expected = scores.pool(maps, pool=pool).float()
        # Batches of one and of two, means in float64 and in float32.
        torch.testing.assert_close(metric(test, reference).cpu(), expected, **CLOSE)


def test_extractors_are_named_by_source(extractor: FeatureExtractor) -> None:
    iqm = SelectedFeatureIQM({"far": extractor, "near": extractor, "idle": extractor}, ["near/conv2:5", "far/conv1:3"])
    assert {source: own.layers[-1] for source, own in iqm.extractors.items()} == {"far": "conv1", "near": "conv2"}
    assert all(own.weights_sha256 == extractor.weights_sha256 for own in iqm.extractors.values())


def test_identity_is_one(iqm: SelectedFeatureIQM, extractor: FeatureExtractor, device: torch.device) -> None:
    _, reference = (side.to(device) for side in make_pair())
    for metric in (iqm, AllFeatureIQM(extractor)):
        score = copy.deepcopy(metric).to(device)(reference, reference)
        torch.testing.assert_close(score, torch.ones_like(score), rtol=0, atol=1e-6)


def test_more_noise_is_worse(iqm: SelectedFeatureIQM) -> None:
    _, reference = make_pair(1)
    noise = torch.randn(1, 3, 96, 100, generator=torch.Generator().manual_seed(3))
    test = torch.cat([(reference / 255 + strength * noise).clamp(0, 1) for strength in (0.01, 0.05, 0.2)])
    scores = iqm(test, reference / 255)
    assert (scores.diff() < 0).all()
    assert scores.max() < 1
    assert iqm.higher_is_better


@given(seed=st.integers(0, 2**31), count=st.integers(1, 4), height=st.integers(70, 110), width=st.integers(70, 110))
def test_scores_depend_on_the_pair_alone(
    iqm: SelectedFeatureIQM, seed: int, count: int, height: int, width: int
) -> None:
    test, reference = make_pair(count, height, width, seed)
    scores = iqm(test, reference)
    assert scores.shape == (count,)
    assert scores.dtype == torch.float32
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(iqm(test[order], reference[order]), scores[order], **CLOSE)
    torch.testing.assert_close(iqm(test[:1], reference[:1]), scores[:1], **CLOSE)
    torch.testing.assert_close(iqm(test, reference[:1])[:1], scores[:1], **CLOSE)
    torch.testing.assert_close(iqm(test, iqm.prepare(reference)), scores, **CLOSE)
    torch.testing.assert_close(iqm(test.float() / 255, reference), scores, **CLOSE)
    torch.testing.assert_close(iqm(test.double() / 255, reference.double() / 255), scores, **CLOSE)
    turned = test.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    torch.testing.assert_close(iqm(turned, reference.mT.contiguous().mT), scores, **CLOSE)
    torch.testing.assert_close(iqm(reference, reference), torch.ones(count), rtol=0, atol=1e-6)


def test_autocast_outside_changes_nothing(iqm: SelectedFeatureIQM, device: torch.device) -> None:
    metric = copy.deepcopy(iqm).to(device)
    test, reference = (side.to(device) for side in make_pair())
    plain = metric(test, reference)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        assert torch.equal(metric(test, reference), plain)
        assert torch.equal(metric(test, metric.prepare(reference)), plain)


def test_the_network_is_cut_after_the_deepest_map(iqm: SelectedFeatureIQM, extractor: FeatureExtractor) -> None:
    assert iqm.scorers[0].extractor.layers == ["conv1", "conv2", "conv3"]
    assert sum(isinstance(m, nn.Conv2d) for m in iqm.modules()) == 3
    assert len(extractor.layers) == 5
    assert not any(p.requires_grad for p in iqm.parameters())


# Gradients


@pytest.mark.parametrize("data_range", [1.0, "pair"])
def test_gradcheck(data_range: Any) -> None:
    torch.manual_seed(0)
    # Smooth, so that finite differences cross no ReLU.
    net = nn.Sequential(nn.Conv2d(3, 3, 3), nn.SiLU(), nn.Conv2d(3, 2, 3)).double()
    metric = SelectedFeatureIQM(
        FeatureExtractor(net, stage="conv"), ["0:1", "2:0"], measure=SSIM(data_range=data_range)
    )
    test, reference = (torch.rand(1, 3, 8, 8, dtype=torch.float64) for _ in range(2))
    assert torch.autograd.gradcheck(metric, (test.requires_grad_(), reference.requires_grad_()))


def test_gradients_against_finite_differences(iqm: SelectedFeatureIQM) -> None:
    metric = copy.deepcopy(iqm).double()
    test, reference = (side.double() / 255 for side in make_pair(1, 70, 74))
    test.requires_grad_()
    metric(test, reference).sum().backward()
    assert test.grad is not None
    direction = torch.randn(test.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    step = 1e-7 * direction
    with torch.no_grad():
        slope = (metric(test + step, reference) - metric(test - step, reference)).item() / 2e-7
    assert (test.grad * direction).sum().item() == pytest.approx(slope, rel=1e-4)


def grey(value: float) -> Tensor:
    return torch.full((1, 3, 80, 80), value)


CASES: list[Callable[[], tuple[Tensor, Tensor]]] = [
    lambda: (grey(0.5), grey(0.5)),
    lambda: (grey(0.0), grey(1.0)),
    lambda: (make_pair(1)[1] / 255, make_pair(1)[1] / 255),
    lambda: (make_pair(1)[0] / 255, make_pair(1)[1] / 255),
    lambda: (grey(0.4), make_pair(1, 80, 80)[1] / 255),
]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("data_range", [1.0, "reference", "pair", "layer"])
def test_gradients_are_finite(
    extractor: FeatureExtractor, case: Callable[[], tuple[Tensor, Tensor]], data_range: Any, device: torch.device
) -> None:
    metric = SelectedFeatureIQM(extractor, ["conv1:5", "conv2:17", "conv5:3"], measure=SSIM(data_range=data_range))
    metric = metric.to(device)
    test, reference = (side.to(device) for side in case())
    test.requires_grad_()
    score = metric(test, reference)
    score.sum().backward()
    assert test.grad is not None
    assert torch.isfinite(test.grad).all()
    if score.item() < 0.99:
        assert test.grad.abs().sum() > 0


def test_a_metric_can_be_a_loss(iqm: SelectedFeatureIQM) -> None:
    test, reference = (side / 255 for side in make_pair(1, 70, 70))
    test = test.clone().requires_grad_()
    model = nn.ModuleList([copy.deepcopy(iqm)]).train()
    optimizer = torch.optim.Adam([test], 0.005)
    scores = []
    for _ in range(5):
        optimizer.zero_grad()
        score = model[0](test, reference).mean()
        (1 - score).backward()
        optimizer.step()
        scores.append(score.item())
    assert scores[-1] > scores[0]


# Files


class Own(nn.Module):
    """A network of a user's own: residual, normalised, with a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.module = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.norm.running_mean = torch.randn(4)
        self.block = nn.Conv2d(4, 4, 3, padding=1)
        self.register_buffer("gain", torch.tensor([0.7]), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.module(x)) * self.gain)
        y: Tensor = x + self.block(x)
        return y


def torchvision_vgg() -> nn.Module:
    torch.manual_seed(0)
    net = torchvision.models.vgg11(weights=None)
    net.classifier = nn.Identity()
    return net


METRICS: dict[str, tuple[Callable[[FeatureExtractor], SelectedFeatureIQM], Callable[[], nn.Module] | None]] = {
    "named": (lambda e: SelectedFeatureIQM(e, CHOSEN), None),
    "options": (
        lambda e: SelectedFeatureIQM(e, CHOSEN, measure=SSIM(data_range="layer", window=7), pool="layer_geometric"),
        None,
    ),
    "double": (lambda e: SelectedFeatureIQM(copy.deepcopy(e).double(), CHOSEN), None),
    "all": (lambda e: AllFeatureIQM(e.keep(["conv1", "conv2"])), None),
    "torchvision": (lambda e: SelectedFeatureIQM(torchvision_vgg(), ["conv2_1:3", "conv1_1:0"]), None),
    "own": (lambda e: SelectedFeatureIQM(Own(), ["block:1", "module:0"]), Own),
    "own, all": (lambda e: AllFeatureIQM(FeatureExtractor(Own(), stage="conv")), Own),
}


@pytest.mark.parametrize("kind", METRICS)
def test_one_file_suffices(
    extractor: FeatureExtractor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    make, model = METRICS[kind]
    metric = make(extractor)
    metric.save(tmp_path / "metric.safetensors")
    # Elsewhere there are no weights, and no net to fetch them from.
    monkeypatch.setattr("fmiqa.features.checkpoints.download", None)
    if model is not None:
        with pytest.raises(FileFormatError, match=r"network of your own \(Own\).*load\(path, model=...\)"):
            SelectedFeatureIQM.load(tmp_path / "metric.safetensors")
    again = SelectedFeatureIQM.load(tmp_path / "metric.safetensors", model=model() if model else None)
    assert type(again) is type(metric)
    assert again.maps == metric.maps
    assert again.pool == metric.pool
    assert again.scorers[0].measure == metric.scorers[0].measure
    assert again.scorers[0].extractor.stage == metric.scorers[0].extractor.stage
    assert again.scorers[0].extractor.weights_sha256 == metric.scorers[0].extractor.weights_sha256
    test, reference = make_pair()
    assert torch.equal(again(test, reference), metric(test, reference))
    again.save(tmp_path / "again.safetensors")
    third = SelectedFeatureIQM.load(tmp_path / "again.safetensors", model=model() if model else None)
    assert torch.equal(third(test, reference), metric(test, reference))
    for clone in (copy.deepcopy(metric), pickle.loads(pickle.dumps(metric))):
        assert torch.equal(clone(test, reference), metric(test, reference))


def test_a_fit_puts_scores_on_the_subjective_scale(
    extractor: FeatureExtractor, iqm: SelectedFeatureIQM, tmp_path: Path, device: torch.device
) -> None:
    x = torch.linspace(0, 1, 40, dtype=torch.float64)
    fit = fit_logistic(x, 1 + 8 * torch.sigmoid(6 * (x - 0.4)))
    metric = SelectedFeatureIQM(extractor, CHOSEN, fit=fit)
    test, reference = make_pair()
    torch.testing.assert_close(metric(test, reference), fit.predict(iqm(test, reference)), rtol=0, atol=1e-6)
    metric.save(tmp_path / "metric")
    again = SelectedFeatureIQM.load(tmp_path / "metric")
    assert torch.equal(again(test, reference), metric(test, reference))
    there = again.to(device)(test.to(device), reference.to(device))
    # The score's tolerance times the slope of the curve, which is 8 * 6 / 4 at most.
    torch.testing.assert_close(there.cpu(), metric(test, reference), rtol=0, atol=12 * CLOSE["atol"])
    gradient = (test / 255).to(device).requires_grad_()
    again(gradient, reference.to(device)).sum().backward()
    assert gradient.grad is not None
    assert gradient.grad.abs().sum() > 0


def test_a_modified_network_is_not_taken_for_the_plain_one(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = torchvision.models.alexnet()
    net.features[2] = nn.AvgPool2d(3, 2)
    metric = SelectedFeatureIQM(net, ["conv2:1"])
    metric.save(tmp_path / "metric")
    with pytest.raises(FileFormatError, match="network of your own"):
        SelectedFeatureIQM.load(tmp_path / "metric")
    again = SelectedFeatureIQM.load(tmp_path / "metric", model=net)
    test, reference = make_pair()
    assert torch.equal(again(test, reference), metric(test, reference))


def test_files_that_are_no_metric_are_refused(iqm: SelectedFeatureIQM, tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match="no file"):
        SelectedFeatureIQM.load(tmp_path / "absent")
    save_tensors(tmp_path / "x", "fmiqa metric 1", {"x": torch.zeros(1)}, {"network": "alexnet"})
    with pytest.raises(FileFormatError, match="not a whole saved metric"):
        SelectedFeatureIQM.load(tmp_path / "x")
    save_tensors(tmp_path / "x", "fmiqa score matrix 1", {"x": torch.zeros(1)}, {})
    with pytest.raises(FileFormatError, match="holds fmiqa score matrix 1"):
        SelectedFeatureIQM.load(tmp_path / "x")


# What is refused


def test_wrong_arguments_are_refused(extractor: FeatureExtractor, iqm: SelectedFeatureIQM) -> None:
    with pytest.raises(InputError, match="conv9:1"):
        SelectedFeatureIQM(extractor, ["conv9:1"])
    with pytest.raises(InputError, match="no feature maps"):
        SelectedFeatureIQM(extractor, [])
    with pytest.raises(InputError, match="pool must be one of"):
        SelectedFeatureIQM(extractor, CHOSEN, pool="median")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no measure"):
        SelectedFeatureIQM(extractor, CHOSEN, measure="lpips")
    several = fit_logistic(torch.rand(2, 20), torch.rand(2, 20))
    with pytest.raises(InputError, match=r"one problem, got one of \(2,\)"):
        SelectedFeatureIQM(extractor, CHOSEN, fit=several)


def test_sizes_that_differ_are_refused(iqm: SelectedFeatureIQM) -> None:
    test, reference = make_pair()
    with pytest.raises(InputError, match=r"\(3, 3, 96, 100\).*\(3, 3, 96, 99\).*never resizes or crops"):
        iqm(test, reference[..., :99])
    with pytest.raises(InputError, match="must have one size"):
        iqm(test, iqm.prepare(reference[..., :99]))
    with pytest.raises(InputError, match="must have one size"):
        iqm(test, reference[:2])


def test_pooled_scores_are_the_scorers(iqm: SelectedFeatureIQM) -> None:
    test, reference = make_pair()
    expected = pool_scores(iqm.map_scores(test, reference), iqm.maps)
    assert torch.equal(iqm(test, reference), expected)
    assert "4 maps, SSIM(" in repr(iqm)


def largest_difference(test: Tensor, reference: Tensor) -> Tensor:
    return (test - reference).abs().amax((-2, -1))


def test_a_metric_of_your_own_measure_comes_back_with_it(extractor: FeatureExtractor, tmp_path: Path) -> None:
    own = Custom(largest_difference, higher_is_better=False, value_range=(0.0, float("inf")))
    iqm = SelectedFeatureIQM(extractor, CHOSEN, measure=own)
    test, reference = make_pair()
    x, y = (extractor(side, [str(CHOSEN[0])]) for side in (test, reference))
    (layer,) = x
    found, expected = iqm.map_scores(test, reference)[:, 0], -largest_difference(x[layer], y[layer])[:, 0]
    # All filters of a layer and some of them may take other kernels: some 1e-6 of the largest value.
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * float(y[layer].abs().max()))
    iqm.save(tmp_path / "own.safetensors")
    with pytest.raises(InputError, match=r"function .*largest_difference, which no saved result holds: pass measure="):
        SelectedFeatureIQM.load(tmp_path / "own.safetensors")
    other = Custom(largest_difference, higher_is_better=True)
    with pytest.raises(InputError, match="maps were compared under"):
        SelectedFeatureIQM.load(tmp_path / "own.safetensors", measure=other)
    again = SelectedFeatureIQM.load(tmp_path / "own.safetensors", measure=own)
    assert torch.equal(again(test, reference), iqm(test, reference))
    selection = Selection(again.maps, (), 0.5, source=iqm.source)
    assert torch.equal(
        SelectedFeatureIQM.from_selection(extractor, selection, measure=own)(test, reference), iqm(test, reference)
    )


def test_no_geometric_mean_of_negative_scores(extractor: FeatureExtractor) -> None:
    with pytest.raises(InputError, match=r"layer_geometric.*MSE\(\).*take pool='mean'"):
        AllFeatureIQM(extractor, measure="mse", pool="layer_geometric")
