"""What a measure is: it compares feature maps of a test image with those of its reference, map by map."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor

__all__ = ["Measure"]


class Measure(Protocol):
    """Compares maps: `(N, C, H, W), (N, C, H, W) -> (N, C)`.

    The reference side is prepared once and compared with many test images.
    """

    @property
    def name(self) -> str:
        """As options and saved results write it."""

    @property
    def higher_is_better(self) -> bool:
        """Whether a higher value means more alike."""

    @property
    def whole_layers(self) -> bool:
        """Whether a map's value depends on the layer's other maps, so that all of them must be computed."""

    def options(self) -> dict[str, Any]:
        """The settings that define the measure, as JSON can hold them."""

    def prepare(self, reference: Tensor) -> Any:
        """What a comparison needs of the reference maps (N or 1, C, H, W)."""

    def compare(self, test: Tensor, prepared: Any) -> Tensor:
        """Compare test maps (N, C, H, W) with prepared reference maps of N images or of one: (N, C)."""
