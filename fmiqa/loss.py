"""A metric as a loss to train with."""

from __future__ import annotations

from typing import Any, Literal, get_args

from torch import Tensor, nn

from fmiqa.errors import InputError

__all__ = ["QualityLoss", "Reduction"]

Reduction = Literal["mean", "sum", "none"]


class QualityLoss(nn.Module):
    """How far the quality of images is from the best value, which is 1 with SSIM; `iqm.as_loss()` makes it.

    The metric's networks are frozen and stay in evaluation mode, so that only images receive gradients: both test and
    reference images where they require them. Their parameters are in `parameters()` with `requires_grad=False`, which
    optimizers leave unchanged, and in `state_dict()`.

    Args:
        iqm: The metric.
        best: Its value for an image and itself.
        reduction: `"mean"` or `"sum"` over the images, or `"none"`.

    Raises:
        InputError: An unknown reduction.
    """

    def __init__(self, iqm: nn.Module, *, best: float = 1.0, reduction: Reduction = "mean") -> None:
        super().__init__()
        if not isinstance(reduction, str) or reduction not in get_args(Reduction):
            raise InputError(f"reduction must be one of {', '.join(get_args(Reduction))}, got {reduction!r}")
        self.iqm = iqm
        self.best = best
        self.reduction: Reduction = reduction

    def forward(self, test: Tensor, reference: Any) -> Tensor:
        """The loss of test images against their references; arguments as of the metric.

        Returns:
            A scalar, or (N,) with `reduction="none"`; at least 0 up to rounding, and 0 for equal images.
        """
        loss: Tensor = self.best - self.iqm(test, reference)
        if self.reduction == "none":
            return loss
        return loss.mean() if self.reduction == "mean" else loss.sum()

    def extra_repr(self) -> str:
        """Shown by repr()."""
        return f"reduction={self.reduction!r}"
