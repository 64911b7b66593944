"""Full float32 inside, whatever the caller's settings; these are as they were afterwards."""

from __future__ import annotations

import pytest
import torch

from fmiqa import precision
from fmiqa.precision import strict_float32


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
