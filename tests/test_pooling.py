"""How map scores become one score."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import gmean

from fmiqa import InputError, MapIndex, pool_scores
from fmiqa.pooling import Pool, loss_shares, pool_shares


@given(st.integers(0, 2**31), st.lists(st.sampled_from("abc"), min_size=1, max_size=12))
def test_against_scipy(seed: int, layers: list[str]) -> None:
    maps = MapIndex(f"{layer}:{i}" for i, layer in enumerate(layers))
    values = torch.rand(2, 3, len(maps), dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) + 0.01
    torch.testing.assert_close(pool_scores(values, maps), values.sum(-1) / len(maps))
    means = [values[..., [m.layer == layer for m in maps]].mean(-1).numpy() for layer in dict.fromkeys(layers)]
    expected = torch.from_numpy(gmean(means, axis=0))
    torch.testing.assert_close(pool_scores(values, maps, pool="layer_geometric"), expected)


@pytest.mark.parametrize(
    ("pool", "weights"), [("mean", None), ("mean", torch.tensor([1.0, 0.0, 3.0, 0.5])), ("layer_geometric", None)]
)
def test_shares_are_the_slopes_of_the_score_where_it_is_1(pool: Pool, weights: torch.Tensor | None) -> None:
    maps = MapIndex(["a:0", "b:4", "a:1", "a:7"])
    values = torch.ones(4, dtype=torch.float64, requires_grad=True)
    pool_scores(values, maps, pool=pool, weights=weights).backward()
    assert values.grad is not None
    torch.testing.assert_close(pool_shares(maps, pool=pool, weights=weights), values.grad)


def test_negative_layer_mean_is_nan_under_layer_geometric() -> None:
    maps = MapIndex(["a:0", "b:0"])
    assert pool_scores(torch.tensor([-0.1, 0.5]), maps, pool="layer_geometric").isnan()
    assert pool_scores(torch.tensor([-0.1, 0.5]), maps).item() == pytest.approx(0.2)


def test_wrong_input_is_named() -> None:
    maps = MapIndex(["a:0", "b:0"])
    with pytest.raises(InputError, match="pool must be one of mean, layer_geometric, got 'max'"):
        pool_scores(torch.rand(3, 2), maps, pool="max")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"\(3, 3\) need one column for each of 2 maps"):
        pool_scores(torch.rand(3, 3), maps)
    with pytest.raises(InputError, match="each of 0 maps"):
        pool_scores(torch.rand(3, 0), MapIndex([]))


TINY = torch.finfo(torch.float64).tiny
DEGENERATE = [0.0, TINY / 4, TINY, 1e-300, 1e-30, 0.5, 1.0]


@pytest.mark.parametrize("power", [0.01, 0.5, 1.0, 1.5, 3.0])
@pytest.mark.parametrize("pool", ["mean", "layer_geometric"])
@pytest.mark.parametrize("score", DEGENERATE)
def test_the_gradient_is_finite_wherever_the_score_is(score: float, pool: str, power: float) -> None:
    maps = MapIndex(["a:0", "a:1", "b:0"])
    # One score, a whole layer or all of them are that small; without weights and, where they can be, with.
    for rows in ([0], [2], [0, 1], [0, 1, 2]):
        for weights in (None, torch.tensor([1.0, 0.0, 2.0])) if pool == "mean" else (None,):
            values = torch.tensor([0.3, 0.7, 0.9], dtype=torch.float64)
            values[rows] = score
            values.requires_grad_()
            pooled = pool_scores(values, maps, pool=pool, power=power, weights=weights)  # type: ignore[arg-type]
            assert pooled.isfinite()
            (gradient,) = torch.autograd.grad(pooled, values, create_graph=True)
            assert gradient.isfinite().all()
            if gradient.requires_grad and score in (0.0, 0.5, 1.0):
                assert torch.autograd.grad(gradient.sum(), values)[0].isfinite().all()


@pytest.mark.parametrize("power", [0.3, 0.5, 2.0])
def test_scores_keep_their_value_where_the_gradient_is_set_to_0(power: float) -> None:
    maps = MapIndex(["a:0", "b:0"])
    values = torch.tensor([[0.0, 0.25], [TINY / 4, 0.25], [-0.09, 0.25]], dtype=torch.float64)
    raised = values.sign() * values.abs() ** power
    assert torch.equal(pool_scores(values, maps, power=power), raised.mean(-1))
    geometric = pool_scores(values, maps, pool="layer_geometric")
    assert geometric[2].isnan()
    assert torch.equal(geometric[:2], values[:2].log().mean(-1).exp())


def test_a_score_of_0_has_no_gradient_and_leaves_the_others_theirs() -> None:
    maps = MapIndex(["a:0", "b:0"])
    values = torch.tensor([0.0, 0.25], dtype=torch.float64, requires_grad=True)
    pool_scores(values, maps, power=0.5).backward()
    assert values.grad is not None
    # (sqrt x)' / 2 = 1 / (4 sqrt x)
    torch.testing.assert_close(values.grad, torch.tensor([0.0, 0.5], dtype=torch.float64))
    values.grad = None
    pool_scores(values, maps, pool="layer_geometric").backward()  # sqrt(x y): 0 for y too, where x is 0
    assert torch.equal(values.grad, torch.zeros(2, dtype=torch.float64))


@pytest.mark.parametrize("pool", ["mean", "layer_geometric"])
def test_gradients_at_ordinary_scores(pool: str) -> None:
    maps = MapIndex(["a:0", "a:1", "b:0"])
    values = torch.rand(2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 0.1

    def pooled(v: torch.Tensor) -> torch.Tensor:
        return pool_scores(v, maps, pool=pool, power=0.7)  # type: ignore[arg-type]

    values.requires_grad_()
    assert torch.autograd.gradcheck(pooled, values)
    assert torch.autograd.gradgradcheck(pooled, values)


def test_values_are_floating_point_scores_and_weights_finite() -> None:
    maps = MapIndex(["a:0", "b:0"])
    with pytest.raises(InputError, match=r"floating-point scores, got torch.int64; convert them with .float\(\)"):
        pool_scores(torch.ones(3, 2, dtype=torch.int64), maps)
    for weights in ([torch.inf, 1.0], [torch.nan, 1.0], [-1.0, 2.0], [0.0, 0.0], [1.0]):
        with pytest.raises(InputError, match="finite numbers of at least 0"):
            pool_scores(torch.rand(3, 2), maps, weights=torch.tensor(weights))


@pytest.mark.parametrize("weights", [None, torch.tensor([1.0, 0.0, 3.0, 0.5])])
@pytest.mark.parametrize("power", [1.0, 2.0, 0.5])
def test_loss_shares_of_a_mean_are_its_terms(weights: torch.Tensor | None, power: float) -> None:
    maps = MapIndex(["a:0", "b:4", "a:1", "a:7"])
    values = torch.rand(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = loss_shares(values, maps, weights=weights, power=power)
    loss = 1 - pool_scores(values, maps, weights=weights, power=power)
    share = torch.full((4,), 0.25) if weights is None else weights / weights.sum()
    torch.testing.assert_close(found * loss[:, None], share.double() * (1 - values**power))


@pytest.mark.parametrize(
    ("pool", "weights"), [("mean", None), ("mean", torch.tensor([1.0, 0.2, 3.0, 0.5])), ("layer_geometric", None)]
)
@pytest.mark.parametrize("power", [1.0, 2.0])
def test_loss_shares_are_integrated_gradients(pool: Pool, weights: torch.Tensor | None, power: float) -> None:
    """Of the score, or of its logarithm, along the straight line of the raised scores: Gauss-Legendre of 20 points."""
    maps = MapIndex(["a:0", "b:4", "a:1", "a:7"])
    values = torch.tensor([0.9, 0.4, 0.2, 1.0], dtype=torch.float64)
    nodes, masses = (torch.from_numpy(array) for array in np.polynomial.legendre.leggauss(20))
    line = 1 + (nodes[:, None] + 1) / 2 * (values**power - 1)
    path = (line ** (1 / power)).requires_grad_()
    scores = pool_scores(path, maps, pool=pool, weights=weights, power=power)
    (scores if pool == "mean" else scores.log()).sum().backward()
    assert path.grad is not None
    by_raised = path.grad / (power * path.detach() ** (power - 1))
    parts = (masses[:, None] / 2 * by_raised).sum(0) * (1 - values**power)
    found = loss_shares(values, maps, pool=pool, weights=weights, power=power)
    torch.testing.assert_close(found, parts / parts.sum(), rtol=1e-9, atol=1e-12)  # the rule's own error is below 1e-12


@given(st.integers(0, 2**31), st.lists(st.sampled_from("abc"), min_size=1, max_size=12), st.booleans())
def test_loss_shares_add_up_to_1(seed: int, layers: list[str], geometric: bool) -> None:
    maps = MapIndex(f"{layer}:{i}" for i, layer in enumerate(layers))
    values = torch.rand(5, len(maps), generator=torch.Generator().manual_seed(seed))
    found = loss_shares(values, maps, pool="layer_geometric" if geometric else "mean", power=1.5)
    assert (found >= 0).all()
    torch.testing.assert_close(found.sum(-1), torch.ones(5, dtype=torch.float64))


@pytest.mark.parametrize("pool", ["mean", "layer_geometric"])
def test_loss_shares_where_nothing_or_everything_is_lost(pool: Pool) -> None:
    maps = MapIndex(["a:0", "a:1", "b:0", "c:0"])
    assert loss_shares(torch.ones(2, 4), maps, pool=pool).tolist() == [[0] * 4] * 2
    expected = [0.25] * 4 if pool == "mean" else [1 / 6, 1 / 6, 1 / 3, 1 / 3]
    assert loss_shares(torch.zeros(4), maps, pool=pool).tolist() == pytest.approx(expected)
    if pool == "layer_geometric":  # a layer without quality takes all
        assert loss_shares(torch.tensor([0.0, 0.0, 0.5, 0.1]), maps, pool=pool).tolist() == [0.5, 0.5, 0, 0]
