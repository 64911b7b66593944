"""Image-quality metrics from feature maps: a selected few, or all of them."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from fmiqa._checks import check_layout
from fmiqa._io import load_tensors, save_tensors
from fmiqa._runtime.precision import WideBuffers, strict_float32
from fmiqa.correlation.logistic import LogisticFit
from fmiqa.errors import FileFormatError, InputError
from fmiqa.features.enlarging import enlarged, seen_by
from fmiqa.features.extractor import FeatureExtractor
from fmiqa.features.networks import NETWORKS
from fmiqa.features.viewing import Viewing
from fmiqa.loss import QualityLoss, Reduction
from fmiqa.maps import FeatureMap, MapIndex
from fmiqa.measures import Custom, Measure
from fmiqa.measures.base import local_measure
from fmiqa.pooling import Pool, pool_scores, pool_shares
from fmiqa.scoring.scorer import MapScorer, PreparedImages

if TYPE_CHECKING:
    from fmiqa.selection.result import Selection

__all__ = ["AllFeatureIQM", "SelectedFeatureIQM"]

_KIND = "fmiqa metric 1"

Model = FeatureExtractor | nn.Module | str
MeasureLike = str | dict[str, Any] | Measure


class SelectedFeatureIQM(WideBuffers):
    """Quality of test images against their references, seen through selected feature maps.

    Differentiable in the images, batched, and no heavier than its maps: each network is cut after the
    deepest of them, and in that layer only the selected filters are run.

    Args:
        model: A `FeatureExtractor`, a network's name, or an `nn.Module` (torchvision's AlexNet, ...). For maps of
            several networks, scales or stages (`"half/conv1:27"`): source name -> extractor; each runs once.
        maps: The selected maps: `selection.maps`, or names such as `["conv1:27", "conv3:5"]`.
        measure: How maps are compared: `"ssim"` or a `Measure`; with several sources also source name -> measure.
        pool: How map scores are combined, see `fmiqa.pooling.Pool`.
        weights: (M,) of the maps, for a weighted mean.
        power: What each map's score is raised to before, see `fmiqa.pool_scores`.
        fit: A logistic fitted to subjective scores; the metric then answers on their scale.

    Raises:
        InputError: No maps, maps that the network lacks, an unknown measure or pooling, a `fit` of several problems;
            `"layer_geometric"` with a measure such as MSE, whose scores, turned so that higher = better, are below 0.

    Example:
        >>> import torch, torchvision
        >>> iqm = SelectedFeatureIQM(torchvision.models.alexnet(), ["conv1:27", "conv2:5"])
        >>> test, reference = torch.rand(2, 3, 96, 96), torch.rand(2, 3, 96, 96)
        >>> iqm(test, reference).shape
        torch.Size([2])
        >>> prepared = iqm.prepare(reference[:1])     # one reference, many test images
        >>> iqm(test, prepared).shape
        torch.Size([2])
    """

    weights: Tensor | None
    higher_is_better: ClassVar[bool] = True  # whatever the measure: map scores rise with quality

    def __init__(
        self,
        model: Model | Mapping[str, Model],
        maps: Iterable[FeatureMap | str],
        *,
        measure: MeasureLike | Mapping[str, MeasureLike] = "ssim",
        pool: Pool = "mean",
        weights: Tensor | None = None,
        power: float = 1.0,
        fit: LogisticFit | None = None,
    ) -> None:
        super().__init__()
        if fit is not None and not isinstance(fit, LogisticFit):
            raise InputError(f"fit must be what fmiqa.fit_logistic gives, got {type(fit).__name__}")
        if fit is not None and fit.parameters.ndim != 1:
            raise InputError(f"fit is of one problem, got one of {tuple(fit.parameters.shape[:-1])} problems")
        self.maps = MapIndex(maps)
        models = model if isinstance(model, Mapping) else {"": model}
        unknown = {m.source for m in self.maps} - set(models)
        if not len(self.maps):
            raise InputError("no feature maps to look at; name at least one")
        if unknown:
            named = ", ".join(sorted(map(repr, unknown)))
            raise InputError(f"maps of the sources {named}; there are the networks {', '.join(map(repr, models))}")
        self.sources = [source for source in models if any(m.source == source for m in self.maps)]
        own = {s: [replace(m, source="") for m in self.maps if m.source == s] for s in self.sources}
        self.scorers = nn.ModuleList(
            _cut_scorer(models[source], own[source], _of_source(measure, source)) for source in self.sources
        )
        _refuse_negative(pool, [_scorer(scorer).measure for scorer in self.scorers])
        ran = MapIndex(replace(m, source=source) for source in self.sources for m in own[source])
        self._columns = None if ran == self.maps else ran.positions(self.maps)
        self.pool: Pool = pool
        self.power = power
        ones = torch.ones(1, len(self.maps), device="cpu")
        pool_scores(ones, self.maps, pool=pool, weights=weights, power=power)  # checks them
        self.register_buffer(
            "weights", None if weights is None else weights.detach().clone().double(), persistent=False
        )
        self.fit = fit
        self.eval()

    @classmethod
    def from_selection(
        cls,
        model: Model | Mapping[str, Model],
        selection: Selection,
        *,
        fitted: bool = False,
        measure: Measure | None = None,
    ) -> SelectedFeatureIQM:
        """The metric that a selection stands for: its maps, measure, pooling and weights.

        Args:
            model: The network it was made with, or source name -> network.
            selection: A selection that was made from a `ScoreMatrix`.
            fitted: Let the metric answer on the scale of the subjective scores.
            measure: The `measures.Custom` that the maps were selected under, if any: its code is not saved.

        Raises:
            InputError: The selection was made from plain numbers; a network that sees images otherwise (weights,
                stage, viewing) than the selection's; a measure of your own that is missing, or another one.
        """
        measures: dict[str, MeasureLike] = {}
        for source, options in selection.sources.items():
            if "measure" not in options:
                raise InputError("the selection was made from plain numbers and does not say how maps are compared")
            measures[source] = _saved_measure(options["measure"], measure)
            given = model.get(source) if isinstance(model, Mapping) else model
            if isinstance(given, FeatureExtractor):
                _refuse_other(given, options, source)
        return cls(
            model,
            selection.maps,
            measure=measures if isinstance(model, Mapping) else measures[""],
            pool=selection.pool,
            weights=selection.weights,
            power=selection.power,
            fit=selection.fit if fitted else None,
        )

    @property
    def source(self) -> dict[str, Any]:
        """What the map scores depend on, as a `Selection` records it."""
        options = {source: scorer.options() for source, scorer in self._by_source().items()}
        return options[""] if list(options) == [""] else {"sources": options}

    @property
    def extractors(self) -> dict[str, FeatureExtractor]:
        """The networks by source name (`""` for a single one), cut to the layers of the metric's maps.

        Example:
            >>> import torchvision
            >>> iqm = SelectedFeatureIQM(torchvision.models.alexnet(), ["conv1:27", "conv2:5"])
            >>> iqm.extractors[""].layers
            ['conv1', 'conv2']
        """
        return {source: scorer.extractor for source, scorer in self._by_source().items()}

    @property
    def measures(self) -> dict[str, Measure]:
        """Source name -> how its maps are compared."""
        return {source: scorer.measure for source, scorer in self._by_source().items()}

    def _by_source(self) -> dict[str, MapScorer]:
        return {source: _scorer(scorer) for source, scorer in zip(self.sources, self.scorers, strict=True)}

    @property
    def device(self) -> torch.device:
        """Where the metric is."""
        return _scorer(self.scorers[0]).extractor.device

    def map_scores(self, test: Tensor, reference: Tensor | Sequence[PreparedImages]) -> Tensor:
        """(N, M) the score of each image at each map, before they are combined; arguments as of a call."""
        if isinstance(reference, Tensor):
            parts = [scorer(test, reference) for scorer in self.scorers]
        else:
            self._check_prepared(reference)
            parts = [scorer(test, part) for scorer, part in zip(self.scorers, reference, strict=True)]
        scores = parts[0] if len(parts) == 1 else torch.cat(parts, 1)
        return scores if self._columns is None else scores[:, self._columns]

    def _check_prepared(self, reference: object) -> None:
        if not isinstance(reference, (list, tuple, PreparedImages)):
            check_layout(reference, "reference images")
        elif isinstance(reference, PreparedImages) or len(reference) != len(self.scorers):
            given = "PreparedImages" if isinstance(reference, PreparedImages) else f"{len(reference)} parts"
            raise InputError(
                f"reference images are a torch.Tensor (N, 3, H, W), or the list of {len(self.scorers)} that prepare() "
                f"gave, got {given}"
            )

    def forward(self, test: Tensor, reference: Tensor | Sequence[PreparedImages]) -> Tensor:
        """Quality of each test image.

        Args:
            test: (N, 3, H, W), float in [0, 1] or uint8, on the metric's device.
            reference: Images of the same size, N of them or one for all; or what `prepare` gave.

        Returns:
            (N,): with SSIM at most 1, and 1 for an image and itself; with a `fit`, on the scale of the scores. float32,
            also of networks in half precision (`.half()`, `.bfloat16()`), whose maps are compared in float32; float64
            of networks in float64.

        Raises:
            InputError: Sizes that differ, images of another form, too small, or on another device.
        """
        return self.combined(self.map_scores(test, reference))

    def combined(self, scores: Tensor) -> Tensor:
        """(N,) the quality of images whose map scores, (N, M), are known: what a call does with them."""
        score = pool_scores(scores, self.maps, pool=self.pool, weights=self.weights, power=self.power)
        if self.fit is None:
            return score
        fit = replace(self.fit, parameters=self.fit.parameters.to(score.device))
        return fit.predict(score)

    def error_map(self, test: Tensor, reference: Tensor) -> Tensor:
        """Where each test image is judged worse than its reference.

        Each map's local loss, which is 1 less its local SSIM (or gradient similarity), is brought to the size of the
        images: each value stands at the centre of what its position sees, values between are interpolated linearly,
        and the outermost are held to the border. The average over maps has the metric's weights (with
        `pool="layer_geometric"`, each layer weighs the same). `power` and `fit` do not count.

        Args:
            test: (N, 3, H, W), float in [0, 1] or uint8, on the metric's device.
            reference: Images of the same size, N of them or one for all.

        Returns:
            (N, 1, H, W), at least 0, and 0 (up to rounding) where the maps do not differ; differentiable. With
            `pool="mean"` and `power=1`, the mean of the local losses of a layer before they are enlarged is what the
            layer takes off the score; of the enlarged map that holds roughly.

        Raises:
            InputError: As a call; a measure that gives a map one value and no local ones, such as PSNR.

        Example:
            >>> import torch, torchvision
            >>> iqm = SelectedFeatureIQM(torchvision.models.alexnet(), ["conv1:27", "conv2:5"])
            >>> iqm.error_map(torch.rand(2, 3, 96, 80), torch.rand(1, 3, 96, 80)).shape
            torch.Size([2, 1, 96, 80])
        """
        scorers = self._local_scorers()
        shares = pool_shares(self.maps, pool=self.pool, weights=self.weights)
        ran = torch.empty_like(shares)
        ran[slice(None) if self._columns is None else self._columns] = shares
        found = []
        for scorer, share in zip(scorers, ran.split([len(scorer.maps) for scorer in scorers]), strict=True):
            found += _at_size(scorer, scorer.local_losses(test, reference, share), test.shape[-2:])
        return torch.stack(found).sum(0)[:, None]

    def error_maps(self, test: Tensor, reference: Tensor, maps: Iterable[FeatureMap | str] | None = None) -> Tensor:
        """Where each test image is judged worse by single maps: what `error_map` averages.

        Args:
            test: (N, 3, H, W), float in [0, 1] or uint8, on the metric's device.
            reference: Images of the same size, N of them or one for all.
            maps: K of the metric's maps, all by default. Many maps take much memory: 4 bytes a pixel each.

        Returns:
            (N, K, H, W), the local loss of each map at the size of the images, at least 0.

        Raises:
            InputError: As `error_map`; a map that the metric does not have.

        Example:
            >>> import torch, torchvision
            >>> iqm = SelectedFeatureIQM(torchvision.models.alexnet(), ["conv1:27", "conv2:5"])
            >>> iqm.error_maps(torch.rand(2, 3, 96, 80), torch.rand(1, 3, 96, 80), ["conv2:5"]).shape
            torch.Size([2, 1, 96, 80])
        """
        asked = self.maps if maps is None else MapIndex(maps)
        self.maps.positions(asked)  # names wrong maps
        found: dict[FeatureMap, Tensor] = {}
        for source, scorer in zip(self.sources, self._local_scorers(), strict=True):
            own = {replace(m, source=""): m for m in asked if m.source == source}
            channels = scorer.asked.channels
            losses = scorer.losses_by_map(test, reference) if own else ()
            for layer, loss in losses:
                wanted = [m for m in own if m.layer == layer]
                picked = loss[:, [channels[layer].index(m.channel) for m in wanted]]
                (enlarged_losses,) = _at_size(scorer, {layer: picked}, test.shape[-2:])
                found |= {own[m]: enlarged_losses[:, place] for place, m in enumerate(wanted)}
        return torch.stack([found[m] for m in asked], 1)

    def _local_scorers(self) -> list[MapScorer]:
        """The scorers, whose measures must have local values; asked before any of them runs."""
        scorers = [_scorer(scorer) for scorer in self.scorers]
        for scorer in scorers:
            local_measure(scorer.measure)
        return scorers

    def as_loss(self, reduction: Reduction = "mean") -> QualityLoss:
        """The metric as a loss: 1 - quality, or the best quality less the quality where the best is not 1.

        Args:
            reduction: `"mean"` or `"sum"` over the images, or `"none"`.

        Raises:
            InputError: A metric with a `fit`, which answers on the scale of subjective scores; a measure whose values
                have no bound; an unknown reduction.

        Example:
            >>> import torch, torchvision
            >>> loss = SelectedFeatureIQM(torchvision.models.alexnet(), ["conv1:27", "conv2:5"]).as_loss()
            >>> test, reference = torch.rand(2, 3, 96, 96, requires_grad=True), torch.rand(2, 3, 96, 96)
            >>> loss(test, reference).backward()
            >>> test.grad.shape
            torch.Size([2, 3, 96, 96])
        """
        if self.fit is not None:
            raise InputError(
                "the metric has a fit and answers on the scale of subjective scores, where no value stands for equal "
                "images; make the loss of the same metric without fit= (with from_selection, without fitted=True)"
            )
        best = {s: m.value_range[1] if m.higher_is_better else -m.value_range[0] for s, m in self.measures.items()}
        unbounded = [str(self.measures[s]) for s in best if not math.isfinite(best[s])]
        if unbounded:
            raise InputError(f"the measure {unbounded[0]} has no best value; minimize -iqm(test, reference)")
        scores = torch.tensor([best[m.source] for m in self.maps], dtype=torch.float64, device="cpu")
        weights = None if self.weights is None else self.weights.cpu()
        value = pool_scores(scores, self.maps, pool=self.pool, weights=weights, power=self.power)
        return QualityLoss(self, best=float(value), reduction=reduction)

    def prepare(self, reference: Tensor) -> list[PreparedImages]:
        """The reference side (N or 1, 3, H, W), computed once for many calls; one part a network."""
        return [_scorer(scorer).prepare(reference) for scorer in self.scorers]

    def definition(self) -> dict[str, Any]:
        """All that defines the metric but its networks' weights, of which it has fingerprints; as JSON can hold it."""
        return {
            "class": type(self).__name__,
            "maps": [str(m) for m in self.maps],
            "sources": [{"source": source, **scorer.options()} for source, scorer in self._by_source().items()],
            "pool": self.pool,
            "weights": None if self.weights is None else self.weights.tolist(),
            "power": self.power,
            "fit": None if self.fit is None else self.fit.to_dict(),
        }

    def save(self, path: str | os.PathLike[str]) -> None:
        """Save networks, maps and options in one safetensors file that suffices to score images elsewhere."""
        tensors: dict[str, Tensor] = {}
        header = self.definition()
        for number, (part, scorer) in enumerate(zip(header["sources"], map(_scorer, self.scorers), strict=True)):
            constants = scorer.extractor.constants
            state = {**scorer.extractor.network.state_dict(), **constants}
            tensors |= {f"{number}.{name}": value for name, value in state.items()}
            part["constants"] = list(constants)
        save_tensors(path, _KIND, tensors, header)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        model: nn.Module | Mapping[str, nn.Module] | None = None,
        measure: Measure | None = None,
    ) -> SelectedFeatureIQM:
        """Load what `save` saved.

        Args:
            path: The file.
            model: A network of the same architecture (or source name -> network), needed where the metric was
                not built on one of fmiqa's named networks; its weights are replaced by the file's.
            measure: The `measures.Custom` that it compares maps by, where it does: its code is not in the file.

        Raises:
            FileFormatError: The file is missing, damaged, of something else, or needs `model`.
            InputError: A measure of your own that is missing, or another one.
        """
        tensors, header = load_tensors(path, _KIND)
        try:
            models: dict[str, Model] = {}
            for number, part in enumerate(header["sources"]):
                given = model.get(part["source"]) if isinstance(model, Mapping) else model
                network = part["network"] if part["network"] in NETWORKS else given
                if network is None:
                    raise FileFormatError(
                        f"{path} was built on a network of your own ({part['network']}); "
                        "pass one of the same architecture: load(path, model=...)"
                    )
                prefix = f"{number}."
                state = {name.removeprefix(prefix): v for name, v in tensors.items() if name.startswith(prefix)}
                constants = {name: state.pop(name) for name in part.get("constants", ())}
                viewing = Viewing(**part["viewing"])
                extractor = FeatureExtractor(
                    network,
                    weights=state,
                    stage=part["stage"],
                    layers=part["layers"],
                    viewing=viewing,
                    precision=part.get("precision", "float32"),
                )
                extractor.recorded(part["weights_sha256"], normalization=part.get("normalization"), constants=constants)
                models[part["source"]] = extractor
            kind = AllFeatureIQM if header["class"] == "AllFeatureIQM" else SelectedFeatureIQM
            metric = kind.__new__(kind)
            weights = header["weights"]
            SelectedFeatureIQM.__init__(
                metric,
                models,
                header["maps"],
                measure={part["source"]: _saved_measure(part["measure"], measure) for part in header["sources"]},
                pool=header["pool"],
                weights=None if weights is None else torch.tensor(weights, dtype=torch.float64, device="cpu"),
                power=header["power"],
                fit=None if header["fit"] is None else LogisticFit.from_dict(header["fit"]),
            )
            return metric
        except (KeyError, TypeError) as error:
            raise FileFormatError(f"{path} is not a whole saved metric: {error!r}") from error

    def extra_repr(self) -> str:
        """Shown by repr()."""
        weighted = "" if self.weights is None else ", weighted"
        measures = ", ".join(dict.fromkeys(str(_scorer(s).measure) for s in self.scorers))
        return f"{len(self.maps)} maps, {measures}, pool={self.pool!r}{weighted}, power={self.power:g}"


