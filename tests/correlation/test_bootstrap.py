from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch
from scipy import stats

from fmiqa.correlation import bootstrap as module
from fmiqa.correlation import plcc, rmse
from fmiqa.correlation.bootstrap import Bootstrap, bootstrap, group_numbers
from fmiqa.correlation.significance import williams_test
from fmiqa.errors import InputError

RAGGED = ["a"] * 4 + ["b"] * 7 + ["a"] * 2 + ["c"] * 9 + ["d"] * 5 + ["e"] * 6


def problem(images: int, metrics: int = 2, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    y = torch.randn(images, dtype=torch.float64, generator=generator)
    return y + torch.randn(metrics, images, dtype=torch.float64, generator=generator), y


def mean_of_x(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return x.mean(-1)


def drawn_images(groups: list[str], resamples: int, seed: int) -> list[np.ndarray]:
    """The images of each resample, group by group, with the library's documented source of draws."""
    names = list(dict.fromkeys(groups))
    size = (resamples, len(names))
    draws = torch.randint(len(names), size, generator=torch.Generator().manual_seed(seed))
    members = {name: [i for i, g in enumerate(groups) if g == name] for name in names}
    return [np.array([i for k in row for i in members[names[k]]]) for row in draws.tolist()]


@pytest.mark.parametrize(
    ("statistic", "expected"),
    [
        ("srocc", lambda x, y: stats.spearmanr(x, y).statistic),
        ("krocc", lambda x, y: stats.kendalltau(x, y).statistic),
        ("plcc", lambda x, y: stats.pearsonr(x, y).statistic),
        ("rmse", lambda x, y: np.sqrt(np.mean((x - y) ** 2))),
    ],
)
def test_every_resample_of_ragged_groups_equals_scipy(statistic, expected) -> None:
    x, y = problem(len(RAGGED))
    found = bootstrap(x, y, RAGGED, statistic=statistic, fit=None, resamples=40, seed=3)
    assert found.groups == 5
    for b, images in enumerate(drawn_images(RAGGED, 40, 3)):
        for m in range(2):
            value = expected(x[m, images].numpy(), y[images].numpy())
            assert found.distribution[m, b].item() == pytest.approx(value, rel=1e-9)
    for m in range(2):
        assert found.estimate[m].item() == pytest.approx(expected(x[m].numpy(), y.numpy()), rel=1e-9)


@pytest.mark.parametrize(("statistic", "function"), [("plcc", plcc), ("rmse", rmse)])
def test_the_logistic_is_fitted_to_every_resample(statistic, function) -> None:
    x, y = problem(len(RAGGED))
    found = bootstrap(x, y, RAGGED, statistic=statistic, resamples=12, seed=1)
    for b, images in enumerate(drawn_images(RAGGED, 12, 1)):
        # The same fit; problems of one batch agree to the last digits only.
        torch.testing.assert_close(found.distribution[:, b], function(x[:, images], y[images]), rtol=1e-6, atol=1e-9)


def test_standard_error_of_a_mean_is_the_cluster_formula() -> None:
    """Of G groups of equal size: the deviation of the group means over sqrt(G), in closed form."""
    x, y = problem(12 * 10, seed=5)
    groups = torch.arange(12).repeat_interleave(10)
    found = bootstrap(x, y, groups, statistic=mean_of_x, resamples=4000)
    exact = x.reshape(2, 12, 10).mean(-1).std(-1, correction=0) / 12**0.5
    torch.testing.assert_close(found.standard_error, exact, rtol=0.045, atol=0)  # 4 / sqrt(2 * 4000)


def test_without_groups_it_agrees_with_scipys_bootstrap() -> None:
    x, y = problem(60)
    found = bootstrap(x[0], y, statistic="plcc", fit=None, resamples=4000)
    generator = "rng" if "rng" in inspect.signature(stats.bootstrap).parameters else "random_state"  # before scipy 1.15
    expected = stats.bootstrap(
        (x[0].numpy(), y.numpy()),
        lambda a, b: stats.pearsonr(a, b).statistic,
        paired=True,
        vectorized=False,
        n_resamples=2000,
        method="percentile",
        **{generator: np.random.default_rng(0)},
    )
    # Monte Carlo error: 3 standard errors of a deviation from 2000 and 4000 draws, and of a .025 quantile.
    assert found.standard_error.item() == pytest.approx(expected.standard_error, rel=0.06)
    ends = [end.item() for end in found.interval()]
    assert ends == pytest.approx(list(expected.confidence_interval), abs=0.25 * expected.standard_error)


def test_intervals_are_quantiles_of_the_distribution() -> None:
    distribution = torch.randn(3, 501, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    distribution[1, 7] = torch.nan
    found = Bootstrap(torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64), distribution, groups=9)
    low, high = found.interval(0.9)
    quantiles = np.nanpercentile(distribution.numpy(), [5, 95], axis=-1)
    np.testing.assert_allclose(torch.stack((low, high)).numpy(), quantiles, rtol=1e-12)
    error = np.nanstd(distribution.numpy(), axis=-1, ddof=1)
    np.testing.assert_allclose(found.standard_error.numpy(), error, rtol=1e-12)
    low, high = found.interval(0.9, method="t")
    np.testing.assert_allclose((high - low).numpy() / 2, stats.t.ppf(0.95, 8) * error, rtol=1e-9)
    expected = 2 * stats.t.sf(found.estimate.numpy() / error, 8)
    np.testing.assert_allclose(found.p_value().numpy(), expected, rtol=1e-9)


def test_p_value_belongs_to_the_t_interval() -> None:
    x, y = problem(80, seed=2)
    difference = bootstrap(x, y, statistic="srocc", resamples=300).difference(0, 1)
    p = difference.p_value().item()
    low, high = difference.interval(1 - p, method="t")
    assert min(abs(low), abs(high)) < 1e-9 < max(abs(low), abs(high))


def test_differences_are_paired() -> None:
    """A metric with a constant added is the same metric: no resample tells them apart."""
    x, y = problem(50)
    found = bootstrap(torch.stack((x[0], 2 * x[0], x[1])), y, statistic="srocc", resamples=100)
    same = found.difference(0, 1)
    assert same.distribution.eq(0).all()
    assert same.p_value() == 1
    other = found.difference(0, 2)
    assert torch.equal(other.distribution, found.distribution[0] - found.distribution[2])
    unpaired = (found.standard_error[0] ** 2 + found.standard_error[2] ** 2).sqrt()
    assert other.standard_error < unpaired


def test_portions_seeds_and_shared_y_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = problem(len(RAGGED))
    whole = bootstrap(x, y, RAGGED, statistic="srocc", resamples=50).distribution
    assert torch.equal(whole, bootstrap(x, y.expand(2, -1), RAGGED, statistic="srocc", resamples=50).distribution)
    assert not torch.equal(whole, bootstrap(x, y, RAGGED, statistic="srocc", resamples=50, seed=1).distribution)
    monkeypatch.setattr(module, "_PORTION", 150)
    assert torch.equal(whole, bootstrap(x, y, RAGGED, statistic="srocc", resamples=50).distribution)


def test_devices_resample_the_same_groups(device: torch.device) -> None:
    x, y = problem(len(RAGGED))
    expected = bootstrap(x, y, RAGGED, statistic=mean_of_x, resamples=20)
    numbers = group_numbers(RAGGED, len(RAGGED)).to(device)
    found = bootstrap(x.to(device), y.to(device), numbers, statistic=mean_of_x, resamples=20)
    assert found.distribution.device.type == device.type
    torch.testing.assert_close(found.distribution.cpu(), expected.distribution)
    assert found.interval().low.device.type == device.type
    assert found.p_value().device.type == device.type


def test_leading_dimensions_and_float32() -> None:
    x = torch.randn(2, 3, 40, generator=torch.Generator().manual_seed(0))
    y = torch.randn(40, generator=torch.Generator().manual_seed(1))
    found = bootstrap(x, y, statistic="srocc", resamples=30)
    assert found.estimate.shape == (2, 3)
    assert found.distribution.shape == (2, 3, 30)
    assert found.distribution.dtype == found.interval().low.dtype == torch.float32
    single = bootstrap(x[1, 2], y, statistic="srocc", resamples=30)
    assert torch.equal(single.distribution, found.distribution[1, 2])
    assert found.difference((1, 2), (0, 0)).estimate == found.estimate[1, 2] - found.estimate[0, 0]


def test_undefined_resamples_are_left_out() -> None:
    """Two groups, constant within: a resample that draws one of them twice has no correlation."""
    x = torch.tensor([0.0] * 5 + [1.0] * 5)
    found = bootstrap(x, x, ["a"] * 5 + ["b"] * 5, statistic="srocc", resamples=50)
    assert found.distribution.isnan().any()
    assert found.interval().low == 1


def test_images_of_one_group_do_not_count_as_independent() -> None:
    """300 trials of two equally good metrics, their errors shared within 25 references of 20 images.

    At the .05 level Williams' test told them apart in .41 of the trials, this one in .05.
    """
    trials, references, images = 300, 25, 20
    groups = torch.arange(references).repeat_interleave(images)
    generator = torch.Generator().manual_seed(0)

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(trials, 2, *shape, dtype=torch.float64, generator=generator)

    y = noise(references, images)[:, :1]
    shared = 0.35 * noise(references, 1) + 0.2 * noise(references, 1) * y
    x = (torch.tanh(0.7 * y) + shared + 0.25 * noise(references, images)).flatten(2)
    y = y.flatten(2).expand_as(x)
    found = bootstrap(x, y, groups, fit=None, resamples=200)
    paired = Bootstrap(
        found.estimate[:, 0] - found.estimate[:, 1], found.distribution[:, 0] - found.distribution[:, 1], references
    )
    between = plcc(x[:, 0], x[:, 1], fit=None)
    images_only = williams_test(found.estimate[:, 0], found.estimate[:, 1], between, references * images)
    assert (images_only.p_value < 0.05).double().mean() > 0.3
    # 3.5 standard errors of a rate of .05 around it.
    assert (paired.p_value() < 0.05).double().mean().item() == pytest.approx(0.05, abs=0.044)


def test_wrong_input_is_refused() -> None:
    x, y = problem(10)
    for arguments, message in (
        ((x, y[1:]), "x .2, 10. and y .9,."),
        ((x, y.expand(3, -1)), "y must be"),
        ((x, y, ["a"] * 9), "10 images, got 9"),
        ((x, y, ["a"] * 10), "at least 2 groups"),
        ((x.tolist(), y), "must be a torch.Tensor, got list"),
    ):
        with pytest.raises(InputError, match=message):
            bootstrap(*arguments, fit=None)
    with pytest.raises(InputError, match="statistic"):
        bootstrap(x, y, statistic="pearson")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="resamples"):
        bootstrap(x, y, resamples=0)
    found = bootstrap(x, y, fit=None, resamples=5)
    with pytest.raises(InputError, match="level"):
        found.interval(95)
    with pytest.raises(InputError, match="method"):
        found.interval(method="bca")  # type: ignore[arg-type]
