"""SSIM of maps against a direct float64 computation, pytorch-msssim and closed forms."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.lib.stride_tricks import sliding_window_view
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from fmiqa import FeatureExtractor, InputError
from fmiqa.datasets import read_image
from fmiqa.measures import SSIM, get_measure
from fmiqa.measures import ssim as module
from fmiqa.measures import window as window_module
from fmiqa.measures.window import blur
from fmiqa.scoring.scorer import MapScorer

# Of whole rows of a score matrix, from the same maps: only SSIM itself is rounded. Seen: 5e-6 and less.
ROW_TOLERANCE = 2e-5


def direct_ssim(test: Tensor, reference: Tensor, limit: float | np.ndarray = 1.0, *, window: int = 11) -> np.ndarray:
    """(C, H, W) twice -> (C,): the two-dimensional window laid on every full position, moments about the mean."""
    x, y = (side.detach().cpu().double().numpy() for side in (test, reference))
    side = np.arange(window) - window // 2
    weights = np.exp(-(side[:, None] ** 2 + side[None, :] ** 2) / (2 * 1.5**2))
    weights = (weights / weights.sum()).ravel()
    limits = np.broadcast_to(limit, len(x))
    scores = []
    for a, b, peak in zip(x, y, limits, strict=True):
        a, b = (sliding_window_view(m, (window, window)).reshape(-1, window * window) for m in (a, b))
        mean_a, mean_b = a @ weights, b @ weights
        a, b = a - mean_a[:, None], b - mean_b[:, None]
        c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
        luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
        structure = (2 * (a * b) @ weights + c2) / ((a * a) @ weights + (b * b) @ weights + c2)
        scores.append((luminance * structure).mean())
    return np.array(scores)


def largest_error(test: Tensor, reference: Tensor, **options: object) -> float:
    scores = SSIM()(test[None], reference[None])[0]
    return float(np.abs(scores.cpu().numpy() - direct_ssim(test, reference, **options)).max())  # type: ignore[arg-type]


@pytest.fixture
def maps() -> tuple[Tensor, Tensor]:
    noise = torch.randn(2, 6, 31, 27, generator=torch.Generator().manual_seed(0))
    reference = noise[0]
    return reference + 0.3 * noise[1], reference


CUT = (slice(None), slice(96, 288), slice(128, 384))  # a quarter of the image, which the direct computation does in 1 s
WHOLE = (slice(None),) * 3


@pytest.mark.parametrize(
    ("stage", "number", "strength", "part"),
    [
        ("relu", "01", "040", CUT),
        ("relu", "23", "030", CUT),
        ("conv", "21", "070", CUT),
        pytest.param("relu", "21", "070", WHOLE, marks=pytest.mark.slow),
    ],
)
def test_whole_rows_of_real_features(
    shared: Path, device: torch.device, stage: str, number: str, strength: str, part: tuple[slice, ...]
) -> None:
    extractor = FeatureExtractor("alexnet", weights=shared / "weights/alexnet_features.pth", stage=stage).to(device)  # type: ignore[arg-type]
    reference = read_image(shared / f"data/tid2013r/reference_images/I{number}.png")[part].to(device)
    test = read_image(shared / f"data/jpegtid/distorted_images/i{number}_jpeg_{strength}.jpg")[part].to(device)
    row = MapScorer(extractor)(test[None], reference[None])[0].cpu().numpy()
    expected = np.concatenate(
        [
            direct_ssim(a[0], b[0])
            for a, b in zip(extractor(test[None]).values(), extractor(reference[None]).values(), strict=True)
        ]
    )
    assert row.shape == (1152,)
    assert np.abs(row - expected).max() < ROW_TOLERANCE


@pytest.mark.parametrize(("mean", "sigma"), [(0, 1), (10, 0.5), (100, 1), (-100, 1), (1000, 1)])
def test_maps_far_from_zero(maps: tuple[Tensor, Tensor], device: torch.device, mean: float, sigma: float) -> None:
    test, reference = (mean + sigma * side.to(device) for side in maps)
    assert largest_error(test, reference) < 2e-6  # seen: 2e-7


def test_flat_places_beside_strong_ones(maps: tuple[Tensor, Tensor], device: torch.device) -> None:
    # A map after a ReLU: mostly exactly 0, and up to 100. Its mean taken off would cost 5e-4.
    test, reference = (torch.relu(100 * side.to(device) - 100) for side in maps)
    reference[:, :, :13] = 0
    test[:, :, :13] = 0.01 * test[:, :, 13:26]
    assert largest_error(test, reference) < 5e-5
    # A bright map with a dark rim, as zero padding makes them. Squares of 100 in float32 are off by up to 6e-4, where
    # variances are 1, and less on the mean over some 300 windows. Seen: 3e-6.
    test, reference = (100 + side.to(device) for side in maps)
    reference[:, 0], test[:, 0] = 0, 0
    assert largest_error(test, reference) < 5e-5


def test_two_flat_levels(maps: tuple[Tensor, Tensor], device: torch.device) -> None:
    # No one constant suits two levels far apart: the worst case, and its bound.
    step = 100.0 * (torch.arange(27, device=device) > 13)
    test, reference = (step + 0.1 * side.to(device) for side in maps)
    assert largest_error(test, reference) < 5e-4  # seen: 6e-5


@pytest.mark.parametrize("value", [0.0, 0.37, 5.0, -123.4])
def test_dead_maps_are_alike(device: torch.device, value: float) -> None:
    dead = torch.full((2, 3, 17, 19), value, device=device)
    assert torch.equal(SSIM()(dead, dead.clone()), torch.ones(2, 3, device=device))
    for data_range in ("reference", "pair", "layer"):
        assert torch.equal(SSIM(data_range=data_range)(dead, dead), torch.ones(2, 3, device=device))  # type: ignore[arg-type]


def test_identical_maps_score_exactly_one(maps: tuple[Tensor, Tensor], device: torch.device) -> None:
    reference = 1000 * maps[1][None].to(device)
    assert torch.equal(SSIM()(reference, reference), torch.ones(1, 6, device=device))


def test_identical_maps_score_exactly_one_however_sums_are_rounded(maps: tuple[Tensor, Tensor]) -> None:
    # Kernels for another batch, or with fused multiply-adds, give other last bits of the reference's moments.
    reference = 100 + 30 * maps[1][None]
    prepared = SSIM().prepare(reference)
    for sign in (-1, 1):
        off = prepared._replace(mean=prepared.mean * (1 + sign * 2**-20), variance=prepared.variance * (1 - 2**-20))
        assert torch.equal(SSIM().compare(reference, off), torch.ones(1, 6))


@given(
    a=st.floats(-50, 50),
    b=st.floats(-50, 50),
    limit=st.floats(0.1, 255),
    side=st.integers(3, 14),
)
def test_constant_maps_have_the_luminance_of_their_levels(a: float, b: float, limit: float, side: int) -> None:
    test, reference = (torch.full((1, 1, side, side), v, dtype=torch.float64) for v in (a, b))
    c1 = (0.01 * limit) ** 2
    expected = (2 * a * b + c1) / (a * a + b * b + c1)
    # Structure is c2 / c2 up to the rounding of a^2 against c2, the smallest c2 being 9e-6.
    assert SSIM(data_range=limit)(test, reference).item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("height", "width", "window"), [(12, 40, 11), (10, 40, 9), (40, 8, 7), (3, 3, 3), (4, 20, 3)])
def test_small_maps_get_the_largest_odd_window_that_fits(
    maps: tuple[Tensor, Tensor], device: torch.device, height: int, width: int, window: int
) -> None:
    test, reference = (side.repeat(1, 2, 2)[:, :height, :width].to(device) for side in maps)
    assert largest_error(test, reference, window=window) < 1e-6


@pytest.mark.parametrize(("height", "width"), [(2, 30), (30, 2), (1, 1)])
def test_maps_without_a_window_are_refused(height: int, width: int) -> None:
    with pytest.raises(InputError, match=f"maps of {width}x{height} are too small.*at least 3"):
        SSIM()(torch.rand(1, 1, height, width), torch.rand(1, 1, height, width))


@pytest.mark.parametrize("data_range", [0.5, 255.0, "reference", "pair", "layer"])
def test_data_range(maps: tuple[Tensor, Tensor], device: torch.device, data_range: float | str) -> None:
    test, reference = (7 * side.to(device) * torch.arange(6, device=device)[:, None, None] for side in maps)
    peak_a, peak_b = (np.abs(side.cpu().numpy()).max((1, 2)) for side in (test, reference))
    limit = {
        "reference": peak_b,
        "pair": np.maximum(peak_a, peak_b),
        "layer": np.full(6, peak_b.max()),
    }.get(data_range, data_range)  # type: ignore[call-overload]
    limit = np.where(np.asarray(limit) > 0, limit, 1.0)  # map 0 is dead
    scores = SSIM(data_range=data_range)(test[None], reference[None])[0]  # type: ignore[arg-type]
    assert np.abs(scores.cpu().numpy() - direct_ssim(test, reference, limit)).max() < 2e-6


def test_images_against_pytorch_msssim(device: torch.device) -> None:
    peer = pytest.importorskip("pytorch_msssim")
    generator = torch.Generator().manual_seed(1)
    reference = torch.nn.functional.interpolate(torch.rand(3, 3, 12, 16, generator=generator), (64, 80)).to(device)
    test = (reference + 0.1 * torch.randn(3, 3, 64, 80, generator=generator).to(device)).clamp(0, 1)
    taps = torch.exp(-((torch.arange(11, dtype=torch.float64) - 5) ** 2) / (2 * 1.5**2))  # the peer's are float32
    window = (taps / taps.sum()).expand(3, 1, 1, 11).to(device)
    expected = peer.ssim(test.double(), reference.double(), data_range=1.0, size_average=False, win=window)
    ours = SSIM()(test.double(), reference.double()).mean(1)
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(SSIM()(test, reference).mean(1).double(), expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("side", [3, 7, 11])
def test_all_forms_of_the_window_agree(monkeypatch: pytest.MonkeyPatch, device: torch.device, side: int) -> None:
    x = torch.randn(2, 5, 23, 30, dtype=torch.float64, generator=torch.Generator().manual_seed(2)).to(device)
    taps = SSIM(window=side)._taps(x)
    exact = torch.nn.functional.conv2d(
        x.cpu().reshape(10, 1, 23, 30), torch.tensor(taps, dtype=torch.float64).view(1, 1, side, 1)
    ).view(2, 5, 24 - side, 30)
    for longest in (0, 1000):  # as a convolution; on GPUs also as a product with a band
        with monkeypatch.context() as patch:
            patch.setattr(window_module, "_LONGEST_BAND", longest)
            eager = [blur(x, taps, -2), blur(x.mT, taps, -1).mT]
        torch.testing.assert_close([value.cpu() for value in eager], [exact, exact], rtol=0, atol=1e-14)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    slices = [blur(x, taps, -2), blur(x.mT, taps, -1).mT]
    torch.testing.assert_close([value.cpu() for value in slices], [exact, exact], rtol=0, atol=1e-14)


def test_constants_of_the_window_serve_calls_with_and_without_gradients(maps: tuple[Tensor, Tensor]) -> None:
    window_module._made.cache_clear()
    with torch.inference_mode():
        plain = SSIM()(maps[0][None], maps[1][None])
    test = maps[0][None].clone().requires_grad_()
    scores = SSIM()(test, maps[1][None])
    scores.sum().backward()
    assert torch.equal(scores, plain)
    assert test.grad is not None


def test_pieces_cover_maps_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for shape, window in (
        ((1, 40, 300, 400), 11),
        ((2, 64, 384, 512), 11),
        ((1, 5, 3, 900000), 3),
        ((9, 200, 40, 50), 11),
        ((1, 1, 11, 11), 11),
    ):
        maps = torch.empty(1).expand(shape)
        seen = torch.zeros(shape[1], shape[2] - window + 1, dtype=torch.long)
        for channels, strips in module._pieces(maps, window):
            for rows, windows in strips:
                seen[channels, windows] += 1
                assert (rows.start, rows.stop) == (windows.start, windows.stop + window - 1)
        assert bool((seen == 1).all())


def iter_of(pieces: list[Any], *_: Any) -> Iterator[Any]:
    return iter(pieces)


def test_pieces_change_nothing(monkeypatch: pytest.MonkeyPatch, maps: tuple[Tensor, Tensor]) -> None:
    test, reference = (side[None].double() for side in maps)
    for data_range in (1.0, "reference", "pair", "layer"):
        measure = SSIM(data_range=data_range)  # type: ignore[arg-type]
        whole = measure(test, reference)
        with monkeypatch.context() as patch:
            height = test.shape[2]
            strips = [(slice(0, 18), slice(0, 8)), (slice(8, height), slice(8, height - 10))]
            pieces = [(slice(k, k + 3), strips) for k in range(0, test.shape[1], 3)]
            patch.setattr(module, "_pieces", partial(iter_of, pieces))
            torch.testing.assert_close(measure(test, reference), whole, rtol=0, atol=1e-12)


def test_one_reference_serves_many_test_maps(device: torch.device) -> None:
    test, reference = (torch.rand(n, 4, 20, 20, device=device) for n in (3, 1))
    measure = SSIM(data_range="pair")
    prepared = measure.prepare(reference)
    together = measure.compare(test, prepared)
    each = torch.cat([measure(t[None], reference) for t in test])
    torch.testing.assert_close(together, each, rtol=0, atol=1e-6)


def test_autocast_outside_changes_nothing(maps: tuple[Tensor, Tensor], device: torch.device) -> None:
    test, reference = (side[None].to(device) for side in maps)
    plain = SSIM()(test, reference)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        assert torch.equal(SSIM()(test, reference), plain)


@pytest.mark.parametrize("data_range", [1.0, "reference", "pair", "layer"])
def test_gradients(data_range: float | str) -> None:
    generator = torch.Generator().manual_seed(3)
    test, reference = (torch.rand(1, 2, 4, 5, dtype=torch.float64, generator=generator) for _ in range(2))
    inputs = (test.requires_grad_(), reference.requires_grad_())
    assert torch.autograd.gradcheck(SSIM(data_range=data_range), inputs)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "options",
    [
        {"data_range": 0},
        {"data_range": -1},
        {"data_range": float("nan")},
        {"data_range": float("inf")},
        {"data_range": "image"},
        {"window": 10},
        {"window": 1},
        {"sigma": 0},
        {"k1": 0},
        {"k2": -0.03},
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(InputError):
        SSIM(**options)  # type: ignore[arg-type]


def test_maps_of_another_form_are_refused() -> None:
    good = torch.rand(2, 3, 12, 12)
    for bad in (good[0], good.to(torch.uint8)):
        with pytest.raises(InputError, match="float maps"):
            SSIM()(bad, bad)
    for other in (good[:, :2], good[..., :11], torch.rand(3, 3, 12, 12)):
        with pytest.raises(InputError, match="maps of one shape"):
            SSIM()(good, other)


def test_saved_options_make_the_same_measure() -> None:
    measure = SSIM(data_range="pair", window=7, sigma=1.0)
    assert get_measure(measure.options()) == measure
    assert get_measure(measure) is measure
    with pytest.raises(InputError, match="no measure 'lpips'"):
        get_measure("lpips")


class FusedMultiplyAdds(TorchDispatchMode):
    """Products of float32 that go into a sum or difference are not rounded before, as where a compiler fuses them.

    Products of 24 bits have 48 and are exact in float64.
    """

    def __init__(self, first: bool) -> None:
        super().__init__()
        self.first = first  # of two products the one that is fused
        self.exact: dict[int, tuple[Tensor, Tensor]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        aten, result = torch.ops.aten, func(*args, **(kwargs or {}))
        if func is aten.mul.Tensor or (func is aten.pow.Tensor_Scalar and args[1] == 2):
            wide = [v.double() if isinstance(v, Tensor) else v for v in args]
            self.exact[id(result)] = result, func(*wide)
        elif func in (aten.add.Tensor, aten.sub.Tensor, aten.rsub.Scalar):
            fused = [p for p, v in enumerate(args) if id(v) in self.exact]
            if fused:
                place = fused[0 if self.first else -1]
                wide = [self.exact[id(v)][1] if p == place else v for p, v in enumerate(args)]
                return func(*(v.double() if isinstance(v, Tensor) else v for v in wide)).float()
        elif func is aten.addcmul.default:
            return func(*(v.double() for v in args), **(kwargs or {})).float()
        return result


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("data_range", [1.0, "pair", "layer"])
def test_equal_maps_have_exactly_1_where_multiply_adds_are_fused(data_range: Any, first: bool) -> None:
    # x - x is 0 however products are rounded, and both factors of SSIM are 1 less a quotient of such differences.
    generator = torch.Generator().manual_seed(0)
    measure = SSIM(data_range=data_range)
    maps = 3 * torch.rand(2, 3, 51, 29, generator=generator) - torch.rand(2, 3, 1, 1, generator=generator)
    with FusedMultiplyAdds(first):
        values = measure(maps, maps)
        x = torch.tensor(1 + 2.0**-12)
        assert float(x * x - (x * x).clone()) == 2.0**-24  # what rounding the square takes off
    assert torch.equal(values, torch.ones_like(values))
    with FusedMultiplyAdds(first):
        other = measure(maps.roll(1, 3), maps)
    torch.testing.assert_close(other, measure(maps.roll(1, 3), maps), rtol=0, atol=1e-6)
