"""Feature maps by name: `FeatureMap`, its text form, and `MapIndex`, an ordered set of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import overload

from fmiqa.errors import InputError

__all__ = ["FeatureMap", "MapIndex"]


@dataclass(frozen=True, order=True)
class FeatureMap:
    """One channel of one convolutional layer.

    Args:
        layer: The layer's name, `"conv1"` or a module path.
        channel: The channel, counted from 0.
        source: Names the network and scale where maps of several stand side by side, empty where there is one.

    Raises:
        InputError: The layer name is empty or has a "/", or the channel is not a whole number from 0.

    Example:
        >>> FeatureMap.parse("conv1:27")
        FeatureMap(layer='conv1', channel=27, source='')
        >>> str(FeatureMap("conv1", 27))
        'conv1:27'
        >>> FeatureMap.parse("half/conv1:27").source
        'half'
    """

    layer: str
    channel: int
    source: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.layer, str) or not self.layer or "/" in self.layer:
            raise InputError(f"a feature map needs a layer name such as 'conv1', without '/', got {self.layer!r}")
        if not isinstance(self.source, str):
            raise InputError(f"a source is the name of a network, got {self.source!r} for layer {self.layer!r}")
        if not isinstance(self.channel, int) or isinstance(self.channel, bool) or self.channel < 0:
            raise InputError(f"a channel is a whole number from 0, got {self.channel!r} for layer {self.layer!r}")

    @classmethod
    def parse(cls, text: str | FeatureMap) -> FeatureMap:
        """Read the text form `"layer:channel"` or `"source/layer:channel"`; a `FeatureMap` comes back as it is.

        Raises:
            InputError: The text is not of that form.
        """
        if isinstance(text, FeatureMap):
            return text
        layer, colon, channel = text.rpartition(":") if isinstance(text, str) else ("", "", "")
        if not (colon and layer and channel.isdecimal()):
            raise InputError(f"a feature map is written 'layer:channel', as in 'conv1:27', got {text!r}")
        source, slash, layer = layer.rpartition("/")
        if slash and not source:
            raise InputError(f"a feature map of a source is written 'source/layer:channel', got {text!r}")
        return cls(layer, int(channel), source)

    @property
    def place(self) -> str:
        """The layer, with its source where there is one: `"conv1"`, `"half/conv1"`."""
        return f"{self.source}/{self.layer}" if self.source else self.layer

    def __str__(self) -> str:
        return f"{self.place}:{self.channel}"


class MapIndex(Sequence[FeatureMap]):
    """An ordered sequence of distinct feature maps: the columns of a score matrix, or a selected set.

    Args:
        maps: Feature maps or their text forms, in order.

    Raises:
        InputError: A map is malformed or listed twice.

    Example:
        >>> maps = MapIndex.of_layers({"conv1": 64, "conv2": 192})
        >>> len(maps), str(maps[65]), maps.index("conv2:1")
        (256, 'conv2:1', 65)
        >>> MapIndex(["conv1:3", "conv2:0"]).channels
        {'conv1': [3], 'conv2': [0]}
    """

    def __init__(self, maps: Iterable[FeatureMap | str]) -> None:
        _check_listed(maps)
        self._maps = tuple(FeatureMap.parse(m) for m in maps)
        self._position = {m: i for i, m in enumerate(self._maps)}
        self._hash = hash(self._maps)
        if len(self._position) < len(self._maps):
            twice = next(m for i, m in enumerate(self._maps) if self._position[m] != i)
            raise InputError(f"feature map {twice} is listed twice; each map may be named once")

    @classmethod
    def of_layers(cls, channels: Mapping[str, int]) -> MapIndex:
        """All maps of the given layers, layer by layer: `{"conv1": 64, ...}`."""
        if not isinstance(channels, Mapping) or not all(isinstance(n, int) and n >= 0 for n in channels.values()):
            raise InputError(f"expected layer -> number of channels, as in {{'conv1': 64}}, got {channels!r}")
        return cls(FeatureMap(layer, c) for layer, count in channels.items() for c in range(count))

    @property
    def channels(self) -> dict[str, list[int]]:
        """The channels of each layer, layers and channels in order of first appearance."""
        grouped: dict[str, list[int]] = {}
        for m in self._maps:
            grouped.setdefault(m.place, []).append(m.channel)
        return grouped

    @property
    def layers(self) -> list[str]:
        """The layers, in order of first appearance."""
        return list(self.channels)

    def positions(self, maps: Iterable[FeatureMap | str]) -> list[int]:
        """The position of each given map.

        Raises:
            InputError: Naming every map that is not in this index.
        """
        _check_listed(maps)
        wanted = [FeatureMap.parse(m) for m in maps]
        missing = [str(m) for m in wanted if m not in self._position]
        if missing:
            raise InputError(
                f"no such feature map: {', '.join(missing[:10])}{' ...' if len(missing) > 10 else ''}; "
                f"there are {self._summary()}"
            )
        return [self._position[m] for m in wanted]

    def at(self, positions: Iterable[int]) -> MapIndex:
        """The maps at the given positions, in that order."""
        try:
            return MapIndex(self._maps[i] for i in positions)
        except (IndexError, TypeError) as error:
            raise InputError(f"positions are whole numbers below {len(self)}, got {positions!r}") from error

    def index(self, value: FeatureMap | str, start: int = 0, stop: int | None = None) -> int:
        """The position of one map.

        Raises:
            InputError: The map is not here, or not between `start` and `stop`.
        """
        (position,) = self.positions([value])
        if position not in range(*slice(start, stop).indices(len(self))):
            raise InputError(f"feature map {value} is at position {position}, outside [{start}:{stop}]")
        return position

    def _summary(self) -> str:
        counts = ", ".join(f"{layer} ({len(channels)})" for layer, channels in self.channels.items())
        return f"{len(self)} maps: {counts or 'none'}"

    @overload
    def __getitem__(self, item: int) -> FeatureMap: ...
    @overload
    def __getitem__(self, item: slice) -> MapIndex: ...
    def __getitem__(self, item: int | slice) -> FeatureMap | MapIndex:
        return MapIndex(self._maps[item]) if isinstance(item, slice) else self._maps[item]

    def __len__(self) -> int:
        return len(self._maps)

    def __iter__(self) -> Iterator[FeatureMap]:
        return iter(self._maps)

    def __contains__(self, item: object) -> bool:
        if isinstance(item, str):
            item = FeatureMap.parse(item)
        return isinstance(item, FeatureMap) and item in self._position

    def __eq__(self, other: object) -> bool:
        return isinstance(other, MapIndex) and self._maps == other._maps

    def __hash__(self) -> int:
        return self._hash

    def __repr__(self) -> str:
        if len(self) <= 12:
            return f"MapIndex([{', '.join(repr(str(m)) for m in self)}])"
        return f"MapIndex({self._summary()})"


def _check_listed(maps: object) -> None:
    if isinstance(maps, str):
        raise InputError(f"expected a list of feature maps, got the text {maps!r}; write [{maps!r}]")
    try:
        iter(maps)  # type: ignore[call-overload]
    except TypeError:
        raise InputError(f"expected a list of feature maps such as ['conv1:27'], got {maps!r}") from None
