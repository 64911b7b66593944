"""Classical metrics on maps: the values of piq itself, on images and on maps one by one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from fmiqa.measures import Piq

piq = pytest.importorskip("piq")

FUNCTIONS: dict[str, Any] = {
    "VIF": piq.vif_p,
    "FSIM": lambda x, y, **options: piq.fsim(x, y, chromatic=False, **options),
    "IW-SSIM": piq.information_weighted_ssim,
    "HaarPSI": piq.haarpsi,
    "GMSD": piq.gmsd,
    "DSS": piq.dss,
    "SR-SIM": piq.srsim,
}


def images(side: int, channels: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    small = torch.rand(2, channels, side // 6, side // 6, generator=generator)
    reference = F.interpolate(small, (side, side + 3), mode="bicubic").clamp(0, 1)
    return (reference + 0.1 * torch.randn(reference.shape, generator=generator)).clamp(0, 1), reference


@pytest.mark.parametrize("metric", FUNCTIONS)
def test_images_have_the_value_of_piq(metric: str, device: torch.device) -> None:
    test, reference = (side.double().to(device) for side in images(max(48, Piq(metric).smallest), 1))
    pairs = zip(test.split(1), reference.split(1), strict=True)  # piq lets images of a batch disturb each other
    expected = torch.cat([FUNCTIONS[metric](x, y, data_range=1.0, reduction="none").flatten() for x, y in pairs])
    values = Piq(metric, data_range=1.0)(test, reference)
    torch.testing.assert_close(values[:, 0], expected, rtol=0, atol=1e-9)  # float64, in other batches


@pytest.mark.parametrize("metric", FUNCTIONS)
def test_maps_are_scaled_and_taken_one_by_one(metric: str) -> None:
    test, reference = (side.double() for side in images(max(48, Piq(metric).smallest), 2))
    test, reference = 7 * test - 1, 6 * reference
    reference[:, 1] -= 2
    values = Piq(metric)(test, reference)
    for n in range(2):
        for c, signed in enumerate((False, True)):
            x, y = test[n, c], reference[n, c]
            limit = y.abs().max()
            x, y = x / limit, y / limit
            if signed:
                x, y = (x + 1) / 2, (y + 1) / 2
            x, y = (side.clamp(0, 1)[None, None] for side in (x, y))
            expected = float(FUNCTIONS[metric](x, y, data_range=1.0, reduction="none"))
            assert values[n, c].item() == pytest.approx(expected, abs=1e-9)  # float64, in other batches


def test_maps_that_break_iw_ssim_spoil_no_others() -> None:
    test, reference = images(161, 2)
    empty = torch.zeros_like(reference[:, :1])
    values = Piq("IW-SSIM")(torch.cat((test, empty + 1e-3 * test[:, :1]), 1), torch.cat((reference, empty), 1))
    torch.testing.assert_close(values[:, :2], Piq("IW-SSIM")(test, reference), rtol=0, atol=1e-6)
    assert torch.equal(values[:, 2], torch.zeros(2))


def test_names_in_any_case() -> None:
    assert Piq("haarpsi") == Piq("HaarPSI")
    assert Piq("gmsd").higher_is_better is False
