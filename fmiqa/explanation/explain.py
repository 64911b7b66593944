"""Why a test image got its score."""

from __future__ import annotations

import math
import os
from dataclasses import asdict, dataclass, field
from html import escape
from typing import Any

import torch
from torch import Tensor

from fmiqa._checks import check_tensor, is_count
from fmiqa._io import write_whole
from fmiqa._tables import text_table
from fmiqa._version import __version__
from fmiqa.errors import InputError
from fmiqa.explanation.words import detected_by
from fmiqa.maps import FeatureMap
from fmiqa.measures.base import local_measure
from fmiqa.metrics import SelectedFeatureIQM
from fmiqa.pooling import loss_shares, pool_scores
from fmiqa.zoo import Rating, ReadyMetric, load_metric

__all__ = ["ExplainedMap", "Explanation", "explain"]


@dataclass(frozen=True)
class ExplainedMap:
    """What one map has to do with a score.

    Args:
        map: The map.
        score: Its score, 1 where it sees no difference.
        share: The share of the loss that it takes, see `fmiqa.pooling.loss_shares`.
        words: What it detects, see `fmiqa.explanation.detected_by`; sizes are in pixels of the pictures.
        selectivity: The share of the stimuli that excite it less than half as much as the strongest.
    """

    map: FeatureMap
    score: float
    share: float
    words: str
    selectivity: float


