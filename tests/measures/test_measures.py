"""What every measure promises: direction, range, identity, dead maps, one reference for many, errors, saving."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from piq_measures import piq_measures
from torch import Tensor
from torch.nn import functional as F

from fmiqa import InputError
from fmiqa.measures import (
    GMS,
    GMSD,
    MEASURES,
    MSSSIM,
    MSVD,
    PSNR,
    SSIM,
    Custom,
    DeepSimSSIM,
    HistogramIntersection,
    Piq,
    get_measure,
)
from fmiqa.measures import base as module

# All that have a name, but those that take images of their own kind: what is added is held to the same promises.
OWN: list[Any] = [
    *(kind() for name, kind in MEASURES.items() if name not in ("m-svd", "pyramid", "piq")),
    SSIM(data_range="pair"),
    MSSSIM(data_range="pair"),
    PSNR(data_range="layer"),
    GMS(data_range="reference"),
    GMSD(data_range="pair"),
    MSVD(4),
    DeepSimSSIM("lowest"),
    HistogramIntersection(data_range="pair", bins=16),
    HistogramIntersection(data_range=4.0),
]
CLASSICAL = piq_measures("VIF", "FSIM", "IW-SSIM", "HaarPSI", "GMSD", "DSS", "SR-SIM")
ALL = [*OWN, MSVD(), *CLASSICAL]


def best(measure: Any) -> float:
    """The value of equal maps."""
    low, high = measure.value_range
    return (
        min(high, 1.0)
        if measure.name == "piq" and measure.higher_is_better
        else high
        if measure.higher_is_better
        else low
    )


def side_of(measure: Any) -> int:
    """A map's side that every measure has room on, and IW-SSIM no more than it needs."""
    return max(48, getattr(measure, "smallest", 1))


def textured(side: int, channels: int = 2, seed: int = 0) -> Tensor:
    """(1, C, side, side + 4) maps with structure at several scales, from 0 on as after a ReLU."""
    generator = torch.Generator().manual_seed(seed)
    maps = torch.zeros(1, channels, side, side + 4)
    for cells in (3, 8, 24):
        noise = torch.randn(1, channels, cells, cells, generator=generator)
        maps += F.interpolate(noise, maps.shape[-2:], mode="bilinear")
    return maps.relu()


def noisy(maps: Tensor, strength: float) -> Tensor:
    return maps + strength * torch.randn(maps.shape, generator=torch.Generator().manual_seed(1)).to(maps)


def blurred(maps: Tensor, sigma: float) -> Tensor:
    half = 9
    taps = torch.exp(-(torch.arange(-half, half + 1.0, device=maps.device) ** 2) / (2 * sigma**2))
    kernel = (taps / taps.sum()).expand(maps.shape[1], 1, 1, -1)
    padded = F.pad(maps, (half, half, half, half), mode="replicate")
    rows = F.conv2d(padded, kernel, groups=maps.shape[1])
    return F.conv2d(rows, kernel.transpose(-1, -2), groups=maps.shape[1])


@pytest.mark.parametrize(
    ("distort", "strengths"), [(noisy, (0.0, 0.03, 0.15, 0.6)), (blurred, (1e-3, 0.7, 1.5, 4.0))], ids=["noise", "blur"]
)
@pytest.mark.parametrize("measure", ALL, ids=str)
def test_more_distortion_is_worse(
    measure: Any, distort: Callable[[Tensor, float], Tensor], strengths: tuple[float, ...], device: torch.device
) -> None:
    # Lifted, or a histogram's lowest bin would take in the noise of all dead places.
    reference = 1 + textured(side_of(measure)).to(device)
    prepared = measure.prepare(reference)
    values = torch.cat([measure.compare(distort(reference, strength), prepared) for strength in strengths])
    steps = values.diff(dim=0) * (1 if measure.higher_is_better else -1)
    assert bool((steps < 0).all()), values


