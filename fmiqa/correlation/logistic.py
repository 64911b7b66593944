"""Batched least-squares fit of the logistic functions that map objective scores to subjective ones.

Two forms are in use: the four-parameter logistic of the Video Quality Experts Group (VQEG, Final report from
the Video Quality Experts Group on the validation of objective models of video quality assessment, 2000), and
the five-parameter one with a linear term of Sheikh, Sabir and Bovik (A statistical evaluation of recent full
reference image quality assessment algorithms, IEEE Trans. Image Processing 15(11), 2006, Eq. 8).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, cast, get_args

import torch
from torch import Tensor

from fmiqa._checks import check_tensor, is_number
from fmiqa._runtime.compiled import Fused
from fmiqa.correlation.climbs import Kind
from fmiqa.correlation.curves import Curves, best_curves, linear_part, tied_slope
from fmiqa.correlation.pairs import pair
from fmiqa.correlation.problems import Problems
from fmiqa.errors import InputError

__all__ = ["Form", "LogisticFit", "fit_logistic"]

Form = Literal["logistic5", "logistic4"]
_PARAMETERS = {"logistic5": 5, "logistic4": 4}
_TIED: tuple[Kind, Kind] = ("flat_ends", "flat_middle")
_CONVERGED = 1e-6  # of the variance of y: the next step promises no more
_POINTS = {"cpu": 2**20, "gpu": 2**24}  # of the problems that are fitted together
STEEPNESS = 10.0
"""The default bound of the slope; see `fit_logistic`."""


@dataclass(frozen=True)
class LogisticFit:
    r"""Logistic curves fitted to one or many problems, made by `fit_logistic`.

    The curve of `"logistic5"` (Sheikh, Sabir and Bovik 2006, Eq. 8), then that of `"logistic4"` (VQEG 2000):

    .. math::

        f_5(x) = b_1 \left(\frac{1}{2} - \frac{1}{1 + e^{b_2 (x - b_3)}}\right) + b_4 x + b_5

    .. math::

        f_4(x) = \frac{b_1 - b_2}{1 + e^{-(x - b_3) / |b_4|}} + b_2

    Args:
        form: `"logistic5"` or `"logistic4"`.
        parameters: (..., 5) or (..., 4), b1 first, for x as it was given; in the dtype of the computation
            (float64), whatever the dtype of x, since the parameters of scores with a large offset need the
            digits.
        plcc: (...) Pearson correlation of fitted and given y, from 0 to 1.
        rmse: (...) root of the mean squared difference of fitted and given y.
        converged: (...) whether the search came to rest; False too where there was nothing to fit.

    Example:
        >>> x = torch.linspace(0, 1, 50)
        >>> fit = fit_logistic(x, torch.sigmoid(12 * (x - 0.4)))
        >>> again = LogisticFit.from_dict(fit.to_dict())
        >>> torch.equal(again.predict(x), fit.predict(x))
        True
    """

    form: Form
    parameters: Tensor
    plcc: Tensor
    rmse: Tensor
    converged: Tensor

    def predict(self, x: Tensor) -> Tensor:
        """The fitted scores.

        Args:
            x: (..., K) scores, leading dimensions broadcast against those of the fit.

        Returns:
            (..., K), in the floating dtype of `x`.

        Raises:
            InputError: `x` is not a tensor, or the leading dimensions do not broadcast.
        """
        check_tensor(x, "predict: x (..., K)")
        values = x.to(self.parameters.dtype)
        b = self.parameters.unsqueeze(-2).unbind(-1)
        try:
            torch.broadcast_tensors(x[..., :1], self.parameters[..., :1])
        except RuntimeError:
            raise InputError(
                f"predict: x of shape {tuple(x.shape)} does not broadcast against fits of shape "
                f"{tuple(self.parameters.shape[:-1])}; expected (..., K)"
            ) from None
        fitted = _evaluate(self.form, b, values)
        return fitted.to(x.dtype if x.is_floating_point() else torch.get_default_dtype())

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers for JSON; for the fit of a single problem.

        Raises:
            InputError: The fit holds several problems.
        """
        if self.parameters.ndim != 1:
            raise InputError(f"to_dict is for one problem, this fit holds {tuple(self.parameters.shape[:-1])} problems")
        return {
            "form": self.form,
            "parameters": self.parameters.tolist(),
            "plcc": self.plcc.item(),
            "rmse": self.rmse.item(),
            "converged": self.converged.item(),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> LogisticFit:
        """The fit of a single problem from what `to_dict` gave; in float64, on the CPU.

        Raises:
            InputError: An entry is missing or does not fit the form.
        """
        missing = {"form", "parameters", "plcc", "rmse", "converged"} - set(values)
        if missing:
            raise InputError(f"a fit's dictionary lacks {sorted(missing)}; expected what LogisticFit.to_dict gives")
        form = _checked_form(values["form"])
        if len(values["parameters"]) != _PARAMETERS[form]:
            raise InputError(f"{form} has {_PARAMETERS[form]} parameters, got {values['parameters']!r}")
        return cls(
            form,
            torch.tensor(values["parameters"], dtype=torch.float64, device="cpu"),
            torch.tensor(values["plcc"], dtype=torch.float64, device="cpu"),
            torch.tensor(values["rmse"], dtype=torch.float64, device="cpu"),
            torch.tensor(bool(values["converged"]), device="cpu"),
        )


@torch.no_grad()
def fit_logistic(
    x: Tensor,
    y: Tensor,
    *,
    form: Form = "logistic5",
    monotone: bool = False,
    steepness: float | None = STEEPNESS,
    dtype: torch.dtype = torch.float64,
) -> LogisticFit:
    """Fit logistic curves from objective scores to subjective scores, all problems at once.

    Every problem is searched from the best of many starts, with the linear parameters eliminated, so that no start
    has to be chosen. Problems do not influence one another. Curves that are best in a limit (a cubic) are given with
    finite parameters close to it.

    The slope of the sigmoid is bounded. Without a bound the best curve is often a step between two images: it explains
    these images and no others, and it looks like a fault in a plot.

    A problem whose x or y is constant or holds NaN or infinite values gets NaN parameters, plcc and rmse, and
    `converged` False; it raises nothing and leaves the others alone.

    plcc and rmse are those of the curve that the parameters draw in float64. An offset of x costs digits, as it
    does in x itself: where the mean is 1e6 deviations from 0, an ordinary fit is good to about 1e-8 of the deviation
    of y, one whose steep sigmoid and line nearly cancel (few or clustered points) to about 1e-4.

    Args:
        x: (..., N) objective scores; at least 5 points for `"logistic5"`, 4 for `"logistic4"`.
        y: (..., N) subjective scores, leading dimensions broadcast against those of `x`; a shared `y` of
            shape (N,) is not repeated in memory.
        form: `"logistic5"` (default) or `"logistic4"`, see `LogisticFit`.
        monotone: Keep the curve from changing direction between the lowest and the highest x (of
            `"logistic5"`; the other form cannot). Rising and falling curves are both allowed.
        steepness: The largest slope of the sigmoid, as a multiple of 1 / the standard deviation of x: the curve takes
            at least 4.4 / steepness deviations to rise from a tenth to nine tenths. None sets no bound; the fit is then
            a local optimum as scipy's `curve_fit` finds them, and narrow steps may be missed.
        dtype: What is computed in; float32 is for devices without float64 and finds R^2 to about 1e-4.

    Returns:
        The fit, on the device of `x`; `plcc` and `rmse` in the floating dtype of the input.

    Raises:
        InputError: Arguments that are not tensors, shapes that do not broadcast, too few points, an unknown form, or a
            steepness that is not above 0.

    Example:
        >>> x = torch.rand(3, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        >>> y = 1 / (1 + torch.exp(-9 * (x - 0.5)))
        >>> fit = fit_logistic(x, y)
        >>> fit.parameters.shape, bool((fit.plcc > 0.9999).all())
        (torch.Size([3, 5]), True)
    """
    _checked_form(form)
    pairs = pair(x, y, minimum=_PARAMETERS[form], what=f"fit_logistic with {form}", dtype=dtype)
    bound, of_device = _checked_steepness(steepness), "cpu" if x.is_cpu else "gpu"
    result = pairs.by_chunks(lambda x, y: _fit_rows(x, y, form, monotone, bound), _POINTS[of_device] // x.shape[-1])
    parameters = result[:, :-3].reshape(*pairs.shape, _PARAMETERS[form])
    plcc, rmse = (pairs.unflatten(result[:, i]) for i in (-3, -2))
    converged = (result[:, -1] < _CONVERGED) & result[:, -2].isfinite()
    return LogisticFit(form, parameters, plcc, rmse, converged.reshape(pairs.shape))


def _fit_rows(x: Tensor, y: Tensor, form: Form, monotone: bool, steepest: float | None) -> Tensor:
    """(P, 5 + 3) or (P, 4 + 3) parameters, plcc, rmse, and what the next step promised to gain."""
    problems = Problems.of(x, y)
    if form == "logistic4":
        curve = _best_curve(problems, "alone", steepest)
    else:
        curve = _best_curve(problems, "with_line", steepest)
        if monotone:
            curve = _without_turns(problems, curve, steepest)
    return _published(x, y, curve, form)


@Fused
def _published(x: Tensor, y: Tensor, curve: _Curve, form: Form) -> Tensor:
    """(P, 5 + 3) or (P, 4 + 3) of standardised problems' curves: as `_fit_rows`."""
    x_mean, x_deviation = _moments(x)
    y_mean, y_deviation = _moments(y)
    b2, b3 = curve.beta / x_deviation, x_mean + x_deviation * curve.tau
    level, line, amplitude = (part * y_deviation for part in (curve.level, curve.line, curve.amplitude))
    parameters: tuple[Tensor, ...]
    if form == "logistic5":
        slope = line / x_deviation
        parameters = (amplitude, b2, b3, slope, y_mean + level + amplitude / 2 - slope * x_mean)
    else:
        parameters = (y_mean + level + amplitude, y_mean + level, b3, 1 / b2)
    # Scored as published, so that what rounding of the parameters costs is in the figures.
    residual = ((y - _evaluate(form, parameters, x)) / y_deviation).square().mean(-1, keepdim=True).clamp(max=1)
    plcc, rmse = (1 - residual).sqrt(), residual.sqrt() * y_deviation
    return torch.cat((*torch.broadcast_tensors(*parameters), plcc, rmse, curve.promise), dim=-1)


def _moments(rows: Tensor) -> tuple[Tensor, Tensor]:
    """(P, 1) mean and deviation, of rows of any offset and size."""
    mean = rows.mean(-1, keepdim=True)
    mean = mean + (rows - mean).mean(-1, keepdim=True)
    size = (rows - mean).abs().amax(-1, keepdim=True)
    return mean, ((rows - mean) / size).square().mean(-1, keepdim=True).sqrt() * size


def _evaluate(form: Form, b: Sequence[Tensor], x: Tensor) -> Tensor:
    if form == "logistic5":
        return b[0] * (torch.sigmoid(b[1] * (x - b[2])) - 0.5) + b[3] * x + b[4]
    return (b[0] - b[1]) * torch.sigmoid((x - b[2]) / b[3].abs()) + b[1]


class _Curve(NamedTuple):
    """level + line t + amplitude sigmoid(beta (t - tau)) and its share of the variance; all (P, 1)."""

    level: Tensor
    line: Tensor
    amplitude: Tensor
    beta: Tensor
    tau: Tensor
    share: Tensor
    promise: Tensor  # what the next step would gain


def _best_curve(problems: Problems, kind: Kind, steepest: float | None) -> _Curve:
    """The best local maximum that the starts lead to."""
    return _curve(problems, kind, best_curves(problems, kind, steepest=steepest, thorough=True).best())


def _curve(problems: Problems, kind: Kind, at: Curves) -> _Curve:
    """One curve a problem, (P, 1), with its linear part."""
    share = at.share + problems.r.square()[:, None] if kind == "with_line" else at.share
    return _Curve(*linear_part(problems, kind, at.beta, at.tau), at.beta, at.tau, share, at.promise)


def _without_turns(problems: Problems, free: _Curve, steepest: float | None) -> _Curve:
    """The best curves whose derivative keeps its sign over the data; `free` are the best without that bound.

    The derivative is linear in s (1 - s), so it keeps its sign if it does where the sigmoid is flattest and
    where it is steepest. A best curve that must obey either is a local maximum of the free gain that happens
    to keep its sign, or it has a vanishing slope in one of those places, which ties its line to its sigmoid.
    """
    turning = (~_keeps_direction(problems, free)).squeeze(1).nonzero().squeeze(-1)
    if len(turning) == 0:
        return free
    part = problems.rows(turning)
    r = part.r[:, None]
    zero = torch.zeros_like(r)
    best = _Curve(zero, r, zero, zero + 1, zero, r.square(), zero)
    kinds: tuple[Kind, ...] = ("with_line", *_TIED)
    for kind in kinds:
        found = best_curves(part, kind, steepest=steepest, thorough=True)
        for column in zip(*(v.split(1, 1) for v in found), strict=True):
            local = _curve(part, kind, Curves(*column))
            tied = torch.ones_like(r, dtype=torch.bool) if kind in _TIED else _keeps_direction(part, local)
            best = _better(best, local, tied)
    return _Curve(*(whole.index_copy(0, turning, new) for whole, new in zip(free, best, strict=True)))


def _keeps_direction(problems: Problems, curve: _Curve) -> Tensor:
    flattest, steepest = (
        curve.line + curve.amplitude * tied_slope(problems, kind, curve.beta, curve.tau) for kind in _TIED
    )
    return flattest * steepest >= 0


def _better(old: _Curve, new: _Curve, allowed: Tensor) -> _Curve:
    take = allowed & (new.share > old.share)
    return _Curve(*(torch.where(take, b, a) for a, b in zip(old, new, strict=True)))


def _checked_form(form: object) -> Form:
    if not isinstance(form, str) or form not in get_args(Form):
        raise InputError(f"form must be one of {get_args(Form)}, got {form!r}")
    return cast(Form, form)


def _checked_steepness(steepness: float | None) -> float | None:
    if steepness is not None and not (is_number(steepness) and steepness > 0):
        raise InputError(f"steepness is a slope above 0, or None for no bound, got {steepness!r}")
    return steepness
