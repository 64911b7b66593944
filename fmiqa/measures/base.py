"""What a measure is: it compares feature maps of a test image with those of its reference, map by map."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from fmiqa._checks import CONVERTERS, channels_first, check_tensor, is_positive, is_recording
from fmiqa._runtime.precision import at_least_float32
from fmiqa.errors import InputError

__all__ = [
    "DataRange",
    "LocalMeasure",
    "MapMeasure",
    "Measure",
    "Prepared",
    "Sides",
    "check_data_range",
    "check_maps",
    "check_pair",
    "check_prepared",
    "limit_of",
    "local_measure",
]

DataRange = float | Literal["reference", "pair", "layer"]
"""The extent L of a map's values. A number; or `"reference"`, each reference map's largest magnitude; `"pair"`, the
larger of both maps'; `"layer"`, the largest magnitude in the reference's layer. A magnitude of 0 (under 1e-12, whose
square is lost) counts as 1."""

Sides = tuple[Tensor, ...]

_DEAD = 1e-12
_PIECE = {"cpu": 2**20}  # elements of maps worked on at once: what stays in cache, or fills a GPU
_PIECE_ELSEWHERE = 2**26


class Measure(Protocol):
    """Compares maps: `(N, C, H, W), (N, C, H, W) -> (N, C)`.

    The reference side is prepared once and compared with many test images. Metrics hand over maps in float32 or
    float64: those of networks in half precision are widened.
    """

    @property
    def name(self) -> str:
        """As options and saved results write it."""

    @property
    def higher_is_better(self) -> bool:
        """Whether a higher value means more alike."""

    @property
    def value_range(self) -> tuple[float, float]:
        """The least and the greatest value there can be, infinite where there is no bound."""

    @property
    def whole_layers(self) -> bool:
        """Whether a map's value depends on the layer's other maps, so that all of them must be computed."""

    def options(self) -> dict[str, Any]:
        """The settings that define the measure, as JSON can hold them."""

    def prepare(self, reference: Tensor) -> Any:
        """What a comparison needs of the reference maps (N or 1, C, H, W)."""

    def compare(self, test: Tensor, prepared: Any) -> Tensor:
        """Compare test maps (N, C, H, W) with prepared reference maps of N images or of one: (N, C)."""


class LocalMeasure(Measure, Protocol):
    """A measure that rises to a best value and is the mean of local values."""

    def local(self, test: Tensor, reference: Tensor) -> Tensor:
        """The values at each window of test maps (N, C, H, W) and reference maps (N or 1, C, H, W): (N, C, H', W')."""


class Prepared(NamedTuple):
    """The reference side of a `MapMeasure`."""

    shape: tuple[int, ...]  # of the maps, (N or 1, C, H, W)
    peak: Tensor  # (N or 1, C or 1, 1, 1), the data range or the largest magnitude
    sides: Sides  # what the measure made of the maps


class MapMeasure(ABC):
    """A measure that takes maps some channels at a time; its options are the fields of a frozen dataclass.

    It says in `_reference` what is computed of reference maps once, and in `_score` how test maps are compared. Both
    are given the limit L that `data_range` stands for, (N or 1, C or 1, 1, 1); where that is no option, it is 1.
    """

    name: ClassVar[str]
    data_range: DataRange = 1.0
    _held: ClassVar[int] = 1  # raised where a comparison holds several times the memory of the maps beside them

    @property
    def higher_is_better(self) -> bool:
        """Whether a higher value means more alike."""
        return True

    @property
    @abstractmethod
    def value_range(self) -> tuple[float, float]:
        """The least and the greatest value there can be."""

    @property
    def whole_layers(self) -> bool:
        """Whether a map's value depends on the layer's other maps."""
        return self.data_range == "layer"

    @property
    def tile_window(self) -> int | None:
        """Side of the windows whose mean the value is, so that large images can be scored in tiles; else None."""
        return None

    @property
    def smallest(self) -> int:
        """The least side of a map."""
        return 1

    @abstractmethod
    def _reference(self, maps: Tensor, limit: Tensor) -> Sides:
        """What is computed once of reference maps: tensors (N or 1, C, ...); the limit is that of the reference."""

    @abstractmethod
    def _score(self, test: Tensor, limit: Tensor, sides: Sides) -> Tensor:
        """(N, C) of test maps (N, C, H, W) and what `_reference` gave."""

    def __post_init__(self) -> None:
        check_data_range(self.data_range)

    def options(self) -> dict[str, Any]:
        """The settings that define the measure."""
        return {"name": self.name, **asdict(self)}  # type: ignore[call-overload]

    def __call__(self, test: Tensor, reference: Tensor) -> Tensor:
        """The value of each pair of maps.

        Args:
            test: (N, C, H, W) float.
            reference: (N, C, H, W) or (1, C, H, W) float.

        Returns:
            (N, C), within `value_range`; float32 for maps in half precision, which are compared in float32.

        Raises:
            InputError: Shapes that do not go together, or maps that are too small.
        """
        return self.compare(test, self.prepare(reference))

    def prepare(self, reference: Tensor) -> Prepared:
        """The reference side, to be compared with any number of test images.

        Raises:
            InputError: Not (N, C, H, W), or maps that are too small.
        """
        self._check(reference)
        reference = at_least_float32(reference)
        if isinstance(self.data_range, str):
            peak = reference.abs().amax((1, 2, 3) if self.data_range == "layer" else (2, 3), keepdim=True)
        else:
            peak = reference.new_full((1, 1, 1, 1), self.data_range)
        sides = self._in_pieces(self._reference, reference, limit_of(peak))
        return Prepared(tuple(reference.shape), peak, sides)

    def compare(self, test: Tensor, prepared: Prepared) -> Tensor:
        """Compare test maps (N, C, H, W) with prepared reference maps of N images or of one.

        Raises:
            InputError: Shapes that do not go together.
        """
        limit = self._limit_of_pair(test, prepared)
        test = at_least_float32(test)
        scores = self._in_pieces(lambda x, *sides: (self._score(x, sides[0], sides[1:]),), test, limit, *prepared.sides)
        return scores[0]

    def _limit_of_pair(self, test: Tensor, prepared: Prepared) -> Tensor:
        check_prepared(self.name, prepared, Prepared)
        self._check(test)
        check_pair(self.name, test, prepared.shape, prepared.peak)
        if self.data_range != "pair":
            return limit_of(prepared.peak)
        return limit_of(torch.maximum(prepared.peak, test.abs().amax((-2, -1), keepdim=True)))

    def _check(self, maps: Tensor) -> None:
        check_maps(self.name, maps)
        height, width = maps.shape[-2:]
        if min(height, width) < self.smallest:
            raise InputError(
                f"maps of {width}x{height} are too small for {self!r}, which needs sides of at least "
                f"{self.smallest}; give larger images, or leave this layer and those like it out (layers=..., maps=...)"
            )

    def _in_pieces(
        self, function: Callable[..., tuple[Tensor, ...]], maps: Tensor, *sides: Tensor
    ) -> tuple[Tensor, ...]:
        """The function of so many channels at a time that what it holds stays small."""
        if is_recording():
            return function(maps, *sides)
        n, c, h, w = maps.shape
        budget = _PIECE.get(maps.device.type, _PIECE_ELSEWHERE) // self._held
        step = max(1, budget // (n * h * w))
        if step >= c:
            return function(maps, *sides)
        given = (maps, *sides)
        parts = [
            function(*(t if t.shape[1] == 1 else t[:, first : first + step] for t in given))
            for first in range(0, c, step)
        ]
        return tuple(torch.cat(part, 1) for part in zip(*parts, strict=True))


def check_maps(name: str, maps: Tensor) -> None:
    """Raise `InputError` unless maps are a float tensor (N, C, H, W) that is not empty."""
    check_tensor(maps, f"{name}: maps (N, C, H, W)", advice=f"convert maps with torch.as_tensor(...); {CONVERTERS}")
    if maps.ndim != 4 or not maps.is_floating_point() or 0 in maps.shape:
        advice = channels_first(maps) if maps.ndim == 3 else ""  # four dimensions may be maps 3 wide
        raise InputError(f"{name} compares float maps (N, C, H, W), got {tuple(maps.shape)} of {maps.dtype}{advice}")


def check_pair(name: str, test: Tensor, reference: tuple[int, ...], prepared: Tensor) -> None:
    """Raise `InputError` unless test maps go with reference maps of a shape and what was prepared of them."""
    if test.device != prepared.device:
        raise InputError(
            f"{name}: test maps are on {test.device}, reference maps on {prepared.device}; move them to one device"
        )
    if test.shape[1:] != reference[1:] or reference[0] not in (1, test.shape[0]):
        raise InputError(
            f"{name} compares maps of one shape: test {tuple(test.shape)}, reference {tuple(reference)} "
            "(the reference may be one image for all)"
        )


def check_prepared(name: str, prepared: object, kind: type) -> None:
    """Raise `InputError` unless the reference side is what the measure's `prepare` gives."""
    if not isinstance(prepared, kind):
        raise InputError(
            f"{name}: compare() takes what prepare(reference) gave, got {type(prepared).__name__}; call the "
            "measure with (test, reference) to compare two tensors"
        )


