"""Any function of maps as a measure."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

from torch import Tensor

from fmiqa.checks import is_number
from fmiqa.errors import InputError
from fmiqa.measures.base import check_maps, check_pair

__all__ = ["Custom"]


@dataclass(frozen=True)
class Custom:
    """Your own function as a measure.

    Its direction has to be said, for a selection cannot tell what is better. Saved results record the function's
    name, not its code: to go on from them, pass the same `Custom` again.

    Args:
        function: `(N, C, H, W), (N, C, H, W) -> (N, C)` of test and reference maps.
        higher_is_better: whether a higher value means more alike.
        value_range: the least and the greatest value there can be.
        whole_layers: whether a map's value depends on the layer's other maps.
        label: what results call it; by default the function's own name.

    Raises:
        InputError: no function; when it is called, a result that is not (N, C).

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

    def __call__(self, test: Tensor, reference: Tensor) -> Tensor:
        """The function's value of each pair of maps.

        Args:
            test: (N, C, H, W) float.
            reference: (N, C, H, W) or (1, C, H, W) float; the function gets it repeated to N.

        Returns:
            (N, C).

        Raises:
            InputError: shapes that do not go together, or a result that is not (N, C).
        """
        return self.compare(test, self.prepare(reference))

    def prepare(self, reference: Tensor) -> Tensor:
        """The reference maps as they are.

        Raises:
            InputError: not (N, C, H, W).
        """
        check_maps(self._label, reference)
        return reference

    def compare(self, test: Tensor, prepared: Tensor) -> Tensor:
        """The function's values of test maps (N, C, H, W) and reference maps of N images or of one.

        Raises:
            InputError: shapes that do not go together, or a result that is not (N, C).
        """
        check_maps(self._label, test)
        check_maps(self._label, prepared)
        check_pair(self._label, test, prepared.shape, prepared)
        values = self.function(test, prepared.expand_as(test))
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
