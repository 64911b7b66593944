"""M-SVD of images (Shnayderman, Gusev and Eskicioglu 2006)."""

from __future__ import annotations

from torch import Tensor

from fmiqa.evaluation.peers.images import grey, image_pair
from fmiqa.measures import MSVD

__all__ = ["m_svd"]


def m_svd(test: Tensor, reference: Tensor) -> Tensor:
    """`fmiqa.measures.MSVD` of grey values from 0 to 255 in 8x8 blocks, as in the paper; lower is better.

    The grey value is 0.299 R + 0.587 G + 0.114 B, not rounded. For single maps and other blocks, use the class.

    Args:
        test: (N, 3, H, W), uint8 or float in [0, 1], with sides of at least 16.
        reference: (N, 3, H, W) or (1, 3, H, W), uint8 or float in [0, 1].

    Returns:
        (N,), at least 0.

    Raises:
        InputError: The images are not of this form, their shapes differ or they are too small.

    Example:
        >>> import torch
        >>> reference = torch.zeros(1, 3, 16, 16)
        >>> test = reference.clone()
        >>> test[..., :8, :8] = 1
        >>> m_svd(test, reference).round(decimals=2)
        tensor([510.])
    """
    x, y = (255 * grey(side)[:, None] for side in image_pair("M-SVD", test, reference))
    return MSVD()(x, y)[:, 0]