class AllFeatureIQM(SelectedFeatureIQM):
    """Quality seen through every map of every layer: the all-maps DeepSSIM that a selection is held against.

    Args:
        model: A `FeatureExtractor`, a network's name, or an `nn.Module`.
        measure: How maps are compared.
        pool: How map scores are combined.
        fit: A logistic fitted to subjective scores.
    """

    def __init__(
        self,
        model: FeatureExtractor | nn.Module | str,
        *,
        measure: str | dict[str, Any] | Measure = "ssim",
        pool: Pool = "mean",
        fit: LogisticFit | None = None,
    ) -> None:
        extractor = model if isinstance(model, FeatureExtractor) else FeatureExtractor(model)
        super().__init__(extractor, extractor.maps, measure=measure, pool=pool, fit=fit)


def _cut_scorer(model: Model, maps: list[FeatureMap], measure: MeasureLike) -> MapScorer:
    """A scorer of some maps on a copy of the network that holds no more than they need."""
    extractor = model if isinstance(model, FeatureExtractor) else FeatureExtractor(model)
    index = MapIndex(maps)
    extractor.maps.positions(index)  # names wrong maps before the network is cut
    return MapScorer(extractor.keep(index.layers), index, measure=measure)


def _at_size(scorer: MapScorer, losses: dict[str, Tensor], size: tuple[int, ...]) -> list[Tensor]:
    """What each layer or map loses (N, ..., h, w), at the size of the images."""
    extractor, (height, width) = scorer.extractor, size
    seen, shapes = seen_by(extractor, scorer.asked), extractor.layer_shapes(height, width, scorer.asked)
    image = extractor.viewing.size(height, width)
    found = []
    with strict_float32(extractor.device):
        for layer, loss in losses.items():
            _, rows, columns = shapes[layer]
            margins = (rows - loss.shape[-2]) / 2, (columns - loss.shape[-1]) / 2
            found.append(enlarged(loss, (height, width), seen[layer], image, margins=margins))
    return found


