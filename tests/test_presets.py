"""Presets against the same put together by hand, and as metrics: saved, evaluated, refused."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import fmiqa
from fmiqa import SSIM, FeatureExtractor, InputError, SelectedFeatureIQM, presets
from fmiqa.datasets import read_image
from fmiqa.features.tracing import Stage
from fmiqa.measures import DeepSimSSIM

CHOSEN = ["conv2:17", "conv1:5", "conv3:100"]
MAKE: dict[str, tuple[Stage, Callable[[FeatureExtractor], SelectedFeatureIQM]]] = {
    "amirshahi2016": ("relu", presets.amirshahi2016),
    "amirshahi2018": ("conv", presets.amirshahi2018),
    "deepsim": ("relu", presets.deepsim),
    "deepsim, lowest": ("relu", lambda extractor: presets.deepsim(extractor, pool="lowest")),
    "paper": ("relu", lambda extractor: presets.paper(extractor, CHOSEN)),
}


def extractor_of(stage: Stage) -> FeatureExtractor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return FeatureExtractor("alexnet", weights=None, stage=stage)


@pytest.fixture(scope="module")
def metrics() -> dict[str, SelectedFeatureIQM]:
    return {name: make(extractor_of(stage)) for name, (stage, make) in MAKE.items()}


@pytest.fixture
def pair() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    reference = torch.rand(2, 3, 96, 100, generator=generator)
    return (reference + 0.1 * torch.randn(reference.shape, generator=generator)).clamp(0, 1), reference


def layers(stage: Stage, pair: tuple[Tensor, Tensor]) -> list[tuple[Tensor, Tensor]]:
    extractor = extractor_of(stage)
    x, y = (extractor(side) for side in pair)
    return [(x[layer], y[layer]) for layer in extractor.layers]


def close(found: Tensor, expected: object) -> None:
    # float32 features and scores, put together in another order.
    np.testing.assert_allclose(found.numpy(), np.asarray(expected), rtol=0, atol=5e-6)


def regions(maps: Tensor, count: int) -> list[np.ndarray]:
    """Shares of the maps (C, H, W) in each of count x count regions."""
    edges = [[(n * i // count, -(-n * (i + 1) // count)) for i in range(count)] for n in maps.shape[1:]]
    sums = [maps[:, a:b, c:d].double().sum((1, 2)).numpy() for a, b in edges[0] for c, d in edges[1]]
    return [s / s.sum() for s in sums]


def test_amirshahi2016_by_hand(metrics: dict[str, SelectedFeatureIQM], pair: tuple[Tensor, Tensor]) -> None:
    found = metrics["amirshahi2016"](*pair)
    for n in range(2):
        similarities = []
        for x, y in layers("relu", pair):
            levels = [zip(regions(x[n], k), regions(y[n], k), strict=True) for k in (1, 2, 4)]
            similarities.append(np.mean([np.mean([np.minimum(a, b).sum() for a, b in level]) for level in levels]))
        close(found[n], np.prod(similarities) ** (1 / 5))


def test_amirshahi2018_by_hand(metrics: dict[str, SelectedFeatureIQM], pair: tuple[Tensor, Tensor]) -> None:
    means = [SSIM(data_range=1.0)(x, y).double().mean(1) for x, y in layers("conv", pair)]
    close(metrics["amirshahi2018"](*pair), np.prod([m.numpy() for m in means], 0) ** (1 / 5))


@pytest.mark.parametrize("pool", ["mean", "lowest"])
def test_deepsim_by_hand(metrics: dict[str, SelectedFeatureIQM], pair: tuple[Tensor, Tensor], pool: str) -> None:
    metric = metrics["deepsim" if pool == "mean" else "deepsim, lowest"]
    means = [DeepSimSSIM(pool)(x, y).double().mean(1).numpy() for x, y in layers("relu", pair)]  # type: ignore[arg-type]
    close(metric(*pair), np.mean(means, 0))


def test_paper_by_hand(metrics: dict[str, SelectedFeatureIQM], pair: tuple[Tensor, Tensor]) -> None:
    maps = layers("relu", pair)
    chosen = [SSIM()(*maps[layer])[:, channel] for layer, channel in ((1, 17), (0, 5), (2, 100))]
    close(metrics["paper"](*pair), torch.stack(chosen).double().mean(0))


@pytest.mark.parametrize("name", MAKE)
def test_metrics_fall_with_damage_and_come_back_from_a_file(
    metrics: dict[str, SelectedFeatureIQM], pair: tuple[Tensor, Tensor], name: str, tmp_path: Path
) -> None:
    metric, reference = metrics[name], pair[1][:1]
    noise = torch.randn(1, 3, 96, 100, generator=torch.Generator().manual_seed(1))
    test = torch.cat([(reference + strength * noise).clamp(0, 1) for strength in (0.0, 0.02, 0.1, 0.4)])
    values = metric(test, metric.prepare(reference))
    # 1e-4: features of a batch of four and of one are rounded otherwise, seen through maps of 5x5.
    assert values[0].item() == pytest.approx(1, abs=1e-4)
    assert bool((values.diff() < 0).all())
    metric.save(tmp_path / "metric.safetensors")
    assert torch.equal(SelectedFeatureIQM.load(tmp_path / "metric.safetensors")(*pair), metric(*pair))


def test_presets_are_evaluated_beside_each_other(metrics: dict[str, SelectedFeatureIQM]) -> None:
    data = torch.utils.data.Subset(fmiqa.datasets.Demo(references=3, levels=2), range(18))
    table = fmiqa.evaluate(metrics, data, resamples=10)
    assert [a.name for a in table.agreements] == list(MAKE)
    assert all(np.isfinite(a.plcc.value) for a in table.agreements)


def test_the_other_stage_is_refused() -> None:
    for name, (stage, make) in MAKE.items():
        other: Stage = "conv" if stage == "relu" else "relu"
        with pytest.raises(InputError, match=rf"{name.partition(',')[0]} compares maps .*stage={stage!r}"):
            make(extractor_of(other))


def test_networks_of_ones_own_get_the_stage_they_need() -> None:
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Conv2d(4, 5, 3))
    assert presets.amirshahi2018(network).source["stage"] == "conv"
    assert presets.deepsim(network).source["stage"] == "relu"


def test_paper_takes_a_selection_made_as_it_says(pair: tuple[Tensor, Tensor]) -> None:
    extractor = extractor_of("relu")
    data = torch.utils.data.Subset(fmiqa.datasets.Demo(references=3, levels=2), range(18))
    maps = [f"conv1:{c}" for c in range(12)]
    selection = fmiqa.forward_select(fmiqa.score_matrix(extractor, data, maps=maps))
    expected = SelectedFeatureIQM(extractor, selection.maps)(*pair)
    assert torch.equal(presets.paper(extractor, selection)(*pair), expected)
    other = fmiqa.forward_select(fmiqa.score_matrix(extractor, data, maps=maps, measure="mse"))
    with pytest.raises(InputError, match=r"other choices \(measure {'name': 'mse'} there"):
        presets.paper(extractor, other)
    with pytest.warns(UserWarning, match="seed 1"):
        others = FeatureExtractor("alexnet", weights=None, seed=1)
    with pytest.raises(InputError, match="is not the one the maps were selected on"):
        presets.paper(others, selection)


def test_negative_layers_make_nan_and_take_more_than_damage(shared: Path) -> None:
    weights = shared / "weights/alexnet_features.pth"
    metric = presets.amirshahi2018(FeatureExtractor("alexnet", weights=weights, stage="conv"))
    reference = read_image(shared / "data/tid2013r/reference_images/I01.png")[None, :, 96:288, 128:384]
    noise = torch.randint(0, 256, reference.shape, generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    values = metric(torch.cat((255 - reference, reference.flip(-1), noise)), reference)
    assert bool(((values[:2] > 0) & (values[:2] < 0.8)).all())
    assert bool(values[2].isnan())
