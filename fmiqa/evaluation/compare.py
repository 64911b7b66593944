"""`compare`: which metric agrees better with the subjective scores, and which differences are real."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from fmiqa._checks import check_tensor, scalar_or_tensor
from fmiqa.correlation import Form, fit_logistic, krocc, plcc, rmse, srocc
from fmiqa.correlation.bootstrap import Bootstrap, bootstrap, group_numbers
from fmiqa.correlation.krasula import PairAnalysis, pair_analysis
from fmiqa.correlation.pairs import computing_dtype
from fmiqa.correlation.significance import (
    Significance,
    holm,
    meng_test,
    residual_f_test,
    williams_test,
    zou_interval,
)
from fmiqa.errors import InputError
from fmiqa.evaluation.comparison import Agreement, Comparison, Difference, Estimate, PairTest

__all__ = ["compare"]

_FEW_GROUPS = 10


def compare(
    scores: Mapping[str, Tensor],
    targets: Tensor,
    groups: Sequence[Hashable] | Tensor | None = None,
    *,
    baseline: str | None = None,
    fit: Form | None = "logistic5",
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
    target_stds: Tensor | None = None,
    ratings: int | Tensor | None = None,
) -> Comparison:
    """Compare metrics on the same images.

    A difference of PLCC counts as real where the p-value of the paired bootstrap, Holm-corrected over all
    pairs compared, is below 1 - `level`. Both metrics are computed on the same resamples of whole groups; the
    test is Student's t of the difference over its bootstrap standard error with groups - 1 degrees of
    freedom.

    Williams', Meng's and Zou's figures and the F-test are given because they are customary. They do not
    decide: they take images as independent, but images of one reference share its content and so a metric's
    error on it. With 25 references of 20 images and errors shared within references, Williams' test told
    equal metrics apart in 39 % of 400 trials at the 5 % level, the bootstrap over references in 6 %. Without
    `groups` the images themselves are resampled, and the same rule decides.

    Args:
        scores: (N,) scores of each metric by name. PLCC and RMSE do not mind their direction after a fit;
            SROCC and KROCC keep it, so negate scores that fall with quality.
        targets: (N,) subjective scores.
        groups: The group of each image, its reference id; by default every image is a group of its own.
        baseline: Compare the others with this metric only; by default every two metrics are compared.
        fit: The logistic of PLCC, RMSE and of all tests; None for raw scores, whose RMSE has a meaning only
            on the scale of the targets.
        level: Confidence level of intervals and verdicts.
        resamples: Number of resamples of the bootstrap. Each is fitted again: 1000 resamples of 3000 images take
            20 s per metric on one core.
        seed: Seed of the bootstrap.
        target_stds: (N,) deviation of each image's ratings; with `ratings` adds Krasula's figures. Scores
            must then rise with quality as the targets do.
        ratings: Number of ratings of each image, one number or (N,).

    Returns:
        The table.

    Raises:
        InputError: Scores that are no (N,) tensors on the targets' device, NaN or constant scores, by metric;
            an unknown baseline; one of `target_stds` and `ratings` without the other.

    Example:
        >>> noise = torch.randn(3, 200, generator=torch.Generator().manual_seed(0))
        >>> quality = noise[0]
        >>> scores = {"good": quality + 0.3 * noise[1], "poor": quality + 2 * noise[2]}
        >>> result = compare(scores, quality, [i // 10 for i in range(200)], resamples=100)
        >>> result.differences[0].verdict
        'better: good'
    """
    names, x, y = _checked(scores, targets)
    if baseline is not None and baseline not in names:
        raise InputError(f"baseline {baseline!r} is no metric given; there are {names}")
    number = torch.arange(len(y), device="cpu") if groups is None else group_numbers(groups, len(y))
    found = bootstrap(x, y, number, statistic=_statistics(fit), resamples=resamples, seed=seed)
    pairs = _pairs(names, baseline)
    krasula = _krasula(x, y, target_stds, ratings, level)
    options = {
        "images": len(y),
        "groups": None if groups is None else found.groups,
        "baseline": baseline,
        "fit": fit,
        "level": level,
        "resamples": resamples,
        "seed": seed,
    }
    agreements = _agreements(names, found, level, krasula)
    return Comparison(
        agreements,
        tuple(_differences(names, pairs, x, y, found, fit, level)),
        options,
        tuple(_notes(agreements, options, len(pairs))),
    )


def _statistics(fit: Form | None) -> Callable[[Tensor, Tensor], Tensor]:
    """(4, ...) all statistics of the same scores, the logistic fitted once for two of them."""

    def compute(x: Tensor, y: Tensor) -> Tensor:
        if fit is None:
            linear, error = plcc(x, y, fit=None), rmse(x, y, fit=None)
        else:
            fitted = fit_logistic(x, y, form=fit)
            linear, error = fitted.plcc, fitted.rmse
        return torch.stack((linear, srocc(x, y), krocc(x, y), error))

    return compute


def _pairs(names: list[str], baseline: str | None) -> list[tuple[int, int]]:
    if baseline is None:
        return list(combinations(range(len(names)), 2))
    base = names.index(baseline)
    return [(i, base) for i in range(len(names)) if i != base]


def _agreements(
    names: list[str], found: Bootstrap, level: float, krasula: PairAnalysis | None
) -> tuple[Agreement, ...]:
    low, high = found.interval(level)
    estimates = torch.stack((found.estimate, low, high), dim=-1).tolist()
    entries = []
    for i, name in enumerate(names):
        linear, spearman, kendall, error = (Estimate(*statistic[i]) for statistic in estimates)
        agreement = Agreement(name, linear, spearman, kendall, error)
        if krasula is not None:
            agreement = replace(
                agreement,
                auc_different=krasula.auc_different[i].item(),
                auc_better=krasula.auc_better[i].item(),
                correct=krasula.correct[i].item(),
            )
        entries.append(agreement)
    return tuple(entries)


def _differences(
    names: list[str],
    pairs: list[tuple[int, int]],
    x: Tensor,
    y: Tensor,
    found: Bootstrap,
    fit: Form | None,
    level: float,
) -> list[Difference]:
    if not pairs:
        return []
    first, second = (list(side) for side in zip(*pairs, strict=True))
    paired = Bootstrap(
        found.estimate[:, first] - found.estimate[:, second],
        found.distribution[:, first] - found.distribution[:, second],
        found.groups,
    )
    low, high = paired.interval(level, method="t")
    estimates = torch.stack((paired.estimate, low, high), dim=-1).tolist()

    fitted = x if fit is None else fit_logistic(x, y, form=fit).predict(x)
    with_y = plcc(fitted, y, fit=None)
    correlations = (with_y[first], with_y[second], plcc(fitted[first], fitted[second], fit=None))
    zou_low, zou_high = zou_interval(*correlations, len(y), level=level)
    zou = torch.stack((correlations[0] - correlations[1], zou_low, zou_high), dim=-1).tolist()
    tests = (
        Significance(paired.estimate[0] / paired.standard_error[0], paired.p_value()[0]),
        williams_test(*correlations, len(y)),
        meng_test(*correlations, len(y)),
        residual_f_test((y - fitted)[first], (y - fitted)[second]),
    )
    rows = [torch.stack((t.statistic, t.p_value, holm(t.p_value)), dim=-1).tolist() for t in tests]
    entries = []
    for i, (a, b) in enumerate(pairs):
        linear, spearman, kendall, error = (Estimate(*statistic[i]) for statistic in estimates)
        deciding, williams, meng, f = (PairTest(*row[i]) for row in rows)
        entries.append(
            Difference(
                names[a],
                names[b],
                plcc=linear,
                srocc=spearman,
                krocc=kendall,
                rmse=error,
                bootstrap=deciding,
                williams=williams,
                meng=meng,
                f=f,
                zou=Estimate(*zou[i]),
                real=deciding.corrected < 1 - level,
            )
        )
    return entries


def _krasula(
    x: Tensor, y: Tensor, stds: Tensor | None, ratings: int | Tensor | None, level: float
) -> PairAnalysis | None:
    if stds is None and ratings is None:
        return None
    if stds is None or ratings is None:
        raise InputError("target_stds and ratings belong together: deviations of the ratings and how many there were")
    check_tensor(stds, "target_stds (N,)")
    given = scalar_or_tensor(ratings, "ratings (N,)")
    for name, value in (("target_stds", stds), ("ratings", ratings)):
        if isinstance(value, Tensor) and value.device != y.device:
            raise InputError(f"{name} are on {value.device}, targets on {y.device}; move them to one device")
    count = given.to(y)
    if count.shape not in ((), y.shape):
        raise InputError(
            f"ratings must be one number or {tuple(y.shape)}, one for each image, got {tuple(count.shape)}"
        )
    if (count < 1).any():
        raise InputError(f"ratings must be at least 1 for every image, got {count.min().item():g}")
    return pair_analysis(x, y, stds.to(y.dtype) / count.sqrt(), level=level)


def _checked(scores: Mapping[str, Tensor], targets: Tensor) -> tuple[list[str], Tensor, Tensor]:
    if not isinstance(scores, Mapping) or not scores:
        raise InputError("compare needs a mapping from metric names to scores, with at least one metric")
    check_tensor(targets, "targets (N,)")
    if targets.ndim != 1:
        raise InputError(f"targets must be (N,), got {tuple(targets.shape)}")
    for name, values in (("targets", targets), *scores.items()):
        what = "targets" if values is targets else f"scores of {name!r}"
        if not isinstance(values, Tensor) or values.shape != targets.shape:
            given = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
            raise InputError(
                f"{what} must be a tensor of shape {tuple(targets.shape)} as the targets, got {given}; convert arrays "
                "and lists with torch.as_tensor(...)"
            )
        check_tensor(values, what)
        if values.device != targets.device:
            raise InputError(f"{what} are on {values.device}, targets on {targets.device}; move them to one device")
        missing = int((~values.isfinite()).sum())
        if missing:
            raise InputError(f"{what} hold {missing} NaN or infinite values of {len(values)}; leave those images out")
        if len(values) and bool((values == values[0]).all()):
            raise InputError(f"{what} are all {values[0].item():g}; a constant agrees with nothing, leave it out")
    dtype = computing_dtype(targets)
    return (
        list(scores),
        torch.stack([v.detach().to(dtype) for v in scores.values()]),
        targets.detach().to(dtype),
    )


def _notes(agreements: tuple[Agreement, ...], options: dict[str, Any], pairs: int) -> list[str]:
    unit = "images" if options["groups"] is None else "groups"
    drawn = options[unit]
    level = f"{100 * options['level']:g} %"
    of = "" if options["groups"] is None else f" in {options['groups']} groups"
    fit = options["fit"] or "no"
    notes = [
        f"{options['images']} images{of}; {fit} fit; {level} intervals from {options['resamples']} resamples of {unit}."
    ]
    if pairs:
        notes.append(
            f"p-values are Holm-corrected for {pairs} comparison{'s' * (pairs > 1)}. The paired bootstrap "
            f"over {unit} decides; the other tests take images as independent."
            + " Intervals are of one comparison each: one may exclude 0 beside a difference that is not shown."
            * (pairs > 1)
        )
    if drawn < _FEW_GROUPS:
        notes.append(f"Only {drawn} {unit}: too few for the bootstrap to be relied upon.")
    notes += [
        f"Scores of {a.name} fall with quality: negate them to compare rank correlations."
        for a in agreements
        if a.srocc.high < 0
    ]
    return notes
