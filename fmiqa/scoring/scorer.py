"""One batched pass: test and reference images in, one score a feature map out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fmiqa._checks import check_layout
from fmiqa._runtime.precision import at_least_float32, strict_float32
from fmiqa.errors import InputError
from fmiqa.features.extractor import FeatureExtractor, check_extractor
from fmiqa.maps import FeatureMap, MapIndex
from fmiqa.measures import Measure, get_measure
from fmiqa.measures.base import local_measure

__all__ = ["MapScorer", "PreparedImages"]


@dataclass(frozen=True)
class PreparedImages:
    """The reference side of a comparison, computed once: each layer's prepared maps."""

    layers: dict[str, Any]
    shape: tuple[int, ...]  # of the images, (N, 3, H, W)
    maps: MapIndex  # in the order they were computed
    measure: dict[str, Any]


class MapScorer(nn.Module):
    """Scores each pair of images at each feature map.

    Args:
        extractor: The network.
        maps: The maps to score, all of the network's by default; columns come in this order.
        measure: How maps are compared: a name or a `Measure`. Scores always rise with quality: the values of a measure
            that falls with it (`higher_is_better` false) are negated.

    Attributes:
        maps: The maps scored, in the order of the columns.
        asked: The maps computed, in the order they run.

    Raises:
        InputError: Maps that the network does not have, or none.
    """

    _columns: Tensor | None

    def __init__(
        self,
        extractor: FeatureExtractor,
        maps: Iterable[FeatureMap | str] | None = None,
        *,
        measure: str | dict[str, Any] | Measure = "ssim",
    ) -> None:
        super().__init__()
        check_extractor(extractor)
        self.extractor = extractor
        self.measure = get_measure(measure)
        self.maps = extractor.maps if maps is None else MapIndex(maps)
        if not len(self.maps):
            raise InputError("no feature maps to score; name at least one")
        extractor.maps.positions(self.maps)
        channels = self.maps.channels
        ran = [layer for layer in extractor.layers if layer in channels]
        if self.measure.whole_layers:
            self.asked = MapIndex(m for m in extractor.maps if m.layer in channels)
        else:
            self.asked = MapIndex(FeatureMap(layer, c) for layer in ran for c in channels[layer])
        columns = None if self.asked == self.maps else self.asked.positions(self.maps)
        where = None if columns is None else torch.tensor(columns, device="cpu").to(extractor.device)
        self.register_buffer("_columns", where, persistent=False)
        extractor.operations(self.asked)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self.extractor.operations(self.asked)

    def options(self) -> dict[str, Any]:
        """What the scores depend on beside the images: network, weights, stage, viewing, measure."""
        return {
            "network": self.extractor.network_name,
            "weights_sha256": self.extractor.weights_sha256,
            "stage": self.extractor.stage,
            "layers": self.extractor.layers,
            "viewing": self.extractor.viewing.options(),
            "measure": self.measure.options(),
            "dtype": str(self.extractor.dtype).removeprefix("torch."),
            "precision": self.extractor.precision,
            "normalization": self.extractor.normalization,
        }

    def prepare(self, reference: Tensor) -> PreparedImages:
        """The reference side, for any number of later calls, as the network is now: it does not follow its weights.

        Args:
            reference: (N, 3, H, W) or (1, 3, H, W), float in [0, 1] or uint8.
        """
        with _strict_float32(self.extractor.device):
            layers = {}
            for layer, maps in self.extractor.features(reference, self.asked):
                layers[layer] = self.prepare_maps(layer, maps)
        return PreparedImages(layers, tuple(reference.shape), self.asked, self.measure.options())

    def forward(self, test: Tensor, reference: Tensor | PreparedImages) -> Tensor:
        """One score for each pair and map.

        Args:
            test: (N, 3, H, W), float in [0, 1] or uint8.
            reference: Images of the same size, N of them or one for all; or what `prepare` made of them.

        Returns:
            (N, M), higher = better, columns in the order of `maps`; float32, or float64 of a network in float64.

        Raises:
            InputError: Sizes that differ, images of another form, too small, or on another device; a reference
                prepared for other maps or another measure.
        """
        self._check_pair(test, reference)
        if isinstance(reference, PreparedImages):
            return self._with_prepared(test, [reference], [len(test)])
        return self._beside(test, reference, None)

    def grouped(self, test: Tensor, references: Tensor | Sequence[PreparedImages], counts: Sequence[int]) -> Tensor:
        """As a call, of test images in groups, side by side, of one reference each.

        Args:
            test: (N, 3, H, W), float in [0, 1] or uint8.
            references: The reference of each group, (G, 3, H, W), which go through the network together; or what
                `prepare` made of each.
            counts: The number of test images of each group, N in all.
        """
        if not isinstance(references, Tensor):
            for reference in references:
                self._check_pair(test, reference)
            return self._with_prepared(test, references, counts)
        self._check_pair(test, references[:1])
        if len(references) == len(test):
            return self._beside(test, references, None)
        numbers = torch.tensor([group for group, count in enumerate(counts) for _ in range(count)], device="cpu")
        pinned = torch.empty_like(numbers, pin_memory=test.is_cuda).copy_(numbers)
        return self._beside(test, references, pinned.to(test.device, non_blocking=True))

    def _with_prepared(self, test: Tensor, references: Sequence[PreparedImages], counts: Sequence[int]) -> Tensor:
        layers = []
        with _strict_float32(self.extractor.device):
            for layer, maps in self.extractor.features(test, self.asked):
                groups = maps.split(list(counts)) if len(counts) > 1 else [maps]
                pairs = zip(groups, references, strict=True)
                scores = [self.compare(layer, group, reference.layers[layer]) for group, reference in pairs]
                layers.append(torch.cat(scores) if len(scores) > 1 else scores[0])
            return self.ordered(torch.cat(layers, 1))

    def _beside(self, test: Tensor, references: Tensor, numbers: Tensor | None) -> Tensor:
        """The references go through the network beside the test images; `numbers` says which one each of these has."""
        layers = []
        with _strict_float32(self.extractor.device):
            walks = (self.extractor.features(images, self.asked) for images in (test, references))
            for (layer, maps), (_, others) in zip(*walks, strict=True):
                others = others if numbers is None else others[numbers]
                layers.append(self.compare(layer, maps, self.prepare_maps(layer, others)))
            return self.ordered(torch.cat(layers, 1))

    def local_losses(self, test: Tensor, reference: Tensor, shares: Tensor) -> dict[str, Tensor]:
        """Where the maps of each layer differ: the best value of the measure less the local one.

        Args:
            test: (N, 3, H, W), float in [0, 1] or uint8.
            reference: Images of the same size, N of them or one for all.
            shares: (M,) what each map's loss is multiplied by.

        Returns:
            Layer -> (N, h, w), the sum of its maps' losses, at least 0; h and w count the full windows of the measure.

        Raises:
            InputError: As a call; the measure has no local values.
        """
        asked = torch.zeros(len(self.asked), dtype=torch.float64, device=shares.device)
        asked[slice(None) if self._columns is None else self._columns.to(shares.device)] = shares.double()
        losses, start = {}, 0
        for layer, loss in self.losses_by_map(test, reference):
            share = asked[start : start + loss.shape[1]].to(loss)
            losses[layer] = torch.einsum("nchw,c->nhw", loss, share)
            start += loss.shape[1]
        return losses

    def losses_by_map(self, test: Tensor, reference: Tensor) -> Iterator[tuple[str, Tensor]]:
        """As `local_losses`, of each map by itself: layer, (N, C, h, w); the C maps are those of `asked`, in its order.

        One layer is held at a time.
        """
        measure, best = local_measure(self.measure), self.measure.value_range[1]
        self._check_pair(test, reference)
        with _strict_float32(self.extractor.device):
            walks = (self.extractor.features(images, self.asked) for images in (test, reference))
            for (layer, maps), (_, reference_maps) in zip(*walks, strict=True):
                local = self._named(layer, measure.local, at_least_float32(maps), at_least_float32(reference_maps))
                yield layer, (best - local).clamp(min=0)

    def compare(self, layer: str, maps: Tensor, prepared: Any) -> Tensor:
        """(N, C) scores of a layer's test maps against its prepared reference maps, turned so that higher = better."""
        values: Tensor = self._named(layer, self.measure.compare, at_least_float32(maps), prepared)
        return values if self.measure.higher_is_better else -values

    def prepare_maps(self, layer: str, maps: Tensor) -> Any:
        """What the measure prepares of a layer's reference maps; those in half precision are widened to float32."""
        return self._named(layer, self.measure.prepare, at_least_float32(maps))

    def ordered(self, scores: Tensor) -> Tensor:
        """(N, M) scores in the order of `maps`, of such in the order of `asked`."""
        return scores if self._columns is None else scores[:, self._columns]

    def _check_pair(self, test: Tensor, reference: Tensor | PreparedImages) -> None:
        check_layout(test, "test images")
        if not isinstance(reference, PreparedImages):
            check_layout(reference, "reference images")
        if isinstance(reference, PreparedImages) and (
            reference.maps != self.asked or reference.measure != self.measure.options()
        ):
            raise InputError(
                f"the reference was prepared for {reference.maps!r} under {reference.measure}, this compares "
                f"{self.asked!r} under {self.measure.options()}; prepare it with the same metric"
            )
        shape = reference.shape
        if test.shape[1:] != shape[1:] or shape[0] not in (1, test.shape[0]):
            raise InputError(
                f"test images {tuple(test.shape)} and reference images {tuple(shape)} must have one size "
                "(N, 3, H, W), the reference being one image a test image or one for all; fmiqa never resizes or crops"
            )

    @staticmethod
    def _named(layer: str, step: Any, *args: Any) -> Any:
        try:
            return step(*args)
        except InputError as error:
            raise InputError(f"layer {layer}: {error}") from error


def _strict_float32(device: torch.device) -> AbstractContextManager[None]:
    """`strict_float32`, of which torch.compile and torch.export can record only that autocast is off.

    On a GPU, where TF32 is the default of convolutions, the graph therefore breaks here instead.
    """
    if device.type == "cpu" and torch.compiler.is_compiling():
        return torch.autocast(device.type, enabled=False)
    return strict_float32(device)
