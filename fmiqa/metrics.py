"""Image-quality metrics from feature maps: a chosen few, or all of them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from fmiqa.comparison import MapScorer, PreparedImages
from fmiqa.correlation.logistic import LogisticFit
from fmiqa.errors import FileFormatError, InputError
from fmiqa.features import FeatureExtractor
from fmiqa.io import load_tensors, save_tensors
from fmiqa.maps import FeatureMap, MapIndex
from fmiqa.measures import Measure
from fmiqa.networks import NETWORKS
from fmiqa.pooling import Pool, check_pool, pool_scores

__all__ = ["AllFeatureIQM", "SelectedFeatureIQM"]

_KIND = "fmiqa metric 1"


class SelectedFeatureIQM(nn.Module):
    """Quality of test images against their references, seen through chosen feature maps.

    Differentiable in the images, batched, and no heavier than its maps: the network is cut after the
    deepest of them, and in that layer only the chosen filters are run.

    Args:
        model: a `FeatureExtractor`, a network's name, or an `nn.Module` (torchvision's AlexNet, ...).
        maps: the chosen maps: `selection.maps`, or names such as `["conv1:27", "conv3:5"]`.
        measure: how maps are compared: `"ssim"` or a `Measure`.
        pool: how map scores are combined, see `fmiqa.pooling.Pool`.
        fit: a logistic fitted to subjective scores; the metric then answers on their scale.

    Raises:
        InputError: no maps, maps that the network lacks, an unknown measure or pooling, a `fit` of several problems.

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

    def __init__(
        self,
        model: FeatureExtractor | nn.Module | str,
        maps: Iterable[FeatureMap | str],
        *,
        measure: str | dict[str, Any] | Measure = "ssim",
        pool: Pool = "mean",
        fit: LogisticFit | None = None,
    ) -> None:
        super().__init__()
        check_pool(pool)
        if fit is not None and fit.parameters.ndim != 1:
            raise InputError(f"fit is of one problem, got one of {tuple(fit.parameters.shape[:-1])} problems")
        extractor = model if isinstance(model, FeatureExtractor) else FeatureExtractor(model)
        index = MapIndex(maps)
        scorer = MapScorer(extractor, index, measure=measure)  # names wrong maps before the network is cut
        self.scorer = MapScorer(extractor.keep(index.layers), index, measure=scorer.measure)
        self.pool: Pool = pool
        self.fit = fit
        self.eval()

    @property
    def maps(self) -> MapIndex:
        """The maps the metric looks at."""
        return self.scorer.maps

    @property
    def higher_is_better(self) -> bool:
        """Whether a higher value means better quality."""
        return self.fit is not None or self.scorer.measure.higher_is_better

    def forward(self, test: Tensor, reference: Tensor | PreparedImages) -> Tensor:
        """Quality of each test image.

        Args:
            test: (N, 3, H, W), float in [0, 1] or uint8, on the metric's device.
            reference: images of the same size, N of them or one for all; or what `prepare` gave.

        Returns:
            (N,): with SSIM at most 1, and 1 for an image and itself; with a `fit`, on the scale of the scores.

        Raises:
            InputError: sizes that differ, images of another form, too small, or on another device.
        """
        score = pool_scores(self.scorer(test, reference), self.maps, pool=self.pool)
        if self.fit is None:
            return score
        fit = replace(self.fit, parameters=self.fit.parameters.to(score.device))
        return fit.predict(score)

    def prepare(self, reference: Tensor) -> PreparedImages:
        """The reference side (N or 1, 3, H, W), computed once for many calls."""
        return self.scorer.prepare(reference)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Save network, maps and options in one safetensors file that suffices to score images elsewhere."""
        extractor = self.scorer.extractor
        header = {
            "class": type(self).__name__,
            "network": extractor.network_name,
            "weights_sha256": extractor.weights_sha256,
            "stage": extractor.stage,
            "maps": [str(m) for m in self.maps],
            "measure": self.scorer.measure.options(),
            "pool": self.pool,
            "fit": None if self.fit is None else self.fit.to_dict(),
        }
        save_tensors(path, _KIND, extractor.network.state_dict(), header)

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, model: nn.Module | None = None) -> SelectedFeatureIQM:
        """What `save` saved.

        Args:
            path: the file.
            model: a network of the same architecture, needed where the metric was not built on one of
                fmiqa's named networks; its weights are replaced by the file's.

        Raises:
            FileFormatError: the file is missing, damaged, of something else, or needs `model`.
        """
        state, header = load_tensors(path, _KIND)
        try:
            network = header["network"] if header["network"] in NETWORKS else model
            if network is None:
                raise FileFormatError(
                    f"{path} was built on a network of your own ({header['network']}); "
                    "pass one of the same architecture: load(path, model=...)"
                )
            maps = MapIndex(header["maps"])
            extractor = FeatureExtractor(network, weights=state, stage=header["stage"], layers=maps.layers)
            extractor.weights_sha256 = header["weights_sha256"]
            fit = None if header["fit"] is None else LogisticFit.from_dict(header["fit"])
            kind = AllFeatureIQM if header["class"] == "AllFeatureIQM" else SelectedFeatureIQM
            metric = kind.__new__(kind)
            SelectedFeatureIQM.__init__(
                metric, extractor, maps, measure=header["measure"], pool=header["pool"], fit=fit
            )
            return metric
        except (KeyError, TypeError) as error:
            raise FileFormatError(f"{path} is not a whole saved metric: {error!r}") from error

    def extra_repr(self) -> str:
        """Shown by repr()."""
        return f"{len(self.maps)} maps, {self.scorer.measure}, pool={self.pool!r}"


class AllFeatureIQM(SelectedFeatureIQM):
    """Quality seen through every map of every layer: the all-maps DeepSSIM that a selection is held against.

    Args:
        model: a `FeatureExtractor`, a network's name, or an `nn.Module`.
        measure: how maps are compared.
        pool: how map scores are combined.
        fit: a logistic fitted to subjective scores.
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
