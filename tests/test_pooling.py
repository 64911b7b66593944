"""How map scores become one score."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import gmean

from fmiqa import InputError, MapIndex, pool_scores


@given(st.integers(0, 2**31), st.lists(st.sampled_from("abc"), min_size=1, max_size=12))
def test_against_scipy(seed: int, layers: list[str]) -> None:
    maps = MapIndex(f"{layer}:{i}" for i, layer in enumerate(layers))
    values = torch.rand(2, 3, len(maps), dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) + 0.01
    torch.testing.assert_close(pool_scores(values, maps), values.sum(-1) / len(maps))
    means = [values[..., [m.layer == layer for m in maps]].mean(-1).numpy() for layer in dict.fromkeys(layers)]
    expected = torch.from_numpy(gmean(means, axis=0))
    torch.testing.assert_close(pool_scores(values, maps, pool="layer_geometric"), expected)


def test_negative_layer_mean_is_nan_under_layer_geometric() -> None:
    maps = MapIndex(["a:0", "b:0"])
    assert pool_scores(torch.tensor([-0.1, 0.5]), maps, pool="layer_geometric").isnan()
    assert pool_scores(torch.tensor([-0.1, 0.5]), maps).item() == pytest.approx(0.2)


def test_wrong_input_is_named() -> None:
    maps = MapIndex(["a:0", "b:0"])
    with pytest.raises(InputError, match="pool is one of mean, layer_geometric, got 'max'"):
        pool_scores(torch.rand(3, 2), maps, pool="max")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"\(3, 3\) need one column for each of 2 maps"):
        pool_scores(torch.rand(3, 3), maps)
    with pytest.raises(InputError, match="each of 0 maps"):
        pool_scores(torch.rand(3, 0), MapIndex([]))
