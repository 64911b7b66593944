"""Any function of maps as a measure."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable
from dataclasses import KW_ONLY, dataclass
from functools import partial
from types import CellType, FunctionType, MethodType
from typing import Any, ClassVar

import numpy as np
from torch import Tensor, nn

from fmiqa._checks import is_number
from fmiqa._runtime.precision import at_least_float32
from fmiqa.errors import InputError
from fmiqa.features.checkpoints import fingerprint
from fmiqa.measures.base import check_maps, check_pair

__all__ = ["Custom"]


@dataclass(frozen=True)
class Custom:
    """Your own function as a measure.

    Its direction has to be said, for a selection cannot tell what is better. Saved results record the function's
    name, not its code: to go on from them, pass the same `Custom` again.

    Args:
        function: `(N, C, H, W), (N, C, H, W) -> (N, C)` of test and reference maps, in float32 or float64.
        higher_is_better: Whether a higher value means more alike.
        value_range: The least and the greatest value there can be.
        whole_layers: Whether a map's value depends on the layer's other maps.
        label: What results call it; by default the function's own name.

    Raises:
        InputError: No function; when it is called, a result that is not (N, C).

    Example:
        >>> import torch
        >>> def mean_difference(test, reference):
        ...     return (test - reference).mean((-2, -1)).abs()
        >>> measure = Custom(mean_difference, higher_is_better=False, value_range=(0, float("inf")))
        >>> measure(torch.ones(2, 3, 8, 8), torch.zeros(1, 3, 8, 8)).shape
        torch.Size([2, 3])
        >>> measure.options()["function"].endswith("mean_difference")
        True
    """

    function: Callable[[Tensor, Tensor], Tensor]
    _: KW_ONLY
    higher_is_better: bool
    value_range: tuple[float, float] = (-math.inf, math.inf)
    whole_layers: bool = False
    label: str | None = None

    name: ClassVar[str] = "custom"

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise InputError(f"function is (test, reference) -> values, got {self.function!r}")
        if not isinstance(self.higher_is_better, bool):
            raise InputError(f"higher_is_better is True or False, got {self.higher_is_better!r}")
        bounds = self.value_range
        if not (isinstance(bounds, tuple | list) and len(bounds) == 2 and all(is_number(v) for v in bounds)):
            raise InputError(f"value_range is the least and the greatest value, got {bounds!r}")

    def options(self) -> dict[str, Any]:
        """The function's name and what was said of it."""
        low, high = (None if math.isinf(v) else v for v in self.value_range)
        return {
            "name": self.name,
            "function": self._label,
            "higher_is_better": self.higher_is_better,
            "value_range": [low, high],
            "whole_layers": self.whole_layers,
        }

    @property
    def parameters_sha256(self) -> str:
        """Fingerprint of what the function holds: arguments bound to it, variables it closes over, weights."""
        return hashlib.sha256(repr(_held(self.function, set())).encode()).hexdigest()

    def __call__(self, test: Tensor, reference: Tensor) -> Tensor:
        """The function's value of each pair of maps.

        Args:
            test: (N, C, H, W) float.
            reference: (N, C, H, W) or (1, C, H, W) float; the function gets it repeated to N.

        Returns:
            (N, C).

        Raises:
            InputError: Shapes that do not go together, or a result that is not (N, C).
        """
        return self.compare(test, self.prepare(reference))

    def prepare(self, reference: Tensor) -> Tensor:
        """The reference maps, those in half precision widened to float32.

        Raises:
            InputError: Not (N, C, H, W).
        """
        check_maps(self._label, reference)
        return at_least_float32(reference)

    def compare(self, test: Tensor, prepared: Tensor) -> Tensor:
        """The function's values of test maps (N, C, H, W) and reference maps of N images or of one.

        Raises:
            InputError: Shapes that do not go together, or a result that is not (N, C).
        """
        check_maps(self._label, test)
        check_maps(self._label, prepared)
        check_pair(self._label, test, prepared.shape, prepared)
        values = self.function(at_least_float32(test), prepared.expand_as(test))
        if not isinstance(values, Tensor) or values.shape != test.shape[:2]:
            given = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
            raise InputError(
                f"{self._label} gave {given} of maps {tuple(test.shape)}; a measure gives one value a map, "
                f"{tuple(test.shape[:2])}"
            )
        return values

    @property
    def _label(self) -> str:
        function = self.function
        own = f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', type(function).__name__)}"
        return self.label or own


def _held(value: Any, above: set[int]) -> Any:
    """What a function or an object holds, as text and numbers whose `repr` is the same in every process."""
    if isinstance(value, int | float | complex | str | bytes | type(None)):
        return value
    if id(value) in above:
        return "..."
    above = above | {id(value)}

    def inside(values: Iterable[Any]) -> list[Any]:
        return [_held(item, above) for item in values]

    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    if isinstance(value, Tensor):
        return [kind, fingerprint({"": value})]
    if isinstance(value, np.ndarray | np.generic) and not value.dtype.hasobject:
        return [kind, str(value.dtype), value.shape, hashlib.sha256(value.tobytes()).hexdigest()]
    if isinstance(value, nn.Module):
        return [kind, repr(value), fingerprint(value.state_dict())]
    if isinstance(value, list | tuple):
        return [kind, inside(value)]
    if isinstance(value, set | frozenset):
        return [kind, sorted(map(repr, inside(value)))]
    if isinstance(value, dict):
        return [kind, [inside(item) for item in value.items()]]
    if isinstance(value, partial):
        return [kind, inside((value.func, value.args, value.keywords))]
    if isinstance(value, MethodType):
        return [kind, inside((value.__self__, value.__func__))]
    if isinstance(value, FunctionType):
        cells = [cell.cell_contents for cell in value.__closure__ or () if cell != CellType()]
        return [kind, value.__qualname__, inside((value.__defaults__, value.__kwdefaults__, cells))]
    if isinstance(value, type) or not hasattr(value, "__dict__"):
        return [kind, getattr(value, "__qualname__", None)]
    return [kind, inside([vars(value)])]
