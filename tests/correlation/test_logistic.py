"""The logistic fits: never below scipy's best of twelve bounded starts, true figures, bounds, bad columns."""

from __future__ import annotations

import json
import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import curve_fit

from fmiqa.correlation import LogisticFit, fit_logistic, logistic
from fmiqa.correlation.logistic import STEEPNESS
from fmiqa.errors import InputError

FORMS = ("logistic5", "logistic4")
KINDS = (
    "steep", "flat", "almost_linear", "quadratic", "exponential", "outliers", "offset", "tiny", "ties", "few",
    "clusters", "noise", "heavy", "saturated", "realistic", "descending", "step", "bump", "cubic", "skew",
)  # fmt: skip
SIZES = (6, 8, 12, 30, 100, 193, 250, 600, 1000, 1500)


def sigmoid(z):
    return 1 / (1 + np.exp(-np.clip(z, -500, 500)))


def one_problem(kind: str, rng: np.random.Generator, n: int):
    """A seeded problem of a kind: scores x and subjective scores y, of n points."""
    u, noise, level = rng.uniform(-2, 2, n), rng.normal(size=n), rng.choice([0.02, 0.1, 0.4, 1.0])
    mos = np.clip(rng.normal(4.5, 1.3, n), 0.2, 7.3)
    x = u
    if kind == "steep":
        y = sigmoid(rng.uniform(20, 400) * (u - rng.uniform(-1, 1))) + 0.3 * level * noise
    elif kind == "flat":
        y = sigmoid(rng.uniform(0.2, 0.8) * (u - rng.uniform(-2, 2))) + 0.1 * level * noise
    elif kind == "almost_linear":
        y = u + 0.02 * u**3 + level * noise
    elif kind == "quadratic":
        y = (u - rng.uniform(-1.5, 1.5)) ** 2 + level * noise
    elif kind == "exponential":
        y = np.exp(rng.uniform(-3, 3) * u) * 0.3 + 0.3 * level * noise
    elif kind == "outliers":
        x, y = u.copy(), u + level * noise
        at = rng.choice(n, max(1, n // 50), replace=False)
        x[at] *= rng.choice([5.0, 50.0, 1000.0])
        y[at] += 5 * rng.normal(size=len(at))
    elif kind == "offset":
        x, y = 1e6 + u, sigmoid(3 * u) + 0.3 * level * noise
    elif kind == "tiny":
        x, y = 1e-7 * u, sigmoid(5 * u + 1) + 0.3 * level * noise
    elif kind == "ties":
        x, y = (
            np.round(u * rng.choice([2, 5, 10])),
            np.round((sigmoid(2 * u) + 0.3 * level * noise) * 20) / 20,
        )
    elif kind == "few":
        x = rng.integers(0, rng.integers(2, 7), n).astype(float) ** 2
        y = x + 3 * level * noise
    elif kind == "clusters":
        x = rng.integers(0, 4, n) + rng.choice([1e-4, 1e-2, 0.1]) * u
        y = np.sin(2 * x) + u * rng.uniform(0, 1) + level * noise
    elif kind == "noise":
        y = noise
    elif kind == "heavy":
        x = rng.standard_cauchy(n)
        y = np.tanh(x) + level * noise
    elif kind == "saturated":
        x, y = 1 - np.exp(-mos - 3 + 2 * level * noise), mos
    elif kind == "realistic":
        x, y = sigmoid(rng.uniform(0.5, 3) * (mos - rng.uniform(3, 6)) + 2 * level * noise), mos
    elif kind == "descending":
        x, y = np.exp(-mos * rng.uniform(0.2, 2) + level * noise), mos
    elif kind == "step":
        y = (u > rng.uniform(-1.8, 1.8)) - 0.3 * u + level * noise
    elif kind == "bump":
        y = np.exp(-20 * (u - rng.uniform(-1, 1)) ** 2) + 0.3 * level * noise
    elif kind == "cubic":
        y = u**3 - rng.uniform(0, 3) * u + level * noise
    else:
        x = rng.lognormal(0, rng.uniform(0.5, 2), n)
        y = np.log(x) + level * noise
    return (-x if rng.uniform() < 0.3 else x), y


def problems(count: int, seed: int, largest: int = 1500):
    rng, made = np.random.default_rng(seed), []
    while len(made) < count:
        kind = KINDS[len(made) % len(KINDS)]
        n = int(rng.choice([size for size in SIZES if size <= largest]))
        x, y = one_problem(kind, rng, n)
        if np.ptp(x) > 0 and np.ptp(y) > 0:
            made.append((kind, x, y))
    return made


def curve5(x, b1, b2, b3, b4, b5):
    return b1 * (0.5 - 1 / (1 + np.exp(np.clip(b2 * (x - b3), -700, 700)))) + b4 * x + b5


def curve4(x, b1, b2, b3, b4):
    return (b1 - b2) / (1 + np.exp(np.clip(-(x - b3) / abs(b4), -700, 700))) + b2


def twelve_starts(form: str, x, y):
    """The published starts on x as it is, and a spread of others on standardised x."""
    t, span, middle = (x - x.mean()) / x.std(), np.ptp(y), np.median(x)
    if form == "logistic5":
        yield x, (y.max(), y.min(), middle, 0.1, 0.1)
        yield x, (y.max(), 1 / x.std(), x.mean(), 0, y.mean())
        yield t, (y.max(), y.min(), np.median(t), 0.1, 0.1)
        for slope in (0.3, 1, 4, 20):
            yield t, (span, slope, np.median(t), 0.1, y.mean())
        for q in (0.1, 0.3, 0.7, 0.9):
            yield t, (-span, 5, np.quantile(t, q), 0.5 * y.std(), y.mean())
        yield t, (span, 0.5, t.max() + 2, 0, y.mean())
    else:
        yield x, (y.max(), y.min(), x.mean(), x.std() / 4)
        yield x, (y.min(), y.max(), x.mean(), x.std() / 4)
        for width in (3, 1, 0.3, 0.05):
            yield t, (y.max(), y.min(), np.median(t), width)
            yield t, (y.min(), y.max(), np.median(t), width)
        yield t, (y.max(), y.min(), np.quantile(t, 0.2), 0.2)
        yield t, (y.min(), y.max(), np.quantile(t, 0.8), 0.2)


def scipy_best(form: str, x, y) -> float:
    """scipy's best of twelve starts, its slope bounded as ours is."""
    best = 0.0
    curve = curve5 if form == "logistic5" else curve4
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        for values, start in twelve_starts(form, x, y):
            steepest, start = STEEPNESS / values.std(), np.array(start, dtype=float)
            if form == "logistic5":
                high = np.array([np.inf, steepest, np.inf, np.inf, np.inf])
                low = -high
                start[1] = np.clip(start[1], -0.999 * steepest, 0.999 * steepest)
            else:
                low, high = np.array([-np.inf, -np.inf, -np.inf, 1 / steepest]), np.full(4, np.inf)
                start[3] = max(abs(start[3]), 1.001 / steepest)
            try:
                found, _ = curve_fit(curve, values, y, p0=start, bounds=(low, high), max_nfev=300)
            except (RuntimeError, TypeError, ValueError):  # no convergence, or fewer points than parameters
                continue
            r = np.corrcoef(curve(values, *found), y)[0, 1]
            best = max(best, r) if math.isfinite(r) else best
    return best


def assert_not_below_scipy(form: str, cases) -> None:
    for kind, x, y in cases:
        ours = fit_logistic(torch.tensor(x), torch.tensor(y), form=form).plcc.item()
        # 1e-4 is what a published PLCC shows; nearly all gaps are below 1e-6.
        assert ours > scipy_best(form, x, y) - 1e-4, (kind, len(x))


@pytest.mark.parametrize("form", FORMS)
def test_not_below_the_best_of_twelve_scipy_starts(form):
    assert_not_below_scipy(form, problems(15, seed=11, largest=250))


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_not_below_the_best_of_twelve_scipy_starts_on_many(form):
    assert_not_below_scipy(form, problems(500, seed=7))


@pytest.mark.parametrize("form", FORMS)
def test_predict_reproduces_plcc_and_rmse(form):
    for kind, x, y in problems(60, seed=3):
        fit = fit_logistic(torch.tensor(x), torch.tensor(y), form=form)
        fitted = fit.predict(torch.tensor(x)).numpy()
        assert fit.rmse.item() == pytest.approx(np.sqrt(np.mean((fitted - y) ** 2)), abs=1e-9 * y.std()), kind
        # At a least-squares optimum sqrt(1 - residual) is the correlation. The parameters of scores at an offset
        # of 1e6 deviations are rounded to some 1e-10 of a deviation, which steps between near neighbours feel.
        assert fit.plcc.item() == pytest.approx(np.corrcoef(fitted, y)[0, 1], abs=1e-6), kind


@pytest.mark.parametrize("form", FORMS)
def test_parameters_are_those_of_the_published_formula(form):
    _, x, y = problems(1, seed=5)[0]
    fit = fit_logistic(torch.tensor(x), torch.tensor(y), form=form)
    formula = curve5 if form == "logistic5" else curve4
    np.testing.assert_allclose(fit.predict(torch.tensor(x)), formula(x, *fit.parameters.tolist()), atol=1e-9)


@pytest.mark.parametrize("sign", [1, -1])
def test_recovers_a_noiseless_curve(device, sign):
    x = torch.linspace(0, 1, 200, dtype=torch.float64, device=device)
    y = 3 * torch.sigmoid(sign * 14 * (x - 0.37)) + 0.8 * x - 2
    fit = fit_logistic(x, y)
    expected = torch.tensor([3.0 * sign, 14, 0.37, 0.8, -0.5], dtype=torch.float64)
    assert fit.parameters.device == x.device
    # Without noise, Gauss and Newton's steps converge quadratically; what is left is rounding, times the condition.
    torch.testing.assert_close(fit.parameters.cpu(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("steepness", [1.0, 3.0, STEEPNESS])
def test_no_curve_is_steeper_than_the_bound(form, steepness):
    reached = 0
    for kind, x, y in problems(40, seed=4):
        fit = fit_logistic(torch.tensor(x), torch.tensor(y), form=form, steepness=steepness)
        slope = fit.parameters[1] if form == "logistic5" else 1 / fit.parameters[3]
        relative = abs(slope.item()) * x.std()
        assert relative <= steepness * (1 + 1e-6), kind  # the deviation is computed twice
        reached += relative > steepness * (1 - 1e-3)
    assert reached > 3  # else the bound was never put to the test


def test_a_step_is_reached_without_a_bound():
    # One jump in little noise: the best of all thresholds, by brute force.
    rng = np.random.default_rng(4)
    x = np.arange(40.0)
    y = (x > 22.5) * 1.0 + 0.01 * rng.normal(size=40)
    share = max(np.corrcoef(x > threshold, y)[0, 1] for threshold in x[:-1] + 0.5)
    free = fit_logistic(torch.tensor(x), torch.tensor(y), form="logistic4", steepness=None)
    assert free.plcc.item() >= share - 1e-6
    assert 22 <= free.parameters[2] <= 23
    assert fit_logistic(torch.tensor(x), torch.tensor(y), form="logistic4").plcc < free.plcc - 1e-3


def test_two_distinct_scores_give_the_straight_line():
    # The sigmoid is collinear with the line there: any share beyond the line's would be rounding noise.
    x = torch.tensor([0.0, 1.0] * 10, dtype=torch.float64)
    y = torch.randn(20, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    r = np.corrcoef(x, y)[0, 1]
    for form in FORMS:
        assert fit_logistic(x, y, form=form).plcc.item() == pytest.approx(abs(r), abs=1e-9)


def test_monotone_fits_keep_their_direction_and_cost_something():
    turned = 0
    for kind, x, y in problems(40, seed=9):
        x_tensor, y_tensor = torch.tensor(x), torch.tensor(y)
        free, bound = (fit_logistic(x_tensor, y_tensor, monotone=monotone) for monotone in (False, True))
        low, high = x.min(), x.max()
        places = torch.cat((torch.linspace(low, high, 4001, dtype=torch.float64), x_tensor)).sort().values
        path = bound.predict(places)
        steps = path.diff()
        # Where the slope is bound to zero, the curve may tremble by the rounding of its parameters.
        assert (steps > -1e-9 * y.std()).all() or (steps < 1e-9 * y.std()).all(), kind
        assert bound.plcc <= free.plcc + 1e-9, kind
        assert bound.plcc >= abs(np.corrcoef(x, y)[0, 1]) - 1e-9, kind
        turned += bool(bound.plcc < free.plcc - 1e-4)
    assert turned > 10  # else the bound was never put to the test


def test_monotone_fits_are_not_below_a_dense_search():
    # The bounded least squares for 40 x 41 slopes and centres, each solved by trying every set of active bounds.
    for kind, x, y in problems(12, seed=21, largest=100):
        t, target = (x - x.mean()) / x.std(), (y - y.mean()) / y.std()
        span = np.ptp(t)
        best = np.corrcoef(t, target)[0, 1] ** 2
        for beta in np.geomspace(0.6, STEEPNESS * span, 40) / span:
            for tau in np.linspace(t.min() - 0.3 * span, t.max() + 0.3 * span, 41):
                s = sigmoid(beta * (t - tau))
                at = np.clip(tau, t.min(), t.max())
                bounds = [beta * d * (1 - d) for d in sigmoid(beta * (np.array([t.min(), t.max(), at]) - tau))]
                for kappa in (min(bounds), max(bounds)):
                    column = s - s.mean() - kappa * t
                    square = np.mean(column**2)
                    best = max(best, np.mean(column * target) ** 2 / square if square > 1e-12 else 0)
                columns = np.stack((t, s - s.mean()), 1)
                line, amplitude = np.linalg.lstsq(columns, target, rcond=1e-9)[0]
                if (line + amplitude * min(bounds)) * (line + amplitude * max(bounds)) >= 0:
                    best = max(best, 1 - np.mean((target - columns @ (line, amplitude)) ** 2))
        ours = fit_logistic(torch.tensor(x), torch.tensor(y), monotone=True).plcc.item()
        assert ours >= math.sqrt(best) - 1e-4, (kind, len(x))


@given(scale=st.floats(1e-6, 1e6), offset=st.floats(-100, 100), flip=st.booleans(), index=st.integers(0, 19))
def test_affine_scores_have_the_same_plcc(scale, offset, flip, index):
    _, x, y = problems(20, seed=2, largest=100)[index]
    moved = (-scale if flip else scale) * ((x - x.mean()) / x.std() + offset)
    plain, other = (fit_logistic(torch.tensor(v), torch.tensor(y)).plcc.item() for v in (x, moved))
    # Moving the points rounds them; turning them round changes the grid's ties. Both end in the same optimum.
    assert other == pytest.approx(plain, abs=1e-5)


@given(seed=st.integers(0, 1000))
def test_the_order_of_the_points_does_not_count(seed):
    _, x, y = problems(20, seed=2, largest=250)[seed % 20]
    order = np.random.default_rng(seed).permutation(len(x))
    plain, shuffled = (fit_logistic(torch.tensor(x[i]), torch.tensor(y[i])).plcc for i in (slice(None), order))
    assert shuffled.item() == pytest.approx(plain.item(), abs=1e-6)


@pytest.mark.parametrize("monotone", [False, True])
def test_a_batch_equals_a_loop_whatever_its_portions(monkeypatch, device, monotone):
    rng = np.random.default_rng(8)
    kinds = KINDS if device.type == "cpu" else KINDS[::3]  # a GPU's launches take long, one problem at a time
    columns = [one_problem(kind, rng, 300) for kind in kinds]
    x, y = (torch.tensor(np.stack(part), device=device) for part in zip(*columns, strict=True))
    whole = fit_logistic(x, y, monotone=monotone)
    looped = [fit_logistic(a, b, monotone=monotone).plcc for a, b in zip(x, y, strict=True)]
    # The same arithmetic, but sums may be blocked otherwise for another number of rows.
    torch.testing.assert_close(whole.plcc, torch.stack(looped), rtol=0, atol=1e-9)
    monkeypatch.setattr(logistic, "_POINTS", {"cpu": 1, "gpu": 1})
    torch.testing.assert_close(fit_logistic(x, y, monotone=monotone).plcc, whole.plcc, rtol=0, atol=1e-9)


def test_leading_dimensions_broadcast():
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(3, 1, 30, dtype=torch.float64, generator=generator)
    y = torch.rand(2, 30, dtype=torch.float64, generator=generator)
    fit = fit_logistic(x, y)
    assert fit.parameters.shape == (3, 2, 5)
    assert fit.predict(x).shape == (3, 2, 30)
    assert fit.plcc[2, 1].item() == pytest.approx(fit_logistic(x[2, 0], y[1]).plcc.item(), abs=1e-9)


def test_bad_columns_give_nan_and_leave_the_others_alone():
    generator = torch.Generator().manual_seed(1)
    x, y = torch.rand(5, 30, generator=generator), torch.rand(30, generator=generator)
    alone = fit_logistic(x[2:], y)
    x[0], x[1, 3], x[4, 0] = 0.3, torch.nan, torch.inf
    fit = fit_logistic(x, y)
    assert fit.plcc.isnan().tolist() == fit.rmse.isnan().tolist() == [True, True, False, False, True]
    assert fit.converged.tolist() == [False, False, True, True, False]
    assert fit.parameters.isnan().all(-1).tolist() == fit.plcc.isnan().tolist()
    torch.testing.assert_close(fit.plcc[2:4], alone.plcc[:2], rtol=0, atol=0)
    assert fit_logistic(x, torch.ones(30)).plcc.isnan().all()
    assert fit_logistic(x[:0], y).parameters.shape == (0, 5)


def test_dtypes_and_integers():
    y = torch.rand(40, generator=torch.Generator().manual_seed(1))
    x = (y * 20).round()
    single, double, whole = (fit_logistic(v, y) for v in (x, x.double(), x.long()))
    assert single.plcc.dtype == torch.float32
    assert single.parameters.dtype == torch.float64  # an offset needs the digits
    assert single.predict(x).dtype == torch.float32
    assert double.plcc.dtype == torch.float64
    assert whole.plcc.item() == single.plcc.item() == pytest.approx(double.plcc.item(), abs=1e-6)
    # Half the digits of float32 are lost where the sigmoid is nearly collinear with the line.
    assert fit_logistic(x, y, dtype=torch.float32).plcc.item() == pytest.approx(double.plcc.item(), abs=1e-3)


def test_to_dict_goes_through_json():
    _, x, y = problems(1, seed=5)[0]
    fit = fit_logistic(torch.tensor(x), torch.tensor(y))
    again = LogisticFit.from_dict(json.loads(json.dumps(fit.to_dict())))
    assert torch.equal(again.parameters, fit.parameters)
    assert (again.form, again.plcc, again.converged) == ("logistic5", fit.plcc, fit.converged)
    with pytest.raises(InputError, match="one problem"):
        fit_logistic(torch.rand(2, 9), torch.rand(9)).to_dict()
    with pytest.raises(InputError, match="rmse"):
        LogisticFit.from_dict({k: v for k, v in fit.to_dict().items() if k != "rmse"})
    with pytest.raises(InputError, match="4 parameters"):
        LogisticFit.from_dict(fit.to_dict() | {"form": "logistic4"})


@pytest.mark.parametrize(
    ("x", "y", "options", "message"),
    [
        (torch.rand(2, 9), torch.rand(3, 9), {}, r"\(2, 9\).*\(3, 9\)"),
        (torch.rand(9), torch.rand(8), {}, r"\(9,\).*\(8,\)"),
        (torch.rand(4), torch.rand(4), {}, "at least 5"),
        (torch.rand(3), torch.rand(3), {"form": "logistic4"}, "at least 4"),
        (torch.tensor(1.0), torch.rand(3), {}, "scalar"),
        (torch.rand(9), torch.rand(9), {"form": "cubic"}, "logistic5.*cubic"),
        (torch.rand(9), torch.rand(9), {"dtype": torch.float16}, "float16"),
        (torch.rand(9), torch.rand(9), {"steepness": 0.0}, "above 0.*got 0.0"),
        (torch.rand(9), torch.rand(9), {"steepness": -2.0}, "above 0.*got -2.0"),
        (torch.rand(9), torch.rand(9), {"steepness": math.nan}, "above 0.*got nan"),
        (torch.rand(9) * 1j, torch.rand(9), {}, "complex"),
        ([1.0, 2.0], torch.rand(2), {}, "list"),
    ],
)
def test_bad_input_says_what_is_wrong(x, y, options, message):
    with pytest.raises(InputError, match=message):
        fit_logistic(x, y, **options)


def test_predict_names_shapes_that_do_not_broadcast():
    fit = fit_logistic(torch.rand(2, 9), torch.rand(9))
    with pytest.raises(InputError, match=r"\(3, 9\).*\(2,\)"):
        fit.predict(torch.rand(3, 9))