@pytest.mark.parametrize("measure", ALL, ids=str)
def test_equal_maps_have_the_best_value(measure: Any, device: torch.device) -> None:
    maps = 100 * textured(side_of(measure)).to(device)
    maps = torch.cat((maps, -maps, 0 * maps, 0 * maps + 7), 1)
    values = measure(maps, maps.clone())
    assert torch.equal(values, torch.full_like(values, best(measure)))


@pytest.mark.parametrize("measure", [*OWN, MSVD()], ids=str)
def test_equal_maps_have_the_best_value_at_any_size(measure: Any, device: torch.device) -> None:
    # CUDA multiplies a sum of n by 1 / n, and 41 x (1 / 41) is less than 1 in float32, as with 47, 55, 61, ...
    for height, width in ((44, 44), (51, 57), (57, 71), (65, 51), (71, 93)):
        maps = textured(max(height, width))[..., :height, :width].contiguous().to(device)
        values = measure(maps, maps.clone())
        assert torch.equal(values, torch.full_like(values, best(measure))), (height, width)


@pytest.mark.parametrize("measure", ALL, ids=str)
def test_dead_and_constant_maps_have_a_value(measure: Any, device: torch.device) -> None:
    maps = textured(side_of(measure), 1).to(device)
    point = torch.zeros_like(maps)
    point[..., 20, 20] = 1e-3  # all but dead
    kinds = [0 * maps, 0 * maps + 3, 0 * maps - 3, maps, maps - 1, point, 1e-30 * maps, 1e6 * maps]
    test = torch.cat([a for a in kinds for _ in kinds], 1)
    reference = torch.cat([b for _ in kinds for b in kinds], 1)
    values = measure(test, reference)
    low, high = measure.value_range
    assert bool(values.isfinite().all())
    # 1e-5: of the maps at 1e6 the moments' rounding, relative to their square.
    assert bool((values >= low - 1e-5).all()), values.min()
    assert bool((values <= high + 1e-5).all()), values.max()


