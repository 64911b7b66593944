"""What a position of a feature map sees of the image, from the operations of the network's graph."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import nn

from fmiqa.errors import InputError
from fmiqa.features.graph import Operation, walk

if TYPE_CHECKING:
    from fmiqa.features.extractor import FeatureExtractor
    from fmiqa.maps import MapIndex

__all__ = ["Reach", "Window", "reaches", "window_of"]

_WINDOWS = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)
_POINTWISE = (nn.ReLU, nn.Dropout, nn.Identity, nn.BatchNorm2d, nn.Sigmoid, nn.Tanh, nn.SiLU, nn.GELU, nn.LeakyReLU)
_POINTWISE_CALLS = ("relu", "relu_", "clone", "add", "iadd", "cat", "dropout", "contiguous", "sigmoid", "silu")


class Window(NamedTuple):
    """What a local operation sees of its input at each position, along rows and columns.

    Args:
        kernel: Taps of the window.
        stride: Positions of the input from one window to the next.
        padding: Positions before the input's first that the first window covers.
        dilation: Positions of the input from one tap to the next.
        module: The convolution or pooling; None for an operation that takes each position by itself, also of several
            maps side by side.
    """

    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    module: Any = None

    def span(self, axis: int) -> int:
        """The distance from the first tap to the last along rows (axis 0) or columns (axis 1)."""
        return self.dilation[axis] * (self.kernel[axis] - 1)


def window_of(network: nn.Module, operation: Operation) -> Window | None:
    """The window that an operation looks through; None where it is not known to be local."""
    if operation.kind != "call_module":
        return Window() if operation.kind == "placeholder" or _is_pointwise_call(operation) else None
    module: Any = network.get_submodule(operation.target)
    if isinstance(module, _WINDOWS):
        if isinstance(module, nn.Conv2d) and (module.padding_mode != "zeros" or isinstance(module.padding, str)):
            return None
        sizes: tuple[Any, ...] = (module.kernel_size, module.stride, module.padding, getattr(module, "dilation", 1))
        kernel, stride, padding, dilation = ((size, size) if isinstance(size, int) else size for size in sizes)
        return Window(kernel, stride, padding, dilation, module)
    # A normalisation without recorded statistics takes those of the whole map.
    whole = module.training or (isinstance(module, nn.BatchNorm2d) and module.running_mean is None)
    return Window() if isinstance(module, _POINTWISE) and not whole else None


def _is_pointwise_call(operation: Operation) -> bool:
    name = getattr(operation.target, "__name__", str(operation.target))
    if operation.kind == "get_attr" or name not in _POINTWISE_CALLS:
        return False
    args, kwargs = operation.args, operation.kwargs
    return name != "cat" or kwargs.get("dim", args[1] if len(args) > 1 else 0) in (1, -3)  # of channels


class Reach(NamedTuple):
    """What a position of a map sees along each side: position i the pixels from stride i + low to stride i + high."""

    stride: int
    low: int
    high: int

    def through(self, window: Window) -> Reach:
        """The reach behind an operation.

        Raises:
            InputError: The window differs along the two sides.
        """
        if any(len(set(sides)) > 1 for sides in window[:4]):
            raise InputError(f"{window.module} differs along the two sides, which is not supported here")
        first = -window.padding[0]
        last = first + window.span(0)
        return Reach(self.stride * window.stride[0], self.low + self.stride * first, self.high + self.stride * last)


def reaches(extractor: FeatureExtractor, maps: MapIndex) -> dict[str, Reach]:
    """What the maps of each layer see of the image, as the network sees it.

    Raises:
        InputError: A layer is not local, or not alike along both sides.
    """

    def behind(operation: Operation, before: Mapping[str, Reach | None]) -> Reach | None:
        if operation.kind == "placeholder":
            return Reach(1, 0, 0)
        if operation.kind == "get_attr":
            return None  # a constant sees nothing
        inputs = [reach for reach in (before[name] for name in operation.inputs) if reach is not None]
        window = window_of(extractor.network, operation)
        if window is None or len({reach.stride for reach in inputs}) != 1:
            raise InputError(
                f"{operation.target!r} of this network is not known to be local, so that it is not known which part of "
                "an image its maps see; give smaller images or more memory, or another network"
            )
        joined = Reach(inputs[0].stride, min(r.low for r in inputs), max(r.high for r in inputs))
        return joined.through(window)

    layers: dict[str, Reach] = {}
    for operation, reach in walk(extractor.operations(maps), behind):
        if reach is not None:
            layers.update((layer.name, reach) for layer, _ in operation.outputs)
    return layers
