"""3 x 3 convolutions with 4/9 of the multiplications, in float32 on CPUs (Lavin & Gray 2016, F(2 x 2, 3 x 3)).

An input tile of 4 x 4 and a filter, both transformed, are multiplied elementwise, and the sum over the input channels
is transformed back to an output tile of 2 x 2. So a convolution is 16 matrix products between two passes of additions.
With fewer products to sum, it is rounded no more than the direct convolution is. Networks of 3 x 3 filters (VGG) take
most of their time here: of 128 channels nine tenths of what PyTorch's own convolution takes, of 512 not much over half.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.weak import WeakTensorKeyDictionary

from fmiqa.fusing import Fused

__all__ = ["convolve_winograd", "suits_winograd"]

_TILES = 256  # transformed at a time: enough for the products to be fast, few enough to stay in cache
_FEWEST_CHANNELS = 128  # in and out; with fewer, the transforms take longer than the products save
_FEWEST_TILES = 16

_transformed: WeakTensorKeyDictionary = WeakTensorKeyDictionary()  # weight -> its transform, and the version it is of


def suits_winograd(convolution: nn.Module, x: Tensor) -> bool:
    """Whether `convolve_winograd` computes this module of this input, and faster.

    Args:
        convolution: any module.
        x: its input.
    """
    return (
        type(convolution) is nn.Conv2d
        and convolution.kernel_size == (3, 3)
        and convolution.stride == convolution.dilation == (1, 1)
        and convolution.groups == 1
        and convolution.padding_mode == "zeros"
        and convolution.padding in ((0, 0), (1, 1))
        and min(convolution.in_channels, convolution.out_channels) >= _FEWEST_CHANNELS
        and x.is_cpu
        and x.ndim == 4
        and x.dtype == convolution.weight.dtype == torch.float32
        and (x.shape[2] // 2) * (x.shape[3] // 2) >= _FEWEST_TILES
        and not torch.is_autocast_enabled("cpu")
        and not (torch.is_grad_enabled() and (x.requires_grad or convolution.weight.requires_grad))
        and not torch.compiler.is_compiling()
        and not (convolution._forward_hooks or convolution._forward_pre_hooks)
    )


def convolve_winograd(convolution: nn.Conv2d, x: Tensor) -> Tensor:
    """What `convolution(x)` gives, where `suits_winograd(convolution, x)`.

    Args:
        convolution: 3 x 3, of stride 1.
        x: (N, C, H, W) float32.

    Returns:
        (N, K, H', W'), channels last.

    Example:
        >>> convolution, x = nn.Conv2d(128, 128, 3, padding=1).requires_grad_(False), torch.rand(1, 128, 30, 41)
        >>> suits_winograd(convolution, x)
        True
        >>> bool((convolve_winograd(convolution, x) - convolution(x)).abs().max() < 1e-5)
        True
    """
    weight, bias = _transform_of(convolution.weight), convolution.bias
    channels, filters = weight.shape[1:]
    pad = int(convolution.padding[0])
    x = x.permute(0, 2, 3, 1)
    count, height, width = x.shape[0], x.shape[1] + 2 * pad - 2, x.shape[2] + 2 * pad - 2
    down, across = -(-height // 2), -(-width // 2)  # tiles
    out = x.new_empty(count, height, width, filters)
    rows = -(-down // max(1, -(-down * across // _TILES)))
    for image, maps in zip(x, out, strict=True):
        for first in range(0, down, rows):
            last = min(down, first + rows)
            top, bottom = 2 * first - pad, 2 * last + 2 - pad  # with the border around the image
            border = (pad, 2 * across + 2 - pad - image.shape[1], max(0, -top), max(0, bottom - image.shape[0]))
            tiles = _to_tiles(F.pad(image[max(0, top) : bottom], (0, 0, *border)))
            products = torch.bmm(tiles.view(16, -1, channels), weight)
            if bias is not None:
                products[5] += bias  # counts once in each of a tile's outputs
            y = _from_tiles(products.view(4, 4, last - first, across, filters))
            rest = maps[2 * first : 2 * last]
            rest.copy_(y.view(2 * (last - first), 2 * across, filters)[: len(rest), :width])
    return out.permute(0, 3, 1, 2)


def _transform_of(weight: Tensor) -> Tensor:
    """(16, C, K) the filters (K, C, 3, 3) at the 4 x 4 positions of a tile, kept as long as they are."""
    version = 0 if weight.is_inference() else weight._version
    kept: tuple[Tensor, int] | None = _transformed.get(weight)
    if kept is None or kept[1] != version:
        half = torch.tensor([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]], dtype=torch.float64)
        filters = weight.detach().permute(2, 3, 1, 0).double()
        filters = torch.tensordot(half, torch.tensordot(half, filters, ([1], [1])), ([1], [1]))
        kept = filters.flatten(0, 1).to(weight.dtype).contiguous(), version
        _transformed[weight] = kept
    return kept[0]


@Fused
def _to_tiles(x: Tensor) -> Tensor:
    """(2 R + 2, 2 S + 2, C) -> (16, R, S, C): each 4 x 4 tile, two apart, transformed."""
    return torch.stack([tile for row in _differences(x, 0) for tile in _differences(row, 1)])


def _differences(x: Tensor, axis: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The transform of the input along one side."""
    n = x.shape[axis] // 2 - 1
    pairs = x.unflatten(axis, (n + 1, 2))
    even, odd = pairs.select(axis + 1, 0), pairs.select(axis + 1, 1)
    a, c = even.narrow(axis, 0, n), even.narrow(axis, 1, n)
    b, d = odd.narrow(axis, 0, n), odd.narrow(axis, 1, n)
    return a - c, b + c, c - b, b - d


@Fused
def _from_tiles(products: Tensor) -> Tensor:
    """(4, 4, R, S, K) -> (R, 2, S, 2, K), the outputs of each tile."""
    return torch.stack([torch.stack(_sums(row), 2) for row in _sums(products)], 1)


def _sums(products: Tensor) -> tuple[Tensor, Tensor]:
    """The transform of the products along their first side."""
    a, b, c, d = products.unbind(0)
    return a + b + c, b - c - d
