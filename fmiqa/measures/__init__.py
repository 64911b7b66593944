"""Measures: how the feature maps of a test image are compared with those of its reference."""

from __future__ import annotations

from typing import Any

from fmiqa.errors import InputError
from fmiqa.measures.base import Measure
from fmiqa.measures.ssim import SSIM

__all__ = ["SSIM", "Measure", "get_measure"]

_BY_NAME = {"ssim": SSIM}


def get_measure(measure: str | dict[str, Any] | Measure) -> Measure:
    """A measure by its name, by its saved options, or as it is.

    Args:
        measure: `"ssim"`, the dict that `options()` gave, or a `Measure`.

    Raises:
        InputError: no measure of that name.

    Example:
        >>> get_measure("ssim")
        SSIM(data_range=1.0, window=11, sigma=1.5, k1=0.01, k2=0.03)
        >>> get_measure(SSIM(data_range="pair").options()).data_range
        'pair'
    """
    if not isinstance(measure, str | dict):
        return measure
    options: dict[str, Any] = {"name": measure} if isinstance(measure, str) else dict(measure)
    name = options.pop("name", None)
    if name not in _BY_NAME:
        raise InputError(f"no measure {name!r}: there are {', '.join(_BY_NAME)}, or pass a Measure of your own")
    return _BY_NAME[str(name)](**options)