@dataclass(frozen=True, eq=False)
class Explanation:
    """Why a test image got its score; `explain` makes it.

    `print` gives a table, `write` a page, and notebooks show the page.

    Args:
        quality: What the metric gave.
        loss: 1 - q of the pooled score q (before a `fit`): what the maps share.
        rating: From 0 to 100, of a ready-made metric.
        maps: All maps, the greatest share of the loss first.
        test: (3, H, W) the test image, on the CPU.
        reference: (3, H, W) the reference.
        error: (H, W) where the test image is judged worse by all maps, see `SelectedFeatureIQM.error_map`.
        errors: (K, H, W) where by each of the first K maps, see `SelectedFeatureIQM.error_maps`.
        metric: The metric in a line.
        names: What the page calls the test image and the reference.
    """

    quality: float
    loss: float
    rating: Rating | None
    maps: tuple[ExplainedMap, ...]
    test: Tensor = field(repr=False)
    reference: Tensor = field(repr=False)
    error: Tensor = field(repr=False)
    errors: Tensor = field(repr=False)
    metric: str
    names: tuple[str, str]

    @property
    def verdict(self) -> str:
        """The score in a line."""
        if self.rating is None:
            return f"quality {self.quality:.4f}"
        score, low, high = (float(end) for end in (self.rating.score, self.rating.low, self.rating.high))
        return f"quality {self.quality:.4f}, rated {score:.0f} of 100 ({low:.0f} to {high:.0f}): {self.rating.words[0]}"

    def to_dict(self) -> dict[str, Any]:
        """The numbers and words, without pictures, as plain values for JSON."""
        rating = self.rating
        ends = {} if rating is None else {"rating": rating.score, "low": rating.low, "high": rating.high}
        return {
            "metric": self.metric,
            "quality": self.quality,
            "loss": self.loss,
            **{name: round(float(end), 1) for name, end in ends.items()},
            **({} if rating is None else {"words": rating.words[0]}),
            "maps": [{**asdict(m), "map": str(m.map)} for m in self.maps],
        }

    def to_html(self) -> str:
        """One page with everything in it, which asks nothing of the network."""
        from fmiqa.explanation.page import page

        return page(self)

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the page, whole or not at all.

        Raises:
            OSError: The file cannot be written.
        """
        write_whole(path, self.to_html().encode(errors="backslashreplace"))  # names of files need not be Unicode

    def __str__(self) -> str:
        shown = self.maps[: len(self.errors)]
        rows = [(f"{m.share:.1%}", f"{m.score:.4f}", str(m.map), m.words) for m in shown]
        others = self.maps[len(shown) :]
        if others:
            rows.append(
                (f"{sum(m.share for m in others):.1%}", "", f"{len(others)} other{'s' * (len(others) > 1)}", "")
            )
        return f"{self.verdict}\n\n{text_table([('of the loss', 'score', 'map', 'detects'), *rows])}"

    def _repr_html_(self) -> str:
        page = escape(self.to_html(), quote=True)
        return f'<iframe srcdoc="{page}" title="Explanation" style="width:100%;height:800px;border:0"></iframe>'


@torch.no_grad()
def explain(
    test: Tensor,
    reference: Tensor,
    *,
    metric: SelectedFeatureIQM | str | None = None,
    maps: int = 12,
    names: tuple[str, str] = ("test image", "reference"),
) -> Explanation:
    """Say why a test image got its score: how much of the loss each map takes, what the map detects, and where.

    With map scores s_i, the metric's power p and its weights w_i, of sum 1, the pooled score is q = sum of w_i s_i^p.
    Map i takes the share w_i (1 - s_i^p) / (1 - q) of the loss 1 - q. The shares add up to 1; where nothing is lost,
    all are 0. For `pool="layer_geometric"` see `fmiqa.pooling.loss_shares`.

    What maps detect is found by showing them simple stimuli, see `fmiqa.explanation.detected_by`. That takes 0.7 s
    for `"fast"` on one core, once for each metric.

    Args:
        test: (3, H, W) or (1, 3, H, W), float in [0, 1] or uint8.
        reference: The same, of the same size, on the same device.
        metric: A metric on the device of the images, or the name of a ready-made one, see `fmiqa.load_metric`; by
            default `"fast"`.
        maps: How many maps, those of the greatest shares, get an error map and are shown.
        names: What the page calls the test image and the reference.

    Raises:
        InputError: Images of other sizes or forms, or of two devices; a metric whose maps have no local losses (only
            those compared by SSIM or gradient similarity have) or whose score is NaN; `maps` is below 1.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> reference = torch.rand(3, 96, 128, generator=generator)
        >>> noisy = (reference + 0.2 * torch.randn(3, 96, 128, generator=generator)).clamp(0, 1)
        >>> explanation = explain(noisy, reference)
        >>> print(round(sum(m.share for m in explanation.maps), 6))
        1.0
        >>> explanation.errors.shape
        torch.Size([12, 96, 128])
    """
    tested, original = _one_image(test, "test image"), _one_image(reference, "reference")
    if not is_count(maps):
        raise InputError(f"maps is how many maps are shown, a whole number from 1, got {maps!r}")
    iqm = (
        load_metric("fast" if metric is None else metric, device=tested.device)
        if isinstance(metric, str | None)
        else metric
    )
    if not isinstance(iqm, SelectedFeatureIQM):
        raise InputError(f"metric is a SelectedFeatureIQM or a name, got {type(metric).__name__}")
    for measure in iqm.measures.values():
        if local_measure(measure).value_range[1] != 1:
            raise InputError(f"the loss is 1 less the score, but the best value of {measure.name} is not 1")
    found = iqm.map_scores(tested, original)
    quality, scores = iqm.combined(found), found.double().cpu()
    pool, weights, power = iqm.pool, iqm.weights, iqm.power
    loss = 1 - float(pool_scores(scores, iqm.maps, pool=pool, weights=weights, power=power))
    if math.isnan(loss):
        raise InputError("the metric gives NaN for these images, so that there is no loss to share among its maps")
    shares = loss_shares(scores, iqm.maps, pool=pool, weights=weights, power=power)[0].tolist()
    order = sorted(range(len(iqm.maps)), key=lambda i: (-shares[i], i))
    detects, scale = detected_by(iqm), _scales(iqm, tested)
    explained = tuple(
        ExplainedMap(
            iqm.maps[i],
            float(scores[0, i]),
            shares[i],
            detects[i].words(scale[iqm.maps[i].source]),
            detects[i].selectivity,
        )
        for i in order
    )
    return Explanation(
        quality=float(quality),
        loss=loss,
        rating=iqm.rating(quality) if isinstance(iqm, ReadyMetric) else None,
        maps=explained,
        test=tested[0].cpu(),
        reference=original[0].cpu(),
        error=iqm.error_map(tested, original)[0, 0].cpu(),
        errors=iqm.error_maps(tested, original, iqm.maps.at(order[:maps]))[0].cpu(),
        metric=iqm.signature if isinstance(iqm, ReadyMetric) else f"{iqm.extra_repr()} (fmiqa {__version__})",
        names=names,
    )


def _one_image(image: Tensor, what: str) -> Tensor:
    """(1, 3, H, W)."""
    given = check_tensor(image, f"{what} (3, H, W)")
    if given.ndim == 3:
        given = given[None]
    if given.ndim != 4 or given.shape[:2] != (1, 3):
        raise InputError(f"the {what} is one RGB image, (3, H, W) or (1, 3, H, W), got {tuple(image.shape)}")
    return given


def _scales(metric: SelectedFeatureIQM, image: Tensor) -> dict[str, float]:
    """Source -> pixels of the image for each that its network sees."""
    height, width = image.shape[-2:]
    seen = {source: extractor.viewing.size(height, width) for source, extractor in metric.extractors.items()}
    return {source: math.sqrt(height * width / (rows * columns)) for source, (rows, columns) in seen.items()}