def local_measure(measure: Measure) -> LocalMeasure:
    """The measure itself, if its value is the mean of local ones.

    Raises:
        InputError: It compares whole maps.
    """
    # GMSD knows local similarities too, but its value is how unlike they are: where it is lost is not known.
    if hasattr(measure, "local") and measure.higher_is_better and measure.value_range[1] < math.inf:
        return measure  # type: ignore[return-value]
    raise InputError(
        f"the measure {measure.name} gives a map one value and does not say where it was lost, so that there is no "
        "error map; take a metric that compares maps by 'ssim' or 'gms'"
    )


def check_data_range(data_range: DataRange) -> None:
    """Raise `InputError` unless `data_range` is a positive number or one of the rules."""
    named = isinstance(data_range, str) and data_range in ("reference", "pair", "layer")
    if not named and not is_positive(data_range):
        raise InputError(f"data_range is a positive number, 'reference', 'pair' or 'layer', got {data_range!r}")


def mean_similarity(similarity: Tensor, dims: int | tuple[int, ...]) -> Tensor:
    """The mean of similarities, exactly 1 where all of them are: CUDA's mean of 41 ones is .99999994."""
    return 1 - (1 - similarity).mean(dims)


def limit_of(peak: Tensor) -> Tensor:
    """L for largest magnitudes."""
    return torch.where(peak > _DEAD, peak, 1.0)
