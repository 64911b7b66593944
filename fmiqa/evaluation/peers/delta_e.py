"""Mean CIELAB colour difference of sRGB images (CIE 1976)."""

from __future__ import annotations

import torch
from torch import Tensor

from fmiqa.evaluation.peers.images import image_pair

__all__ = ["cielab", "delta_e_ab"]

# From linear sRGB to CIE XYZ: the primaries of IEC 61966-2-1, and D65 at (0.95047, 1, 1.08883), 2 degree observer.
_TO_XYZ = (
    (0.4124564, 0.3575761, 0.1804375),
    (0.2126729, 0.7151522, 0.0721750),
    (0.0193339, 0.1191920, 0.9503041),
)
_DELTA = 6 / 29  # where the cube root of CIELAB gives way to a straight line


def delta_e_ab(test: Tensor, reference: Tensor) -> Tensor:
    """Mean colour difference: dE*ab of CIE 1976, averaged over all pixels.

    It starts at 0, for equal images; lower is better. A difference of about 2.3 is just noticeable on uniform patches.
    The images are taken as sRGB (IEC 61966-2-1), seen under D65 by the CIE's 2 degree observer. The difference of a
    single pixel has no slope where both colours are equal; its gradient is 0 there.

    Args:
        test: (N, 3, H, W), uint8 or float in [0, 1].
        reference: (N, 3, H, W) or (1, 3, H, W), uint8 or float in [0, 1].

    Returns:
        (N,), at least 0. The difference is symmetric.

    Raises:
        InputError: The images are not of this form, or their shapes differ.

    Example:
        >>> black, white = torch.zeros(1, 3, 8, 8), torch.ones(1, 3, 8, 8)
        >>> delta_e_ab(white, black).round(decimals=3)
        tensor([100.])
    """
    test, reference = image_pair("dE_ab", test, reference)
    difference = cielab(test) - cielab(reference)
    # This norm has gradient 0 where the difference is 0; a square root would have NaN.
    distances: Tensor = torch.linalg.vector_norm(difference, dim=1)
    return distances.mean((-2, -1))


def cielab(images: Tensor) -> Tensor:
    """CIELAB coordinates of sRGB images.

    Args:
        images: (N, 3, H, W) float in [0, 1].

    Returns:
        (N, 3, H, W): L* from 0 to 100, a* and b*.

    Example:
        >>> red = torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1)
        >>> cielab(red).flatten().round(decimals=2)
        tensor([53.2400, 80.0900, 67.2000])
    """
    # The power is never taken of less than the threshold: its slope would be infinite or NaN there.
    above = ((images.clamp(min=0.04045) + 0.055) / 1.055) ** 2.4
    red, green, blue = torch.where(images > 0.04045, above, images / 12.92).unbind(1)
    # Relative to white, which is the sum of the primaries: greys have a* = b* = 0 up to rounding.
    x, y, z = (_companded((r * red + g * green + b * blue) / (r + g + b)) for r, g, b in _TO_XYZ)
    return torch.stack((116 * y - 16, 500 * (x - y), 200 * (y - z)), 1)


def _companded(relative: Tensor) -> Tensor:
    cube_root = relative.clamp(min=_DELTA**3) ** (1 / 3)
    return torch.where(relative > _DELTA**3, cube_root, relative / (3 * _DELTA**2) + 4 / 29)
