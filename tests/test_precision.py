"""Full float32 inside, whatever the caller's settings; these are as they were afterwards."""

from __future__ import annotations

import pytest
import torch

from fmiqa import FeatureExtractor, InputError, SelectedFeatureIQM, precision
from fmiqa.comparison import MapScorer
from fmiqa.networks import blank_network
from fmiqa.precision import strict_float32
from fmiqa.weights import seeded_state


def test_autocast_is_off_inside(device: torch.device) -> None:
    a = torch.ones(4, 4, device=device)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        assert (a @ a).dtype == torch.bfloat16
        with strict_float32(device):
            assert (a @ a).dtype == torch.float32
        assert (a @ a).dtype == torch.bfloat16


def settings() -> list[object]:
    return [getattr(owner, name) for owner, name, _ in precision._SWITCHES]


def test_settings_come_back_after_an_error() -> None:
    wanted = [value for _, _, value in precision._SWITCHES]
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        outside = settings()
        assert outside != wanted
        inside: list[object] = []

        def fail() -> None:
            with strict_float32("cpu"):
                inside.extend(settings())
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            fail()
        assert inside == wanted
        assert settings() == outside
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.gpu
def test_tf32_is_off_inside() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device here")
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(256, 256, generator=generator)
    exact = a.double() @ a.double()
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        with strict_float32("cuda"):
            product = (a.cuda() @ a.cuda()).cpu()
    finally:
        torch.set_float32_matmul_precision(before)
    # float32 sums of 256 products of size 1 round at about 1e-5; TF32 is off by 1e-2.
    assert (product.double() - exact).abs().max() < 2e-4


def test_reduced_precision_is_near_recorded_and_refused_by_others() -> None:
    state = seeded_state(blank_network("alexnet"), seed=0)
    layers = ["conv1", "conv2"]
    full = FeatureExtractor("alexnet", weights=state, layers=layers)
    coarse = FeatureExtractor("alexnet", weights=state, layers=layers, precision="bfloat16")
    images = torch.rand(1, 3, 96, 112, generator=torch.Generator().manual_seed(0))
    for layer, maps in coarse(images).items():
        reference = full(images)[layer]
        assert maps.dtype == torch.float32
        error = float((maps - reference).norm() / reference.norm())
        assert 1e-4 < error < 2e-2  # 8 bits of mantissa, and sums of hundreds of products
    scorer = MapScorer(coarse)
    assert scorer.options()["precision"] == "bfloat16"
    metric = SelectedFeatureIQM(coarse, ["conv1:3"])
    assert metric.source["precision"] == "bfloat16"
    with pytest.raises(InputError, match="precision is one of float32, tf32, bfloat16, got 'half'"):
        FeatureExtractor("alexnet", weights=state, precision="half")  # type: ignore[arg-type]
