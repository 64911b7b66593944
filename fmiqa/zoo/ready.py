"""Ready-made metrics as modules: a selection with its networks, and a rating from 0 to 100."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from fmiqa._io import load_tensors
from fmiqa._tables import text_table
from fmiqa._version import __version__
from fmiqa.errors import InputError, WeightsError
from fmiqa.features.extractor import FeatureExtractor
from fmiqa.features.viewing import Viewing
from fmiqa.metrics import SelectedFeatureIQM
from fmiqa.scoring.matrix import sources_of
from fmiqa.scoring.scorer import PreparedImages
from fmiqa.zoo.card import FOLDER, Card, in_words

__all__ = ["WEIGHTS_KIND", "WORDS", "Rating", "ReadyMetric", "load_metric", "metric_of"]

WEIGHTS_KIND = "fmiqa weights 1"

WORDS = ("very annoying", "annoying", "slightly annoying", "perceptible, but not annoying", "imperceptible")
"""The impairment scale of Recommendation ITU-R BT.500, for ratings from 0, 20, 40, 60 and 80. The observers of the data
sets were not asked in these words: they help to read a rating."""

Weights = str | os.PathLike[str] | Mapping[str, Tensor] | None


@dataclass(frozen=True)
class Rating:
    """Ratings of N test images, from 0 (the worst of the data that the metric was fitted to) to 100 (no difference).

    Args:
        score: (N,).
        low: (N,) lower end of the interval that held nine of ten mean opinions on held-out references of TID2013-R.
        high: (N,) upper end.
        words: The impairment of each image in words, see `WORDS`.

    Example:
        >>> print(Rating(torch.tensor([81.2, 35.0]), torch.tensor([70.0, 21.0]), torch.tensor([92.0, 50.0]),
        ...              ("imperceptible", "annoying")))
        rating  interval  words
        81      70 to 92  imperceptible
        35      21 to 50  annoying
    """

    score: Tensor
    low: Tensor
    high: Tensor
    words: tuple[str, ...]

    def __str__(self) -> str:
        ends = zip(self.score.tolist(), self.low.tolist(), self.high.tolist(), self.words, strict=True)
        rows = [(f"{score:.0f}", f"{low:.0f} to {high:.0f}", words) for score, low, high, words in ends]
        return text_table([("rating", "interval", "words"), *rows])


class ReadyMetric(SelectedFeatureIQM):
    """A metric that ships with the package; `load_metric` makes it.

    It is a `SelectedFeatureIQM`: differentiable, batched, higher = better; at most 1, which an image and itself have.

    Attributes:
        card: What is known about the metric.
    """

    def __init__(self, card: Card, models: Mapping[str, FeatureExtractor]) -> None:
        selection = card.selection
        super().__init__(
            dict(models),
            selection.maps,
            measure={source: options["measure"] for source, options in selection.sources.items()},
            pool=selection.pool,
            weights=selection.weights,
            power=selection.power,
        )
        self.card = card

    @property
    def signature(self) -> str:
        """The metric in a line, for a footnote: name, version, viewing, networks.

        Example:
            >>> load_metric("fast").signature.split(",")[0]
            'fmiqa fast 1.0'
        """
        seen = {source: in_words(options["viewing"]) for source, options in sources_of(self.source).items()}
        views = "; ".join(f"{source}: {view}" for source, view in seen.items())
        return (
            f"fmiqa {self.card.name} {self.card.version}, {len(self.maps)} maps of {' and '.join(self.card.networks)}, "
            f"{views} (fmiqa {__version__})"
        )

    @torch.no_grad()
    def rate(self, test: Tensor, reference: Tensor | Sequence[PreparedImages]) -> Rating:
        """Rate test images from 0 to 100, in words, and with an interval.

        The logistic of the card takes the score to the scale of the mean opinion scores of its data set, whose lowest
        becomes 0; the value of an image without any difference becomes 100. The interval comes from the residuals of
        images of held-out references.

        Args:
            test: (N, 3, H, W), float in [0, 1] or uint8.
            reference: As in a call.

        Example:
            >>> image = torch.rand(1, 3, 96, 128, generator=torch.Generator().manual_seed(0))
            >>> rating = load_metric("fast").rate(image, image)
            >>> round(float(rating.score)), rating.words
            (100, ('imperceptible',))
        """
        return self.rating(self(test, reference))

    def rating(self, quality: Tensor) -> Rating:
        """The rating, on the CPU, of values that the metric gave, (N,)."""
        scale = self.card.scale
        opinion = self.card.fit.predict(quality.detach().reshape(-1).cpu().double())
        span = scale["high"] - scale["low"]
        ends = [opinion + residual for residual in (0.0, *scale["residuals"])]
        score, low, high = ((100 * (end - scale["low"]) / span).clamp(0, 100) for end in ends)
        words = tuple(WORDS[min(int(value // 20), 4)] for value in score.tolist())
        return Rating(score, low, high, words)


def load_metric(
    name: str = "fast",
    *,
    weights: Weights | Mapping[str, Weights] = None,
    viewing: Viewing | None = None,
    device: torch.device | str = "cpu",
) -> ReadyMetric:
    """A ready-made metric.

    Args:
        name: One of `list_metrics()`. `"fast"` brings its weights and works offline.
        weights: For other metrics: network -> weights, as `FeatureExtractor` takes them, or those of the only network;
            by default torchvision's, which are downloaded once. They must be those that the maps were selected with.
        viewing: How pictures are seen, instead of the metric's own way (a shorter side of 384 pixels), such as
            `Viewing(pixels_per_degree=..., native_pixels_per_degree=...)`. Networks that see pictures at a smaller
            scale than others keep that proportion.
        device: Where the metric is put.

    Raises:
        InputError: There is no such metric; weights are given for one that brings them.
        WeightsError: Weights are missing, are not those of the card, or cannot be fetched.

    Example:
        >>> iqm = load_metric()
        >>> generator = torch.Generator().manual_seed(0)
        >>> reference = torch.rand(1, 3, 96, 128, generator=generator)
        >>> noisy = (reference + 0.1 * torch.randn(2, 3, 96, 128, generator=generator)).clamp(0, 1)
        >>> iqm(noisy, reference).shape
        torch.Size([2])
    """
    card = Card.load(name)
    if card.bundled:
        if weights is not None:
            raise InputError(f"the metric {name!r} brings its weights; leave out weights=")
        given: dict[str, Any] = _bundled(name)
    elif weights is None or (isinstance(weights, Mapping) and set(weights) <= set(card.networks)):
        given = dict(weights or {})
    elif len(card.networks) == 1:
        given = {card.networks[0]: weights}
    else:
        raise InputError(f"the metric {name!r} needs weights of {' and '.join(card.networks)}: give network -> weights")
    return metric_of(card, given, viewing).to(device)


def metric_of(card: Card, given: Mapping[str, Any], viewing: Viewing | None = None) -> ReadyMetric:
    """The metric of a card: network -> weights, and how pictures are seen instead of the card's way."""
    loaded: dict[tuple[str, ...], FeatureExtractor] = {}
    models = {}
    for source, options in card.selection.sources.items():
        layers = tuple(dict.fromkeys(m.layer for m in card.selection.maps if m.source == source))
        key = (options["network"], options["stage"], *(layers if card.bundled else ()))
        if key not in loaded:  # the same network at another scale is not loaded again
            loaded[key] = _extractor(card, options, layers, given)
        models[source] = copy.deepcopy(loaded[key])
        own = Viewing(**options["viewing"])
        models[source].viewing = own if viewing is None else _in_proportion(own, Viewing(**card.viewing), viewing)
    return ReadyMetric(card, models)


