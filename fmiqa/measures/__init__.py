"""Measures: how the feature maps of a test image are compared with those of its reference.

To add a measure, write it in a file of its own beside this one (`mse.py` is a short example), import it here, and list
it in `_NAMED`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from fmiqa.errors import InputError
from fmiqa.measures.base import DataRange as DataRange
from fmiqa.measures.base import Measure as Measure
from fmiqa.measures.classical import Piq as Piq
from fmiqa.measures.correlation import Correlation as Correlation
from fmiqa.measures.custom import Custom as Custom
from fmiqa.measures.deepsim import DeepSimSSIM as DeepSimSSIM
from fmiqa.measures.gradient import GMS as GMS
from fmiqa.measures.gradient import GMSD as GMSD
from fmiqa.measures.histogram import HistogramIntersection as HistogramIntersection
from fmiqa.measures.m_svd import MSVD as MSVD
from fmiqa.measures.ms_ssim import MSSSIM as MSSSIM
from fmiqa.measures.mse import MSE as MSE
from fmiqa.measures.psnr import PSNR as PSNR
from fmiqa.measures.pyramid import PyramidIntersection as PyramidIntersection
from fmiqa.measures.ssim import SSIM as SSIM

__all__ = [
    "GMS", "GMSD", "MEASURES", "MSE", "MSSSIM", "MSVD", "PSNR", "SSIM", "Correlation", "Custom", "DataRange",
    "DeepSimSSIM", "HistogramIntersection", "Measure", "Piq", "PyramidIntersection", "get_measure",
]  # fmt: skip

_NAMED: tuple[Any, ...] = (
    SSIM, MSSSIM, MSE, PSNR, Correlation, GMS, GMSD, MSVD, DeepSimSSIM, HistogramIntersection, PyramidIntersection, Piq
)  # fmt: skip

MEASURES: dict[str, Callable[..., Measure]] = {kind.name: kind for kind in _NAMED}
"""The measures that names and saved options stand for."""

_OF_IMAGES = {  # metrics that a feature map cannot have, and what it lacks
    "vsnr": "grey values on a display at a distance",
    "de_ab": "the three channels of an sRGB image",
}


def get_measure(measure: str | dict[str, Any] | Measure | Callable[[Tensor, Tensor], Tensor]) -> Measure:
    """A measure by its name, by its saved options, or as it is.

    Args:
        measure: A name of `MEASURES`, such as `"ssim"`; a dict of a name and options, such as
            `{"name": "piq", "metric": "VIF"}` or what `options()` gave; or a `Measure`.

    Raises:
        InputError: No measure of that name, options that it does not have; a function whose direction is not said
            (see `Custom`), or the saved options of one.

    Example:
        >>> get_measure("ssim")
        SSIM(data_range=1.0, window=11, sigma=1.5, k1=0.01, k2=0.03)
        >>> get_measure(SSIM(data_range="pair").options()).data_range
        'pair'
    """
    if not isinstance(measure, str | dict):
        return _checked(measure)
    options: dict[str, Any] = {"name": measure} if isinstance(measure, str) else dict(measure)
    name = options.pop("name", None)
    if name == Custom.name:
        function = options.get("function", "a function of your own")
        rising = options.get("higher_is_better", "...")
        raise InputError(
            f"the measure is the function {function}, which no saved result holds: pass "
            f"measure=fmiqa.measures.Custom({str(function).rpartition('.')[2]}, higher_is_better={rising})"
        )
    if str(name).lower() in _OF_IMAGES:
        raise InputError(
            f"{name} compares {_OF_IMAGES[str(name).lower()]}, which single feature maps are not; as a metric of whole "
            "images it is one of fmiqa.peers (fmiqa evaluate --peers)"
        )
    if name not in MEASURES:
        raise InputError(f"no measure {name!r}: there are {', '.join(MEASURES)}, or pass a Measure of your own")
    try:
        return MEASURES[str(name)](**options)
    except TypeError as error:
        reason = str(error).removeprefix(f"{MEASURES[str(name)].__name__}.__init__() ")
        raise InputError(f"measure {name} with {options or 'no options'}: {reason}") from error


def _checked(measure: Any) -> Measure:
    if all(hasattr(measure, part) for part in ("prepare", "compare", "options", "higher_is_better")):
        return measure  # type: ignore[no-any-return]
    if callable(measure):
        name = getattr(measure, "__qualname__", type(measure).__name__)
        raise InputError(
            f"{name} does not say whether higher values are better: pass "
            f"fmiqa.measures.Custom({name}, higher_is_better=True) or the same with False"
        )
    raise InputError(f"a measure is a name, saved options, a Measure or a function, got {type(measure).__name__}")
