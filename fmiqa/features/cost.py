"""What feature maps cost: the part of a network that has to run for them.

A map of a deep layer needs all layers before it, and a second map of that layer needs nothing more. The cost of a set
is therefore the sum over the union of the operations that its maps need.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import lru_cache
from statistics import median
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor, nn

from fmiqa._checks import is_count, is_number
from fmiqa._runtime.precision import reduced, strict_float32
from fmiqa.errors import InputError
from fmiqa.features.extractor import FeatureExtractor
from fmiqa.features.graph import Operation, operations_for, run_operation, walk, without_values
from fmiqa.features.networks import NETWORKS, blank_network, layer_paths
from fmiqa.features.tracing import trace_layers
from fmiqa.features.viewing import Viewing
from fmiqa.maps import FeatureMap, MapIndex

if TYPE_CHECKING:
    from fmiqa.scoring.matrix import ScoreMatrix

__all__ = ["Costs", "Unit", "layer_costs"]

Unit = Literal["multiplications", "milliseconds"]
"""`multiplications`: those of convolutions and matrix products, counted; `milliseconds`: measured."""

_RUNS = 5  # of the network, whose median time is taken, after one that is not counted


@dataclass(frozen=True)
class Costs:
    """What sets of feature maps cost, for one image.

    Costs are made by `Costs.of_network`, `Costs.of_matrix` and `Costs.joined`, or given part by part. They count whole
    layers: a metric that needs only some filters of its deepest layers costs a little less.

    Args:
        parts: The cost of each part of the work by name, such as each convolution of a network.
        needs: The names of the parts that the maps of a layer need, by layer: `"conv1"`, or `"half/conv1"` for that of
            a source.
        unit: What is counted.
        size: (height, width) of the images that the costs are of, before they are resized; for the record.

    Raises:
        InputError: A cost is negative or not finite, all are 0, or a layer needs a part that has no cost.

    Example:
        >>> costs = Costs({"a": 2, "b": 5, "c": 3}, {"conv1": ["a"], "left": ["a", "b"], "right": ["a", "c"]})
        >>> costs.of(["left:0", "left:1"]), costs.of(["left:0", "right:7"]), costs.all
        (7.0, 10.0, 10.0)
        >>> costs.share(["conv1:3"])
        0.2
    """

    parts: Mapping[str, float]
    needs: Mapping[str, Iterable[str]]
    unit: str = "multiplications"
    size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        for name, given in (("parts", self.parts), ("needs", self.needs)):
            if not isinstance(given, Mapping) or not all(isinstance(key, str) for key in given):
                raise InputError(f"{name} is a mapping from names, as in {{'conv1': ...}}, got {given!r}")
        wrong = {part: cost for part, cost in self.parts.items() if not (is_number(cost) and 0 <= cost < math.inf)}
        if wrong or not any(self.parts.values()):
            raise InputError(f"costs are finite numbers of at least 0, and not all 0; got {wrong or dict(self.parts)}")
        listed = {layer: frozenset([parts] if isinstance(parts, str) else parts) for layer, parts in self.needs.items()}
        unknown = sorted(set().union(*listed.values()) - set(self.parts)) if listed else []
        if unknown or not listed:
            raise InputError(
                f"needs names the parts that each layer needs, of {', '.join(self.parts)}; "
                f"got {', '.join(map(repr, unknown)) or 'no layer'}"
            )
        object.__setattr__(self, "parts", MappingProxyType(dict(self.parts)))
        object.__setattr__(self, "needs", MappingProxyType(listed))

    def __hash__(self) -> int:
        return hash((frozenset(self.parts.items()), frozenset(self.needs.items()), self.unit))

    def __reduce__(self) -> tuple[Any, ...]:
        return Costs, (dict(self.parts), dict(self.needs), self.unit, self.size)

    @classmethod
    def of_network(
        cls, network: FeatureExtractor | str, size: tuple[int, int] = (384, 512), *, unit: Unit = "multiplications"
    ) -> Costs:
        """The costs of a network's layers.

        Args:
            network: A `FeatureExtractor`, whose viewing resizes the images, or the name of a network, which sees
                images as they are. A name needs no weights.
            size: (height, width) of the images.
            unit: `"multiplications"` of convolutions and matrix products, or `"milliseconds"`, measured operation by
                operation on the extractor's device, with the current number of threads: medians of a few runs.

        Raises:
            InputError: The network or unit is unknown, the size is none or too small for the network, or milliseconds
                are asked of a network that is only named.
        """
        if unit not in get_args(Unit):
            raise InputError(f"unit is one of {', '.join(get_args(Unit))}, got {unit!r}")
        height, width = _checked_size(size)
        if isinstance(network, str):
            if unit == "milliseconds":
                raise InputError(
                    f"milliseconds are measured on a network that can run, got the name {network!r}; give "
                    f"fmiqa.FeatureExtractor({network!r})"
                )
            return _of_name(network, height, width, (height, width))
        if not isinstance(network, FeatureExtractor):
            raise InputError(
                f"network is a fmiqa.FeatureExtractor or one of {', '.join(NETWORKS)}, got {type(network).__name__}"
            )
        operations = network.operations()
        if unit == "milliseconds":
            parts = _milliseconds(network, operations, (height, width))
        else:
            parts = _multiplications(network.network, operations, network.viewing.size(height, width), network.dtype)
        return cls(parts, _needs(operations, parts), unit, (height, width))

    @classmethod
    def of_matrix(cls, matrix: ScoreMatrix, size: tuple[int, int] = (384, 512)) -> Costs:
        """The multiplications of the layers of a score matrix, from the networks and viewings that it records.

        The networks of a joined matrix share nothing, also where two sources have the same one.

        Args:
            matrix: Scores of maps of networks that have a name.
            size: (height, width) of the images.

        Raises:
            InputError: The matrix records no network, or one that has no name; the size is none or too small.
        """
        height, width = _checked_size(size)
        sources: Mapping[str, Mapping[str, Any]] = matrix.options.get("sources") or {"": matrix.options}
        found: dict[str, Costs] = {}
        for source, options in sources.items():
            layers = MapIndex(m for m in matrix.maps if m.source == source).layers
            if not layers:
                continue
            name = options.get("network")
            if name not in NETWORKS:
                what = f"the network {name!r}, which has no name in fmiqa," if name else "no network"
                raise InputError(
                    f"the scores{f' of source {source!r}' if source else ''} record {what} to count multiplications "
                    "of; pass costs=, such as fmiqa.Costs.of_network(extractor), or fmiqa.Costs.joined({source: ...}) "
                    "for several sources"
                )
            seen = Viewing(**(options.get("viewing") or {})).size(height, width)
            costs = _of_name(name, *seen, (height, width))
            found[source] = costs.keep([layer.removeprefix(f"{source}/") if source else layer for layer in layers])
        return found[""] if set(found) == {""} else cls.joined(found)

    @classmethod
    def joined(cls, costs: Mapping[str, Costs]) -> Costs:
        """The costs of several sources side by side, which share nothing.

        Args:
            costs: Source name -> its costs; layers are then called `"source/layer"`.

        Raises:
            InputError: There are none, or they differ in unit.
        """
        if not isinstance(costs, Mapping) or not all(isinstance(own, Costs) for own in costs.values()):
            raise InputError("expected a mapping from source names to Costs, as in {'half': costs}")
        units = sorted({own.unit for own in costs.values()})
        if len(units) != 1:
            raise InputError(f"costs of one unit can be joined, got {' and '.join(units) or 'none'}")
        sizes = {own.size for own in costs.values()}
        return cls(
            {f"{source}/{part}": cost for source, own in costs.items() for part, cost in own.parts.items()},
            {
                f"{source}/{layer}": [f"{source}/{part}" for part in parts]
                for source, own in costs.items()
                for layer, parts in own.needs.items()
            },
            units[0],
            sizes.pop() if len(sizes) == 1 else None,
        )

    def keep(self, layers: Iterable[str]) -> Costs:
        """The costs of some of the layers; `all` is then what these need.

        Raises:
            InputError: A layer is unknown.
        """
        kept = list(layers)
        self._check(kept)
        return Costs(self.parts, {layer: self.needs[layer] for layer in kept}, self.unit, self.size)

    def of(self, maps: Iterable[FeatureMap | str]) -> float:
        """What a set of maps costs: layers are paid once, and nothing is paid for no maps.

        Raises:
            InputError: A map's layer is unknown.
        """
        return self.of_layers(MapIndex(maps).layers)

    def of_layers(self, layers: Iterable[str]) -> float:
        """What all maps of some layers cost.

        Raises:
            InputError: A layer is unknown.
        """
        asked = list(layers)
        self._check(asked)
        needed = frozenset[str]().union(*(self.needs[layer] for layer in asked))
        return math.fsum(self.parts[part] for part in needed)  # the same in any order, also of measured times

    @property
    def all(self) -> float:
        """What all maps of all layers cost."""
        return self.of_layers(self.needs)

    def share(self, maps: Iterable[FeatureMap | str]) -> float:
        """What a set of maps costs, as a share of `all`: from 0 to 1.

        Raises:
            InputError: A map's layer is unknown.
        """
        return self.of(maps) / self.all

    @property
    def layers(self) -> dict[str, float]:
        """What the maps of each layer cost, by layer."""
        return {layer: self.of_layers([layer]) for layer in self.needs}

    def to_dict(self) -> dict[str, Any]:
        """A short summary for JSON: the unit, the size of the images, and what all maps cost."""
        return {"unit": self.unit, "size": None if self.size is None else list(self.size), "all": self.all}

    def __repr__(self) -> str:
        return f"Costs({len(self.needs)} layers, {self.all:.6g} {self.unit})"

    def _check(self, layers: Iterable[str]) -> None:
        unknown = [layer for layer in layers if layer not in self.needs]
        if unknown:
            raise InputError(f"costs are known of {', '.join(self.needs)}; got {', '.join(map(str, unknown))}")


def layer_costs(
    network: FeatureExtractor | str, size: tuple[int, int] = (384, 512), *, unit: Unit = "multiplications"
) -> dict[str, float]:
    """What it costs to have the maps of each layer of a network, for one image: all that has to run up to there.

    Args:
        network: A `FeatureExtractor`, whose viewing resizes the images, or the name of a network, which sees images as
            they are and needs no weights.
        size: (height, width) of the images.
        unit: `"multiplications"` of convolutions and matrix products, or `"milliseconds"`, measured on the extractor's
            device.

    Returns:
        layer -> cost. The costs of two layers do not add up, because they share what runs before both: see `Costs`.

    Raises:
        InputError: As in `Costs.of_network`.

    Example:
        >>> costs = layer_costs("alexnet", (224, 224))
        >>> costs["conv1"] == 55 * 55 * 64 * 3 * 11 * 11
        True
        >>> costs["conv2"] - costs["conv1"] == 27 * 27 * 192 * 64 * 5 * 5
        True
    """
    return Costs.of_network(network, size, unit=unit).layers


@lru_cache(maxsize=256)
def _of_name(name: str, height: int, width: int, size: tuple[int, int]) -> Costs:
    """The multiplications of a named network that sees images of height x width."""
    module = blank_network(name)
    names, head = layer_paths(module)
    network, layers = trace_layers(module, "relu", names=names, head=head)
    maps = MapIndex.of_layers({layer.name: layer.channels for layer in layers.values()})
    operations = operations_for(network, layers.values(), maps)
    parts = _multiplications(network, operations, (height, width), torch.float32)
    return Costs(parts, _needs(operations, parts), "multiplications", size)


def _needs(operations: Iterable[Operation], parts: Mapping[str, float]) -> dict[str, frozenset[str]]:
    """The operations that have a cost and run for each layer, by layer."""

    def needed(operation: Operation, values: Mapping[str, frozenset[str]]) -> frozenset[str]:
        own = [operation.name] if operation.name in parts else []
        return frozenset(own).union(*(values[name] for name in operation.inputs))

    return {layer.name: names for operation, names in walk(operations, needed) for layer, _ in operation.outputs}


def _multiplications(
    network: nn.Module, operations: Iterable[Operation], size: tuple[int, int], dtype: torch.dtype
) -> dict[str, float]:
    """The multiplications of each operation that has any, by its name, without computing anything."""
    from torch.utils.flop_counter import FlopCounterMode

    images = torch.empty(1, 3, *size, dtype=dtype, device="meta")
    blank = without_values(network)
    found: dict[str, float] = {}

    def counted(operation: Operation, values: Mapping[str, Tensor]) -> Tensor:
        with FlopCounterMode(display=False) as counter:
            value: Tensor = run_operation(blank, images, operation, values)
        if counter.get_total_flops():
            found[operation.name] = counter.get_total_flops() // 2  # it counts multiplications and additions
        return value

    with torch.no_grad():
        for _ in walk(operations, counted):
            pass
    return found


def _milliseconds(
    extractor: FeatureExtractor, operations: Iterable[Operation], size: tuple[int, int]
) -> dict[str, float]:
    """The time of each operation, by its name, in the precision that the extractor computes in."""
    device, precision = extractor.device, extractor.precision
    images = extractor.normalize(torch.full((1, 3, *size), 0.5, device=device))
    found: dict[str, list[float]] = {}

    def timed(operation: Operation, values: Mapping[str, Tensor]) -> Tensor:
        start = time.perf_counter()
        value: Tensor = run_operation(extractor.network, images, operation, values)
        if device.type != "cpu":
            torch.accelerator.synchronize(device)
        found.setdefault(operation.name, []).append(1000 * (time.perf_counter() - start))
        return value

    cast = nullcontext() if precision == "float32" else reduced(device, precision)
    with torch.no_grad(), strict_float32(device), cast:
        for _ in range(1 + _RUNS):
            for _ in walk(operations, timed):
                pass
    return {name: median(times[1:]) for name, times in found.items()}


def _checked_size(size: tuple[int, int]) -> tuple[int, int]:
    if not isinstance(size, tuple | list) or len(size) != 2 or not all(is_count(side) for side in size):
        raise InputError(f"size is (height, width) of the images in pixels, such as (384, 512), got {size!r}")
    return int(size[0]), int(size[1])
