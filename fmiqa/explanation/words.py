"""What feature maps detect, in words that are computed: which of many simple stimuli excite a map most."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from fmiqa._runtime.precision import strict_float32
from fmiqa.explanation.stimuli import Stimulus, stimuli
from fmiqa.features.extractor import FeatureExtractor
from fmiqa.maps import FeatureMap, MapIndex
from fmiqa.metrics import SelectedFeatureIQM
from fmiqa.visualize.exemplars import native

__all__ = ["HOW", "Detected", "detected", "detected_by"]

NEAR = 0.9
"""Responses of at least this share of the strongest count as equally strong."""
_MOST = 0.75  # share of directions, or of pairs of colours, that stand for any
_BATCH = 64
_PLACES = 3  # positions a side, in the middle of a map, whose strongest response counts

HOW = (
    "The words are computed, not written by people. Each map is shown {count} simple stimuli at the scale at which the "
    "metric sees pictures: stripes, edges, checkers, spots, grain, plain colours, and colours against each other. It "
    "is named after those that excite it at least nine tenths as much as the strongest. Real pictures may excite a map "
    "by something that these stimuli lack."
)


@dataclass(frozen=True)
class Detected:
    """What a map responds to among the stimuli.

    Args:
        stimuli: The strongest stimulus of each kind whose response is near the strongest of all, strongest first. A
            direction or colours that make no difference are left out. Empty where the map responds to all alike.
        selectivity: The share of all stimuli that excite the map less than half as much as the strongest.
    """

    stimuli: tuple[Stimulus, ...]
    selectivity: float

    def words(self, scale: float = 1.0) -> str:
        """In words; `scale` as of `Stimulus.words`.

        Example:
            >>> Detected((Stimulus("grain", size=2.0), Stimulus("spots", ("dark",), size=3.0)), 0.8).words()
            'mixed: grain of about 2 pixels; dark spots about 3 pixels across'
        """
        if not self.stimuli:
            return "nothing that the stimuli have"
        named = [stimulus.words(scale) for stimulus in self.stimuli[:2]]
        if len(self.stimuli) == 1:
            return named[0]
        return f"mixed: {'; '.join(named)}{'; and others' * (len(self.stimuli) > 2)}"


_known: WeakKeyDictionary[SelectedFeatureIQM, tuple[str, tuple[Detected, ...]]] = WeakKeyDictionary()


def detected_by(metric: SelectedFeatureIQM) -> tuple[Detected, ...]:
    """What each map of a metric detects; found once for each metric and its weights.

    Example:
        >>> import fmiqa
        >>> found = detected_by(fmiqa.load_metric("fast"))
        >>> found[2].words()
        'checkers with squares of about 3 pixels'
    """
    state = repr(metric.source)  # with the fingerprints of the weights
    if metric not in _known or _known[metric][0] != state:
        by_map: dict[FeatureMap, Detected] = {}
        for source, extractor in metric.extractors.items():
            own = [replace(m, source="") for m in metric.maps if m.source == source]
            found = detected(extractor, own)
            by_map |= {replace(m, source=source): one for m, one in zip(own, found, strict=True)}
        _known[metric] = state, tuple(by_map[m] for m in metric.maps)
    return _known[metric][1]


def detected(extractor: FeatureExtractor, maps: Iterable[FeatureMap | str]) -> list[Detected]:
    """What each map of a network detects.

    A map's response to a stimulus is its strongest value in the middle of the pictures of it. Responses are counted
    from the weakest of all, so that maps before the ReLU can be described too.

    Args:
        extractor: The network; its viewing does not count, since stimuli are of the size that the network sees.
        maps: The maps.

    Example:
        >>> network = torch.nn.Sequential(torch.nn.Conv2d(3, 1, 1, bias=False))
        >>> network[0].weight.data = torch.tensor([2.0, -1.0, -1.0]).view(1, 3, 1, 1)  # red, less green and blue
        >>> detected(FeatureExtractor(network), ["0:0"])[0].words()
        'plain red'
    """
    chosen = MapIndex(maps)
    known, pictures, numbers = stimuli()
    responses = _responses(native(extractor), pictures, chosen)
    by_stimulus = torch.full((len(known), len(chosen)), -torch.inf, dtype=torch.float64, device="cpu")
    by_stimulus.scatter_reduce_(0, numbers[:, None].expand_as(responses), responses, "amax")
    weakest, strongest = by_stimulus.aminmax(dim=0)
    relative = (by_stimulus - weakest) / (strongest - weakest)  # NaN where all are alike
    return [_described(dict(zip(known, column, strict=True))) for column in relative.T.tolist()]


@torch.no_grad()
def _responses(extractor: FeatureExtractor, pictures: Tensor, maps: MapIndex) -> Tensor:
    """(P, M) the strongest value of each map in the middle of each picture."""
    channels, found = maps.channels, []
    with strict_float32(extractor.device):
        for batch in pictures.split(_BATCH):
            layers = extractor(batch.to(extractor.device), maps)
            peaks = {layer: _middle(values).amax((-2, -1)) for layer, values in layers.items()}
            found.append(torch.stack([peaks[m.layer][:, channels[m.layer].index(m.channel)] for m in maps], 1))
    return torch.cat(found).double().cpu()


def _middle(values: Tensor) -> Tensor:
    (top, rows), (left, columns) = (
        ((side - _PLACES) // 2, _PLACES) if side > _PLACES else (0, side) for side in values.shape[-2:]
    )
    return values[..., top : top + rows, left : left + columns]


def _described(relative: dict[Stimulus, float]) -> Detected:
    """What a map detects, by its responses to the stimuli as shares of the strongest."""
    near = {stimulus for stimulus, response in relative.items() if response >= NEAR}
    strongest: dict[str, Stimulus] = {}
    for stimulus in sorted(near, key=lambda one: -relative[one]):
        coloured = stimulus.kind.startswith("coloured")
        best = strongest.setdefault("coloured" if coloured else stimulus.kind, stimulus)
        if coloured and best.kind != stimulus.kind and best.colours == stimulus.colours:
            strongest["coloured"] = Stimulus("coloured", best.colours)
    weak = sum(response < 0.5 for response in relative.values())
    return Detected(tuple(_general(best, relative, near) for best in strongest.values()), weak / len(relative))


def _general(best: Stimulus, relative: Iterable[Stimulus], near: set[Stimulus]) -> Stimulus:
    """A stimulus without the direction, and without the colours, that make no difference."""
    same = [one for one in relative if one.kind == best.kind and one.size == best.size]
    if best.kind == "plain":  # names all colours, if they are few
        names = tuple(one.colours[0] for one in same if one in near)
        return replace(best, colours=names if len(names) <= 3 else ())
    turned = [one in near for one in same if one.colours == best.colours]
    coloured = [one in near for one in same if one.direction == best.direction]
    return replace(
        best,
        direction=None if len(turned) > 1 and sum(turned) >= _MOST * len(turned) else best.direction,
        colours=() if len(coloured) > 1 and sum(coloured) >= _MOST * len(coloured) else best.colours,
    )
