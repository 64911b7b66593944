"""What the metrics of whole images share: their input, and its grey values."""

from __future__ import annotations

from torch import Tensor

from fmiqa._checks import check_images
from fmiqa.errors import InputError

__all__ = ["grey", "image_pair"]


def image_pair(name: str, test: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
    """Both images as floating point in [0, 1].

    Args:
        name: Name of the metric, for error messages.
        test: (N, 3, H, W), uint8 or float in [0, 1].
        reference: (N, 3, H, W) or (1, 3, H, W), uint8 or float in [0, 1].

    Raises:
        InputError: The images are not of this form, or their shapes differ.
    """
    check_images(test, f"{name}, test")
    check_images(reference, f"{name}, reference")
    if test.shape[1:] != reference.shape[1:] or len(reference) not in (1, len(test)):
        raise InputError(
            f"{name} compares images of one shape: test {tuple(test.shape)}, reference {tuple(reference.shape)} "
            "(the reference may be one image for all)"
        )
    test, reference = (side if side.is_floating_point() else side.float() / 255 for side in (test, reference))
    return test, reference


def grey(images: Tensor) -> Tensor:
    """(N, 3, H, W) -> (N, H, W), luma with the weights of ITU-R BT.601, not rounded."""
    red, green, blue = images.unbind(1)
    luma: Tensor = 0.299 * red + 0.587 * green + 0.114 * blue
    return luma