@pytest.mark.parametrize("measure", OWN, ids=str)
@given(
    seed=st.integers(0, 2**31),
    scale=st.floats(1e-3, 1e3),
    offset=st.floats(-100, 100),
    height=st.integers(11, 24),
    width=st.integers(11, 24),
)
@settings(max_examples=15)
def test_values_stay_in_range(measure: Any, seed: int, scale: float, offset: float, height: int, width: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    test, reference = (scale * torch.randn(1, 3, height, width, generator=generator) + offset for _ in range(2))
    test[:, 2] = -reference[:, 2]
    values, (low, high) = measure(test, reference), measure.value_range
    assert bool((values >= low - 1e-6).all()), values  # float32's rounding
    assert bool((values <= high + 1e-6).all()), values


@pytest.mark.parametrize("measure", [m for m in CLASSICAL if getattr(m, "smallest", 1) < 100], ids=str)
@given(seed=st.integers(0, 2**31), scale=st.floats(1e-3, 1e3), offset=st.floats(-2, 2))
@settings(max_examples=5)
def test_classical_values_stay_in_range(measure: Piq, seed: int, scale: float, offset: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    test, reference = (scale * (torch.randn(1, 2, 41, 42, generator=generator) + offset) for _ in range(2))
    values, (low, high) = measure(test, reference), measure.value_range
    assert bool(((values >= low) & (values <= high)).all()), values


@pytest.mark.parametrize("measure", ALL, ids=str)
def test_one_reference_serves_many_test_maps(measure: Any, device: torch.device) -> None:
    reference = textured(side_of(measure)).to(device)
    test = torch.cat([noisy(reference, strength) for strength in (0.1, 0.2)])
    together = measure.compare(test, measure.prepare(reference))
    each = measure(test, reference.expand_as(test))
    torch.testing.assert_close(together, each, rtol=1e-5, atol=1e-6)  # other pieces, other sums


@pytest.mark.parametrize("measure", ALL, ids=str)
def test_pieces_change_nothing(measure: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    reference = textured(side_of(measure), 5)
    test = noisy(reference, 0.2)
    whole = measure(test, reference)
    monkeypatch.setattr(module, "_PIECE", {"cpu": 2 * reference[0, 0].numel() * getattr(measure, "_held", 1)})
    torch.testing.assert_close(measure(test, reference), whole, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("measure", ALL, ids=str)
def test_maps_of_another_form_are_refused(measure: Any) -> None:
    good = torch.rand(2, 3, side_of(measure), side_of(measure))
    for bad in (good[0], good.to(torch.uint8)):
        with pytest.raises(InputError, match="float maps"):
            measure(bad, bad)
    for other in (good[:, :2], torch.rand(3, 3, *good.shape[2:])):
        with pytest.raises(InputError, match="maps of one shape"):
            measure(good, other)


@pytest.mark.parametrize("measure", [m for m in ALL if getattr(m, "smallest", 1) > 1], ids=str)
def test_small_maps_are_refused(measure: Any) -> None:
    side = measure.smallest
    small, enough = torch.rand(1, 1, side - 1, side + 5), torch.rand(1, 1, side, side)
    with pytest.raises(InputError, match=f"maps of {side + 5}x{side - 1} are too small.*at least {side}"):
        measure(small, small)
    assert bool(measure(enough.flip(-1), enough).isfinite().all())


@pytest.mark.parametrize("measure", [m for m in OWN if not isinstance(m, HistogramIntersection)], ids=str)
def test_gradients(measure: Any) -> None:
    if isinstance(measure, SSIM | MSSSIM):
        measure = type(measure)(data_range=measure.data_range, window=3)
    if isinstance(measure, MSVD):
        measure = MSVD(3)
    generator = torch.Generator().manual_seed(3)
    test, reference = (torch.rand(1, 2, 6, 7, dtype=torch.float64, generator=generator) for _ in range(2))
    assert torch.autograd.gradcheck(measure, (test.requires_grad_(), reference.requires_grad_()))


@pytest.mark.parametrize("measure", [m for m in OWN if not isinstance(m, HistogramIntersection)], ids=str)
def test_gradients_are_finite_on_dead_maps(measure: Any) -> None:
    maps = textured(48, 1)
    maps[..., :10, :] = 0
    for test, reference in ((maps, maps), (0 * maps, 0 * maps), (0 * maps, maps), (maps, 0 * maps)):
        test = test.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(measure(test, reference).sum(), test)
        assert bool(gradient.isfinite().all())


@pytest.mark.parametrize("metric", ["VIF", "HaarPSI", "GMSD"])
def test_classical_metrics_have_gradients(metric: str) -> None:
    pytest.importorskip("piq")
    reference = textured(48)
    test = noisy(reference, 0.1).requires_grad_()
    (gradient,) = torch.autograd.grad(Piq(metric)(test, reference).sum(), test)
    assert bool(gradient.isfinite().all())
    assert bool((gradient != 0).any())


@pytest.mark.parametrize("data_range", [0, -1.0, float("nan"), float("inf"), "image"])
@pytest.mark.parametrize("kind", [MSSSIM, PSNR, GMS, GMSD, HistogramIntersection])
def test_data_ranges_out_of_range_are_refused(kind: Any, data_range: Any) -> None:
    with pytest.raises(InputError, match="data_range is a positive number"):
        kind(data_range=data_range)


@pytest.mark.parametrize("data_range", [2.0, "reference", "pair", "layer"])
@pytest.mark.parametrize("kind", [MSSSIM, PSNR, GMS, GMSD, HistogramIntersection])
def test_data_range_scales_the_maps(kind: Any, data_range: Any) -> None:
    # Maps divided by L and compared with L = 1 have the same value, whatever the rule that gives L.
    reference = textured(20, 3) * torch.tensor([0.0, 1.0, 5.0])[:, None, None]
    test = noisy(reference, 0.3).relu()
    peaks = {
        "reference": reference.amax((2, 3), keepdim=True),
        "pair": torch.maximum(reference, test).amax((2, 3), keepdim=True),
        "layer": reference.amax().view(1, 1, 1, 1),
    }
    limit = peaks.get(data_range, torch.tensor(2.0))
    limit = torch.where(limit > 0, limit, 1.0)
    expected = kind(data_range=1.0)(test / limit, reference / limit)
    assert kind(data_range=data_range).whole_layers == (data_range == "layer")
    # Bins are whole counts, one of which may change by rounding: 1 of 480 positions.
    tolerance = 5e-3 if kind is HistogramIntersection else 1e-5
    torch.testing.assert_close(kind(data_range=data_range)(test, reference), expected, rtol=1e-5, atol=tolerance)


@pytest.mark.parametrize("measure", ALL, ids=str)
def test_saved_options_make_the_same_measure(measure: Any) -> None:
    assert get_measure(measure.options()) == measure


def test_names_and_their_errors() -> None:
    for name in set(MEASURES) - {"piq"}:
        assert get_measure(name).name == name
    with pytest.raises(InputError, match=r"no measure 'lpips': there are ssim, ms-ssim, mse"):
        get_measure("lpips")
    for name, lacking in (
        ("VSNR", "grey values on a display at a distance"),
        ("dE_ab", "the three channels of an sRGB"),
    ):
        with pytest.raises(InputError, match=f"{name} compares {lacking}.*one of fmiqa.peers"):
            get_measure(name)
    with pytest.raises(InputError, match=r"measure psnr with {'bins': 3}: .*bins"):
        get_measure({"name": "psnr", "bins": 3})
    with pytest.raises(InputError, match=r"measure piq with no options: .*metric"):
        get_measure("piq")
    with pytest.raises(InputError, match="got int"):
        get_measure(3)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (PSNR, {"ceiling": 0}),
        (PSNR, {"ceiling": float("inf")}),
        (GMS, {"c": 0}),
        (MSSSIM, {"window": 10}),
        (MSSSIM, {"k2": 0}),
        (DeepSimSSIM, {"pool": "max"}),
        (DeepSimSSIM, {"fraction": 0}),
        (HistogramIntersection, {"bins": 1}),
        (HistogramIntersection, {"bins": 2.5}),
        (Piq, {"metric": "MDSI"}),
    ],
)
def test_options_out_of_range_are_refused(kind: Any, options: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        kind(**options)


def opposed(test: Tensor, reference: Tensor) -> Tensor:
    return (test - reference).abs().amax((-2, -1))


def test_a_function_says_its_direction_and_is_recorded_by_name() -> None:
    with pytest.raises(InputError, match=r"opposed does not say .*Custom\(opposed, higher_is_better=True\)"):
        get_measure(opposed)
    with pytest.raises(TypeError, match="higher_is_better"):
        Custom(opposed)  # type: ignore[call-arg]
    measure = Custom(opposed, higher_is_better=False, value_range=(0.0, float("inf")))
    assert get_measure(measure) is measure
    options = measure.options()
    assert options["function"].endswith("opposed")
    assert options["value_range"] == [0.0, None]
    with pytest.raises(InputError, match=r"the function .*opposed.*Custom\(opposed, higher_is_better=False\)"):
        get_measure(options)


def test_a_function_gets_whole_pairs_and_gives_one_value_a_map() -> None:
    seen = []

    def watching(test: Tensor, reference: Tensor) -> Tensor:
        seen.append((test.shape, reference.shape))
        return opposed(test, reference)

    test, reference = torch.rand(3, 2, 5, 6), torch.rand(1, 2, 5, 6)
    values = Custom(watching, higher_is_better=False)(test, reference)
    assert torch.equal(values, (test - reference).abs().amax((2, 3)))
    assert seen == [(test.shape, test.shape)]
    wrong = Custom(lambda test, reference: test.mean(), higher_is_better=True, label="the mean")
    with pytest.raises(InputError, match=r"the mean gave \(\) of maps \(3, 2, 5, 6\)"):
        wrong(test, reference)
    for bad in (reference[0], reference.long()):
        with pytest.raises(InputError, match="float maps"):
            wrong(test, bad)
    with pytest.raises(InputError, match="maps of one shape"):
        wrong(test, reference[..., :5])
