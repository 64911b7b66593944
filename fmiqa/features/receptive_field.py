"""What a position of a feature map sees of the image, from the operations of the network's graph."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from torch import fx, nn

from fmiqa.errors import InputError

if TYPE_CHECKING:
    from fmiqa.features.extractor import FeatureExtractor
    from fmiqa.maps import MapIndex

__all__ = ["Reach", "is_pointwise", "reaches"]

_POINTWISE = (nn.ReLU, nn.Dropout, nn.Identity, nn.BatchNorm2d, nn.Sigmoid, nn.Tanh, nn.SiLU, nn.GELU, nn.LeakyReLU)
_POINTWISE_CALLS = ("relu", "relu_", "clone", "add", "iadd", "cat", "dropout", "contiguous", "sigmoid", "silu")


class Reach(NamedTuple):
    """What a position of a map sees along each side: position i the pixels from stride i + low to stride i + high."""

    stride: int
    low: int
    high: int

    def through(self, kernel: int, stride: int, padding: int, dilation: int) -> Reach:
        """Behind a convolution or pooling."""
        first = -padding
        last = first + dilation * (kernel - 1)
        return Reach(self.stride * stride, self.low + self.stride * first, self.high + self.stride * last)


def reaches(extractor: FeatureExtractor, maps: MapIndex) -> dict[str, Reach]:
    """What the maps of each layer see of the image, as the network sees it.

    Raises:
        InputError: a layer that is not local, or not alike along both sides.
    """
    found: dict[str, Reach] = {}
    layers: dict[str, Reach] = {}
    for node, outputs, _ in extractor.nodes_of(maps):
        inputs = [found[i.name] for i in node.all_input_nodes if i.name in found]
        if node.op == "get_attr":
            continue
        reach = Reach(1, 0, 0) if node.op == "placeholder" else _behind(extractor.network, node, inputs)
        found[node.name] = reach
        layers.update((layer.name, reach) for layer, _ in outputs)
    return layers


def is_pointwise(network: fx.GraphModule, node: fx.Node) -> bool:
    """Whether an operation takes each position by itself, also of several maps side by side."""
    if node.op == "call_module":
        module = network.get_submodule(str(node.target))
        return isinstance(module, _POINTWISE) and not module.training
    name = getattr(node.target, "__name__", str(node.target))
    if name == "cat" and node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else 0) not in (1, -3):
        return False  # not of channels
    return name in _POINTWISE_CALLS


def _behind(network: fx.GraphModule, node: fx.Node, inputs: list[Reach]) -> Reach:
    if node.op == "call_module":
        module: Any = network.get_submodule(str(node.target))
        zeros = not isinstance(module, nn.Conv2d) or (
            module.padding_mode == "zeros" and not isinstance(module.padding, str)
        )
        if isinstance(module, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d) and zeros:
            window = (module.kernel_size, module.stride, module.padding, getattr(module, "dilation", 1))
            return inputs[0].through(*(_same(v, node) for v in window))
    if is_pointwise(network, node) and inputs:
        strides = {r.stride for r in inputs}
        if len(strides) == 1:
            return Reach(strides.pop(), min(r.low for r in inputs), max(r.high for r in inputs))
    raise InputError(
        f"{node.target!r} of this network is not known to be local, so that it is not known which part of an image "
        "its maps see; give smaller images or more memory, or another network"
    )


def _same(value: Any, node: fx.Node) -> int:
    values = {int(v) for v in value} if isinstance(value, tuple) else {int(value)}
    if len(values) != 1:
        raise InputError(f"{node.target!r} of this network differs along the two sides, which is not supported here")
    return values.pop()