def _of_source(measure: MeasureLike | Mapping[str, MeasureLike], source: str) -> MeasureLike:
    if isinstance(measure, Mapping) and "name" not in measure:
        if source not in measure:
            raise InputError(f"no measure for the source {source!r}; there are {', '.join(map(repr, measure))}")
        return measure[source]
    return measure  # type: ignore[return-value]  # a Measure, its name, or its options


def _saved_measure(options: dict[str, Any], given: Measure | None) -> MeasureLike:
    """The measure of these options; a function of the user's own has to be given, and to be the same by its options."""
    if given is None or options["name"] != Custom.name:
        return options
    if given.options() != options:
        raise InputError(f"the maps were compared under {options}, measure is {given.options()}")
    return given


def _refuse_negative(pool: Pool, measures: Iterable[Measure]) -> None:
    """A geometric mean of what a lower-is-better measure gives, turned round, would be NaN throughout."""
    falling = [m for m in measures if not m.higher_is_better and m.value_range[0] >= 0]
    if pool == "layer_geometric" and falling:
        raise InputError(
            f"pool='layer_geometric' is of scores over 0; those of {falling[0]}, for which lower is better, are "
            "negated and so at most 0: take pool='mean'"
        )


def _scorer(module: nn.Module) -> MapScorer:
    assert isinstance(module, MapScorer)
    return module


def _refuse_other(extractor: FeatureExtractor, options: Mapping[str, Any], source: str) -> None:
    own = {
        "weights_sha256": extractor.weights_sha256,
        "stage": extractor.stage,
        "viewing": extractor.viewing.options(),
        "precision": extractor.precision,
        "normalization": extractor.normalization,
    }
    differing = [f"{k}: {options[k]!r} there, {own[k]!r} here" for k in own if options.get(k, own[k]) != own[k]]
    if differing:
        named = f" {source!r}" if source else ""
        raise InputError(f"the network{named} is not the one the maps were selected on ({'; '.join(differing)})")
