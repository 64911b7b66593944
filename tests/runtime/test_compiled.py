"""Compiled inner loops against the same functions run eagerly, and what happens where nothing can be compiled."""

from __future__ import annotations

import shutil
import warnings
from typing import Any

import pytest
import torch
from torch._dynamo.exc import TorchDynamoException

from fmiqa._runtime.compiled import Fused, ahead, compiling, is_fusing
from fmiqa.measures import SSIM
from fmiqa.selection.criteria import Objective

needs_compiler = pytest.mark.skipif(
    not (shutil.which("g++") or shutil.which("clang++")), reason="no C++ compiler here, so nothing can be compiled"
)


def test_who_decides() -> None:
    assert not is_fusing()
    with ahead(pays=True):
        assert is_fusing()
        with compiling(False):
            assert not is_fusing()
        assert is_fusing()
    with compiling(True), ahead(pays=False):
        assert is_fusing()
    assert not is_fusing()


def test_goes_on_eagerly_where_compiling_fails_and_says_so_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(function: object, **options: object) -> object:
        def call(*args: object) -> object:
            raise TorchDynamoException("no compiler found")

        return call

    monkeypatch.setattr(torch, "compile", broken)
    doubled = Fused(lambda x: 2 * x)
    with compiling(True):
        with pytest.warns(UserWarning, match="going on without it, slower: no compiler found"):
            assert doubled(3) == 6
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert doubled(4) == 8


def test_off_the_cpu_each_size_but_the_first_is_compiled_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[bool] = []

    def recording(function: Any, *, dynamic: bool, options: object) -> Any:
        compiled.append(dynamic)
        return function

    monkeypatch.setattr(torch, "compile", recording)
    doubled = Fused(lambda x: 2 * x, sized=True)
    with compiling(True):
        for shape in ((4, 3, 5), (7, 3, 5), (4, 3, 5), (4, 2, 5), (1, 3, 5), (1, 3, 5)):
            assert doubled(torch.empty(shape, device="meta")).shape == shape
        assert compiled == [False] * 3  # 3x5, 2x5, and one alone, which torch takes for a size of its own
        assert doubled(torch.ones(2, 2)).tolist() == [[2, 2], [2, 2]]
        assert compiled == [False] * 3 + [True]


@pytest.mark.slow
@needs_compiler
@pytest.mark.parametrize("data_range", [1.0, "pair", "layer"])
def test_ssim_compiled_equals_eager(data_range: float | str, device: torch.device) -> None:
    measure = SSIM(data_range=data_range)  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(0)
    # Vectors filled and not, even and odd numbers of rows, maps of a row of windows.
    for shape in ((1, 8, 40, 56), (3, 12, 20, 17), (2, 5, 9, 7), (2, 32, 31, 80), (1, 16, 11, 30)):
        reference = torch.rand(shape, generator=generator).relu().to(device)
        if shape[1] % 16 == 0:
            reference = reference.contiguous(memory_format=torch.channels_last)
        test = reference + 0.2 * torch.rand(shape, generator=generator).to(device)
        for prepared in (measure.prepare(reference), measure.prepare(reference[:1])):
            eager = measure.compare(test, prepared)
            with compiling(True):
                compiled = measure.compare(test, prepared)
            # float32 moments summed in another order.
            torch.testing.assert_close(compiled, eager, atol=2e-6, rtol=0)
            with compiling(True):  # whose fused multiply-adds round otherwise than those of the prepared side
                assert bool((measure.compare(reference, measure.prepare(reference)) == 1).all())


@pytest.mark.slow
@needs_compiler
def test_quick_fits_compiled_reach_what_eager_ones_do(device: torch.device) -> None:
    generator = torch.Generator().manual_seed(0)
    y = torch.rand(1, 300, generator=generator, dtype=torch.float64)
    noise = 0.3 * torch.randn(40, 300, generator=generator, dtype=torch.float64)
    x = torch.sigmoid(6 * (y - 0.5) + noise).to(device)
    counts = torch.randint(0, 3, (40, 300), generator=generator).double().to(device)
    y = y.to(device)
    for weights in (torch.ones_like(y), counts):
        eager = Objective().quick(x, y, weights)
        with compiling(True):
            compiled = Objective().quick(x, y, weights)
        # Sums in another order may lead to another of two nearly equal maxima.
        torch.testing.assert_close(compiled, eager, atol=1e-3, rtol=0)
        # Steps are few: a climb that is not at its end moves by what rounding in float32, grown by each step, has moved
        # its start by. Seen: 1.7e-6.
        assert float((compiled - eager).abs().median()) < 1e-4