def _bundled(name: str) -> dict[str, dict[str, Tensor]]:
    """The weights in the package by network; filters that the metric does not run are NaN."""
    tensors, header = load_tensors(FOLDER / f"{name}.safetensors", WEIGHTS_KIND)
    states: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        if key in header["parts"]:
            part = header["parts"][key]
            rows, tensor = tensor, tensor.new_full((part["of"], *tensor.shape[1:]), torch.nan)
            tensor[part["rows"]] = rows
        network, _, parameter = key.partition("/")
        states.setdefault(network, {})[parameter] = tensor
    return states


def _extractor(
    card: Card, options: Mapping[str, Any], layers: Sequence[str], given: Mapping[str, Any]
) -> FeatureExtractor:
    """The network of a source with the weights of the card."""
    network = options["network"]
    try:
        extractor = FeatureExtractor(
            network,
            weights=given.get(network, "DEFAULT"),
            stage=options["stage"],
            layers=layers if card.bundled else None,
        )
    except WeightsError as error:
        files = ", ".join(f"{name!r}: '{name}.pth'" for name in card.networks)
        flags = " ".join(f"--weights {name}={name}.pth" for name in card.networks)
        raise WeightsError(
            f"the metric {card.name!r} needs weights of {' and '.join(card.networks)}, in Python as "
            f"load_metric({card.name!r}, weights={{{files}}}), on the command line as {flags}. Those of {network}: "
            f"{error}"
        ) from error
    if card.bundled:  # a part of the weights, which has another fingerprint than the whole
        extractor.recorded(options["weights_sha256"], normalization=None, constants={})
    elif extractor.weights_sha256 != options["weights_sha256"]:
        raise WeightsError(
            f"the maps of {card.name!r} were selected with other weights of {network} than those given: their "
            f"fingerprint is {options['weights_sha256'][:12]}, that of those given {extractor.weights_sha256[:12]}; "
            "give torchvision's ImageNet weights"
        )
    return extractor


def _in_proportion(own: Viewing, base: Viewing, asked: Viewing) -> Viewing:
    """What a source sees whose own viewing is smaller than the metric's by some factor, when another is asked for."""
    if own.short_side is None or base.short_side is None:
        return asked
    factor = own.short_side / base.short_side
    if factor == 1:
        return asked
    if asked.short_side is not None:
        return Viewing(short_side=max(1, round(asked.short_side * factor)))
    if asked.pixels_per_degree is not None:
        return replace(asked, pixels_per_degree=asked.pixels_per_degree * factor)
    return Viewing(factor=(asked.factor or 1.0) * factor)
