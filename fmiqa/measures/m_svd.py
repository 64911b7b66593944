"""M-SVD: singular values of blocks (Shnayderman, Gusev and Eskicioglu 2006)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fmiqa.errors import InputError
from fmiqa.measures.base import MapMeasure, Sides

__all__ = ["MSVD"]


@dataclass(frozen=True)
class MSVD(MapMeasure):
    r"""How unevenly the singular values of blocks change over the map: from 0, where maps are equal; lower is better.

    A. Shnayderman, A. Gusev, A. M. Eskicioglu, "An SVD-based grayscale image quality measure for local and global
    assessment", IEEE TIP 15(2), 2006. For each block i, D_i is the Euclidean distance between the singular values of
    both maps; of n blocks the value is

    .. math::

        \frac{1}{n} \sum_{i=1}^{n} \left| D_i - \operatorname{median}(D) \right|

    So a distortion that changes all blocks alike
    counts for nothing, and a value of 0 does not mean that maps are equal. The measure is symmetric. Its unit is that
    of the maps.

    Blocks are laid from the upper left corner. Rows and columns that do not fill a block are left out, as the paper
    considers whole blocks only. A map needs two blocks along each side, since one block alone always has the value 0.

    The gradient of singular values exists even where some of them are equal, but there it is one of several
    (D_i has a kink). Where both blocks have the same singular values, the gradient of D_i is set to 0.

    Args:
        block: Side of the blocks in map positions, at least 2. The default is the paper's, for images.

    Raises:
        InputError: The side is out of range.

    Example:
        >>> maps = torch.zeros(1, 1, 16, 16)
        >>> test = maps.clone()
        >>> test[..., :8, :8] = 1  # a block of ones has the singular value 8
        >>> round(MSVD()(test, maps).item(), 4)
        2.0
    """

    block: int = 8

    name: ClassVar[str] = "m-svd"
    higher_is_better: ClassVar[bool] = False
    value_range: ClassVar[tuple[float, float]] = (0.0, math.inf)

    def __post_init__(self) -> None:
        if not isinstance(self.block, int) or self.block < 2:
            raise InputError(f"block is a whole number from 2, got {self.block!r}")

    @property
    def smallest(self) -> int:
        """The least side of a map."""
        return 2 * self.block

    def _reference(self, maps: Tensor, limit: Tensor) -> Sides:
        return (self._singular_values(maps),)

    def _score(self, test: Tensor, limit: Tensor, sides: Sides) -> Tensor:
        # This norm has gradient 0 where the difference is 0; a square root would have NaN.
        distances: Tensor = torch.linalg.vector_norm(self._singular_values(test) - sides[0], dim=-1)
        # Of an even number PyTorch takes the lower middle one; the sum is the same for all between both middle ones.
        return (distances - distances.median(-1, keepdim=True).values).abs().mean(-1)

    def _singular_values(self, maps: Tensor) -> Tensor:
        """(N, C, blocks, block), in descending order."""
        side = self.block
        blocks = maps.unfold(-2, side, side).unfold(-2, side, side)  # (N, C, rows, columns, side, side)
        values: Tensor = torch.linalg.svdvals(blocks.flatten(2, 3))
        return values
