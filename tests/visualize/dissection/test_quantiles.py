"""Quantiles of streams, against a sort of everything."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fmiqa import InputError
from fmiqa.visualize.dissection.quantiles import StreamingQuantiles


def _streamed(values: Tensor, fraction: float, batch: int, **options: int) -> tuple[Tensor, float]:
    quantiles = StreamingQuantiles(len(values), fraction, total=values.shape[1], **options)
    for part in values.split(batch, 1):
        quantiles.update(part)
    return quantiles.values(), quantiles.rank_error


def _rank_error(values: Tensor, found: Tensor, fraction: float) -> float:
    """How far, as a part of N, the found values' ranks are from the wanted; ties take up several ranks."""
    count = values.shape[1]
    above, reached = (values > found[:, None]).sum(1), (values >= found[:, None]).sum(1)
    wanted = count - int(np.ceil(round(fraction * count, 6))) + 1
    short, far = wanted - reached, above + 1 - wanted
    return float(torch.stack([short, far]).clamp(min=0).max()) / count


@given(
    count=st.integers(1, 400),
    batch=st.integers(1, 90),
    fraction=st.sampled_from([0.5, 0.9, 0.99, 0.995]),
    levels=st.sampled_from([1, 3, 1000]),
    seed=st.integers(0, 99),
)
def test_exact_while_the_greatest_fit(count: int, batch: int, fraction: float, levels: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randint(-levels, levels, (3, count), generator=generator).double() / 7  # with ties
    found, error = _streamed(values, fraction, batch)
    assert error == 0
    expected = np.quantile(values.numpy(), fraction, axis=1, method="inverted_cdf")
    assert found.tolist() == expected.tolist()


@given(
    order=st.sampled_from(["random", "ascending", "descending", "zeros"]),
    batch=st.integers(1, 3000),
    fraction=st.sampled_from([0.5, 0.95, 0.995]),
    buffer=st.integers(4, 200),
    seed=st.integers(0, 99),
)
def test_never_farther_off_than_it_says(order: str, batch: int, fraction: float, buffer: int, seed: int) -> None:
    values = torch.randn(2, 6000, generator=torch.Generator().manual_seed(seed))
    if order == "zeros":
        values = values.sub(2).relu()  # as maps after a ReLU: mostly ties at 0
    elif order != "random":
        values = values.sort(1, descending=order == "descending").values
    found, error = _streamed(values, fraction, max(batch, 40), buffer=buffer)
    assert _rank_error(values, found, fraction) <= error


@pytest.mark.parametrize("order", ["random", "ascending", "descending"])
def test_within_a_thousandth_of_the_rank_far_beyond_the_buffer(order: str, device: torch.device) -> None:
    values = torch.randn(4, 2_000_000, generator=torch.Generator().manual_seed(3))
    if order != "random":
        values = values.sort(1, descending=order == "descending").values
    values = values.to(device)
    found, error = _streamed(values, 0.995, 50_000)  # the 10,000 greatest do not fit into 8192
    assert 0 < error < 1e-3
    assert _rank_error(values, found, 0.995) < 1e-3
    exact, none = _streamed(values, 0.995, 50_000, buffer=10_001)
    assert none == 0
    assert _rank_error(values, exact, 0.995) == 0


def test_memory_is_bounded() -> None:
    quantiles = StreamingQuantiles(1, 0.5, total=400_000, buffer=64)
    generator = torch.Generator().manual_seed(0)
    for _ in range(400):
        quantiles.update(torch.rand(1, 1000, generator=generator))
        kept = sum(level.shape[1] for level in quantiles._levels)
        assert kept <= 2 * 64 * (2 + np.log2(400_000 / 64))


def test_errors() -> None:
    with pytest.raises(InputError, match="fraction"):
        StreamingQuantiles(1, 1.0, total=3)
    with pytest.raises(InputError, match="at least 1"):
        StreamingQuantiles(1, 0.5, total=0)
    quantiles = StreamingQuantiles(2, 0.5, total=3)
    with pytest.raises(InputError, match=r"shape \(2, n\)"):
        quantiles.update(torch.zeros(3, 2))
    quantiles.update(torch.zeros(2, 2))
    with pytest.raises(InputError, match="only 2 were given"):
        quantiles.values()
    with pytest.raises(InputError, match="these are 4"):
        quantiles.update(torch.zeros(2, 2))
