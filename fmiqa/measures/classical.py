"""Classical metrics, as `piq` implements them, applied to feature maps: traditional metrics revived on CNN maps."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from fmiqa._checks import is_batched, is_recording
from fmiqa._runtime.precision import strict_float32
from fmiqa.errors import InputError
from fmiqa.measures.base import DataRange, MapMeasure, Sides
from fmiqa.measures.histogram import to_unit

__all__ = ["Piq"]


class _Metric(NamedTuple):
    function: str
    smallest: int  # side of a map
    higher_is_better: bool = True
    high: float = 1.0  # the greatest value; the least is 0
    alone: bool = False  # piq mixes the images of a batch
    options: dict[str, Any] = {}  # noqa: RUF012


# The smallest sides are piq's own where it has one. FSIM runs on anything, but its shortest wave is 6 positions long;
# DSS takes the worst 5 % of 8x8 blocks, which are none of fewer than 11; GMSD needs 3 positions after halving.
_METRICS = {
    "VIF": _Metric("vif_p", 41, high=math.inf),
    "FSIM": _Metric("fsim", 6, options={"chromatic": False}),
    "IW-SSIM": _Metric("information_weighted_ssim", 161, alone=True),
    "HaarPSI": _Metric("haarpsi", 16),
    "GMSD": _Metric("gmsd", 6, higher_is_better=False, high=0.5),
    "DSS": _Metric("dss", 32),
    "SR-SIM": _Metric("srsim", 40, alone=True),
}


@dataclass(frozen=True)
class Piq(MapMeasure):
    """A classical metric on each pair of maps, taken as a pair of grey images.

    `piq` wants values in [0, 1]: both maps are divided by L and cut off at 0 and 1. Where the reference map has
    negative values, [-L, L] becomes [0, 1] instead. VSI and MDSI, which look at colour, are not among these.

    Values that rounding takes out of a metric's range are put back. Equal maps have the best value; where `piq` has
    none (0/0 on a map without content; a map too empty for the covariances of IW-SSIM), the value is the worst one.
    VIF is the share of the reference's information that is left in the test map, so of a constant reference map,
    which has none, it is 1. The gradient is 0 where `piq` has none, as GMSD of equal maps.

    Args:
        metric: `"VIF"` (from 0, over 1 where contrast is raised; maps of at least 41x41), `"FSIM"` (0 to 1; 6x6),
            `"IW-SSIM"` (0 to 1; 161x161), `"HaarPSI"` (0 to 1; 16x16), `"GMSD"` (0 to 1/2, lower is better; 6x6),
            `"DSS"` (0 to 1; 32x32), `"SR-SIM"` (0 to 1; 40x40). Capitals do not matter.
        data_range: L, see `fmiqa.measures.DataRange`.

    Raises:
        InputError: An unknown metric, options out of range, or `piq` is not installed; under torch.func.vmap and
            torch.export, and with some metrics torch.jit.trace, which `piq` cannot run under (torch.compile can, with
            graph breaks).

    Example:
        >>> measure = Piq("HaarPSI")
        >>> measure.higher_is_better, measure.value_range, measure.smallest
        (True, (0.0, 1.0), 16)
    """

    metric: str
    data_range: DataRange = "reference"

    name: ClassVar[str] = "piq"
    _held: ClassVar[int] = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        known = {name.lower(): name for name in _METRICS}
        if str(self.metric).lower() not in known:
            raise InputError(f"no metric {self.metric!r} for single maps: there are {', '.join(_METRICS)}")
        object.__setattr__(self, "metric", known[self.metric.lower()])
        _piq()

    @property
    def higher_is_better(self) -> bool:
        """Whether a higher value means more alike."""
        return _METRICS[self.metric].higher_is_better

    @property
    def value_range(self) -> tuple[float, float]:
        """The least and the greatest value there can be."""
        return 0.0, _METRICS[self.metric].high

    @property
    def smallest(self) -> int:
        """The least side of a map."""
        return _METRICS[self.metric].smallest

    def _reference(self, maps: Tensor, limit: Tensor) -> Sides:
        return maps, (maps < 0).flatten(2).any(-1)[..., None, None]

    def _score(self, test: Tensor, limit: Tensor, sides: Sides) -> Tensor:
        shape, (maps, signed) = test.shape, sides
        dtype = torch.promote_types(test.dtype, maps.dtype)
        x, y = (
            _FiniteGradient.apply(to_unit(side, limit, signed).expand(shape).reshape(-1, 1, *shape[-2:]).contiguous())
            for side in (test.to(dtype), maps.to(dtype))
        )
        with strict_float32(test.device):
            values = self._values(x, y)
        low, high = self.value_range
        best, worst = (min(high, 1.0), low) if self.higher_is_better else (low, high)
        values = torch.where(values.isfinite(), values.clamp(low, high), worst).view(shape[:2])
        return torch.where((test == maps).flatten(2).all(-1), best, values)

    def _values(self, x: Tensor, y: Tensor) -> Tensor:
        """The metric of one-channel images; NaN where it breaks down."""
        metric = _METRICS[self.metric]
        if metric.alone and len(x) > 1:
            return torch.cat([self._values(a, b) for a, b in zip(x.split(1), y.split(1), strict=True)])
        function = getattr(_piq(), metric.function)
        try:
            with x.device:  # piq makes some of its constants on the default device
                values: Tensor = function(x, y, data_range=1.0, reduction="none", **metric.options)
        except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
            return x.new_full((len(x),), math.nan)
        except (RuntimeError, TypeError) as error:
            if is_recording() or is_batched(x):
                raise InputError(
                    f"{self.metric} of piq takes steps that depend on images, which torch.func.vmap, torch.jit.trace "
                    f"and torch.export cannot follow; compare a batch of maps (N, C, H, W) without them ({error})"
                ) from error
            raise
        return values.flatten()


class _FiniteGradient(torch.autograd.Function):
    """The identity, with a gradient of 0 where what comes back is infinite or NaN."""

    generate_vmap_rule = True

    @staticmethod
    def forward(images: Tensor) -> Tensor:
        return images.view_as(images)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return torch.where(gradient.isfinite(), gradient, 0.0)


def _piq() -> Any:
    try:
        import piq
    except ImportError as error:
        raise InputError("classical metrics on maps need the package piq: pip install 'fmiqa[peers]'") from error
    return piq
