"""Mean quality as a metric of torchmetrics, for validation loops, Lightning and several processes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fmiqa.errors import InputError
from fmiqa.metrics import SelectedFeatureIQM
from fmiqa.zoo.ready import load_metric

try:
    from torchmetrics import Metric
except ImportError as error:
    raise InputError(
        f"fmiqa.integrations.torchmetrics needs the package torchmetrics: pip install 'fmiqa[torchmetrics]' ({error})"
    ) from error

__all__ = ["QualityMetric"]


class QualityMetric(Metric):
    """The mean quality of all test images so far, as a `torchmetrics.Metric`.

    Every image counts the same, whatever the size of its batch and of the process that saw it. Qualities are summed in
    float64. In a `MetricCollection`, metrics of different networks or maps are never merged into one compute group.

    Args:
        iqm: A metric, or the name of a ready-made one (`fmiqa.list_metrics()`).
        **kwargs: Those of `torchmetrics.Metric`, such as `sync_on_compute`.

    Raises:
        InputError: `iqm` is neither; images as of a call of the metric; no images before `compute`.

    Example:
        >>> quality = QualityMetric("fast")
        >>> reference = torch.rand(3, 3, 64, 80, generator=torch.Generator().manual_seed(0))
        >>> quality.update(reference, reference)
        >>> round(float(quality.compute()), 4)
        1.0
    """

    higher_is_better = True
    is_differentiable = True
    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self, iqm: SelectedFeatureIQM | str = "fast", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not isinstance(iqm, (SelectedFeatureIQM, str)):
            raise InputError(
                f"iqm must be a metric (such as fmiqa.load_metric()) or the name of one, got {type(iqm).__name__}"
            )
        self.iqm = load_metric(iqm) if isinstance(iqm, str) else iqm
        # A MetricCollection takes metrics for one whose states are equal, as after a first batch of equal images; old
        # versions compare the first state alone.
        self.add_state("identity", _identity(self.iqm), dist_reduce_fx="max")
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add test images.

        Args:
            preds: Test images, (N, 3, H, W), float in [0, 1] or uint8.
            target: Their reference images, N or one for all.
        """
        quality = self.iqm(preds, target)
        self.total = self.total + quality.double().sum()
        self.count = self.count + len(quality)

    def compute(self) -> Tensor:
        """The mean quality, a float32 scalar."""
        if not self.count:
            raise InputError("there are no images to take the mean of; call update(test, reference) first")
        return (self.total / self.count).float()

    def plot(self, val: Tensor | Sequence[Tensor] | None = None, ax: Any = None) -> Any:
        """Draw one value, or several as a curve: (figure, axes), see `torchmetrics.Metric.plot`."""
        return self._plot(val, ax)


def _identity(iqm: SelectedFeatureIQM) -> Tensor:
    """(4,) numbers that tell metrics apart."""
    text = json.dumps(iqm.definition(), sort_keys=True).encode()
    digest = hashlib.sha256(text).digest()
    return torch.tensor([int.from_bytes(digest[k : k + 4], "big") for k in range(0, 16, 4)])
