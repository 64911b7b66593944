"""PLCC, SROCC, KROCC and RMSE against scipy and numpy, in batches, with ties, and with bad columns."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st

from fmiqa.correlation import coefficients, fit_logistic, krocc, plcc, rmse, srocc
from fmiqa.errors import InputError


def raw_plcc(x, y):
    return plcc(x, y, fit=None)


PEERS = [
    (raw_plcc, lambda x, y: scipy.stats.pearsonr(x, y).statistic),
    (srocc, lambda x, y: scipy.stats.spearmanr(x, y).statistic),
    (krocc, lambda x, y: scipy.stats.kendalltau(x, y).statistic),
]
COEFFICIENTS = [peer[0] for peer in PEERS]


def columns(rng, n, levels):
    """Five columns and a target; rounded to a few levels where `levels` is given, so that both hold ties."""
    y = rng.normal(size=n)
    x = np.linspace(-1, 1, 5)[:, None] * y + rng.normal(size=(5, n))
    if levels:
        x, y = np.round(x * levels), np.round(y * levels)
        x[:, 0], x[:, 1], y[:2] = 9, -9, (3, -3)  # never constant
    return x, y


@pytest.mark.parametrize("coefficient", [*COEFFICIENTS, plcc])
def test_no_columns_have_no_coefficients(coefficient):
    assert coefficient(torch.rand(0, 10), torch.rand(10)).shape == (0,)


@pytest.mark.parametrize(("ours", "theirs"), PEERS)
@pytest.mark.parametrize("levels", [0, 1, 4])
@pytest.mark.parametrize("n", [2, 3, 7, 64, 65, 500])
def test_equals_scipy(device, ours, theirs, levels, n):
    x, y = columns(np.random.default_rng(n), n, levels)
    got = ours(torch.tensor(x, device=device), torch.tensor(y, device=device))
    assert got.shape == (5,)
    np.testing.assert_allclose(got.cpu(), [theirs(row, y) for row in x], atol=1e-12, rtol=0)


@given(
    x=st.lists(st.integers(-3, 3), min_size=8, max_size=8),
    y=st.lists(st.integers(-3, 3), min_size=8, max_size=8),
)
def test_small_integers_equal_scipy(x, y):
    for ours, theirs in PEERS:
        if len(set(x)) == 1 or len(set(y)) == 1:
            assert ours(torch.tensor(x), torch.tensor(y)).isnan()
        else:
            # Integers come back in torch's default float32.
            assert ours(torch.tensor(x), torch.tensor(y)).item() == pytest.approx(theirs(x, y), abs=1e-6)


@given(seed=st.integers(0, 10_000), scale=st.floats(1e-6, 1e6))
def test_rank_coefficients_survive_a_rising_transform(seed, scale):
    x, y = (torch.tensor(v) for v in columns(np.random.default_rng(seed), 30, 0))
    for rank in (srocc, krocc):
        assert torch.equal(rank((x * 0.3).exp() * scale, y), rank(x, y))
        torch.testing.assert_close(rank(-x, y), -rank(x, y), rtol=0, atol=1e-12)
        torch.testing.assert_close(rank(y, x), rank(x, y), rtol=0, atol=1e-12)


@pytest.mark.parametrize("offset", [0.0, 1e6, 1e9])
def test_pearson_survives_a_large_offset(offset):
    rng = np.random.default_rng(0)
    y = torch.tensor(rng.normal(size=400))
    # Multiples of 2^-20 stay exact under the offset, so that only the arithmetic is tested.
    x = (y + torch.tensor(rng.normal(size=400))).mul(2**20).round().div(2**20)
    torch.testing.assert_close(plcc(x + offset, y, fit=None), plcc(x, y, fit=None), rtol=0, atol=1e-12)


@pytest.mark.parametrize("scale", [1e-170, 1e-30, 1e170])
def test_pearson_survives_extreme_scales(scale):
    x, y = (torch.tensor(v) for v in columns(np.random.default_rng(0), 50, 0))
    torch.testing.assert_close(plcc(x * scale, y, fit=None), plcc(x, y, fit=None), rtol=0, atol=1e-12)


def test_float32_is_computed_in_float64():
    x, y = (torch.tensor(v, dtype=torch.float32) for v in columns(np.random.default_rng(0), 500, 0))
    for coefficient in COEFFICIENTS:
        got = coefficient(x + 1000, y)
        assert got.dtype == torch.float32
        assert torch.equal(got, coefficient((x + 1000).double(), y.double()).float())


def test_portions_do_not_change_the_rank_coefficients(monkeypatch):
    x, y = (torch.tensor(v) for v in columns(np.random.default_rng(0), 100, 4))
    whole = [rank(x, y) for rank in (srocc, krocc)]
    monkeypatch.setattr(coefficients, "_PORTION", 1)
    for rank, expected in zip((srocc, krocc), whole, strict=True):
        torch.testing.assert_close(rank(x, y), expected, rtol=0, atol=1e-14)


def test_leading_dimensions_broadcast():
    rng = np.random.default_rng(3)
    x, y = torch.tensor(rng.normal(size=(3, 1, 20))), torch.tensor(rng.normal(size=(2, 20)))
    for ours, theirs in PEERS:
        got = ours(x, y)
        assert got.shape == (3, 2)
        assert got[2, 1].item() == pytest.approx(theirs(x[2, 0], y[1]), abs=1e-12)
    assert rmse(x, y, fit=None).shape == plcc(x, y).shape == (3, 2)


@pytest.mark.parametrize("coefficient", [*COEFFICIENTS, plcc, rmse])
def test_bad_columns_give_nan_and_leave_the_others_alone(coefficient):
    x, y = (torch.tensor(v) for v in columns(np.random.default_rng(0), 30, 0))
    expected = coefficient(x, y)
    x[0], x[1, 3], x[4, 0] = 0.3, torch.nan, -torch.inf
    got = coefficient(x, y)
    assert got.isnan().tolist() == [True, True, False, False, True]
    assert torch.equal(got[2:4], expected[2:4])
    assert coefficient(x, torch.full((30,), 2.0, dtype=torch.float64)).isnan().all()


def test_rmse_without_a_fit():
    x, y = (torch.tensor(v) for v in columns(np.random.default_rng(0), 30, 0))
    np.testing.assert_allclose(rmse(x, y, fit=None), ((x - y) ** 2).mean(-1).sqrt(), rtol=1e-12)
    x[0], x[1, 3] = 0.3, torch.nan
    # A constant column has an error as any other has.
    assert rmse(x, y, fit=None).isnan().tolist() == [False, True, False, False, False]


def test_with_a_fit_they_are_the_fits_own():
    x, y = (torch.tensor(v) for v in columns(np.random.default_rng(0), 30, 0))
    for form in ("logistic5", "logistic4"):
        fit = fit_logistic(x, y, form=form)
        assert torch.equal(plcc(x, y, fit=form), fit.plcc)
        assert torch.equal(rmse(x, y, fit=form), fit.rmse)
    assert torch.equal(plcc(x, y, monotone=True), fit_logistic(x, y, monotone=True).plcc)


def test_raw_plcc_and_rmse_have_gradients():
    x, y = (torch.tensor(v, requires_grad=True) for v in columns(np.random.default_rng(0), 6, 0))
    assert torch.autograd.gradcheck(raw_plcc, (x, y))
    assert torch.autograd.gradcheck(lambda a, b: rmse(a, b, fit=None), (x, y))


def test_a_bad_column_does_not_poison_gradients():
    x, y = (torch.tensor(v) for v in columns(np.random.default_rng(0), 6, 0))
    x[0], x[1, 3] = 0.3, torch.nan
    x.requires_grad_()
    y.requires_grad_()
    plcc(x, y, fit=None)[2:].sum().backward()
    assert y.grad.isfinite().all()
    assert (x.grad[:2] == 0).all()


@pytest.mark.parametrize("coefficient", [*COEFFICIENTS, plcc, rmse])
def test_bad_shapes_are_named(coefficient):
    with pytest.raises(InputError, match=r"\(2, 9\).*\(3, 9\)"):
        coefficient(torch.rand(2, 9), torch.rand(3, 9))
    with pytest.raises(InputError, match=r"\(9,\).*\(1,\)"):
        coefficient(torch.rand(9), torch.rand(1))


@pytest.mark.parametrize("coefficient", COEFFICIENTS)
def test_one_point_is_too_few(coefficient):
    with pytest.raises(InputError, match="at least 2"):
        coefficient(torch.rand(4, 1), torch.rand(1))


def test_a_column_of_a_matrix_is_ranked_without_a_warning(recwarn: pytest.WarningsRecorder) -> None:
    values = torch.rand(20, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    always = torch.is_warn_always_enabled()
    torch.set_warn_always(True)  # torch tells of scattered numbers once in a process
    try:
        found = srocc(values[:, 1], values[:, 2])
    finally:
        torch.set_warn_always(always)
    assert not recwarn.list
    assert float(found) == float(srocc(values[:, 1].clone(), values[:, 2].clone()))
