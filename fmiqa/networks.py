"""Convolutional networks cut to their convolutions: which layers there are, how they are named, what each needs."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, fx, nn

from fmiqa.errors import InputError

__all__ = ["NETWORKS", "Layer", "Stage", "blank_network", "conv_filters", "keep_layers", "trace_layers"]

NETWORKS = ("alexnet", "vgg11", "vgg13", "vgg16", "vgg19", "squeezenet1_1")

Stage = Literal["relu", "conv"]
"""Where a layer's maps are taken: after its ReLU, or the convolution's own output."""


@dataclass(frozen=True)
class Layer:
    """A convolutional layer of a traced network.

    Args:
        name: as the field writes it (`conv1`, `conv3_2`), or the module path.
        path: the module path of the convolution.
        channels: how many feature maps it has.
        conv: graph node of the convolution.
        output: graph node whose value holds the maps.
        rectify: whether that value has still to go through a ReLU.
    """

    name: str
    path: str
    channels: int
    conv: str
    output: str
    rectify: bool


def blank_network(name: str) -> nn.Module:
    """A torchvision network without memory for its weights (on the meta device).

    Raises:
        InputError: the name is none of `NETWORKS`.
    """
    if name not in NETWORKS:
        raise InputError(f"no network {name!r}: give one of {', '.join(NETWORKS)}, or an nn.Module of your own")
    from torchvision.models import get_model

    with torch.device("meta"):
        return get_model(name, weights=None)  # type: ignore[no-any-return]


def trace_layers(
    model: nn.Module, stage: Stage, keep: Iterable[str] | None = None
) -> tuple[fx.GraphModule, dict[str, Layer]]:
    """Cut a copy of `model` to what its convolutions need, and list these in the order they run.

    Args:
        model: a network of one image tensor.
        stage: where the maps are taken.
        keep: names of the layers to keep, all by default.

    Raises:
        InputError: the network cannot be traced, has no `nn.Conv2d`, or lacks a layer of `keep`.
    """
    model = copy.deepcopy(model).eval().requires_grad_(False)
    names = _field_names(model)
    head = _classifier(model)
    try:
        graph = fx.Tracer().trace(model)
    except Exception as error:  # data-dependent control flow fails in as many ways as there are networks
        raise InputError(
            f"{type(model).__name__} cannot be traced by torch.fx ({error}); pass a network whose forward takes one "
            "image tensor and does not branch on its values, or the convolutional part alone"
        ) from error
    modules = dict(model.named_modules())
    layers: dict[str, Layer] = {}
    for node in list(graph.nodes):
        conv = modules.get(str(node.target)) if node.op == "call_module" else None
        path = str(node.target)
        if not isinstance(conv, nn.Conv2d) or path in head:
            continue
        calls = sum(layer.path == path for layer in layers.values())
        name = names.get(path, path) + (f"#{calls + 1}" if calls else "")
        output, rectify = (node, False) if stage == "conv" else _rectified(node, modules)
        layers[name] = Layer(name, path, conv.out_channels, node.name, output.name, rectify)
    if not layers:
        raise InputError(f"{type(model).__name__} has no nn.Conv2d layer, so there are no feature maps to compare")
    network, layers = keep_layers(model, graph, layers, list(layers if keep is None else keep))
    if stage == "conv":
        _forbid_overwriting(network)
    return network, layers


def keep_layers(
    model: nn.Module, graph: fx.Graph, layers: dict[str, Layer], keep: Iterable[str]
) -> tuple[fx.GraphModule, dict[str, Layer]]:
    """Drop all that the layers to keep do not need.

    Raises:
        InputError: a layer to keep that is not there, or none.
    """
    kept = list(keep)
    if not kept or not set(kept) <= set(layers):
        raise InputError(f"layers to keep: {', '.join(kept) or 'none'}; the network has {', '.join(layers)}")
    layers = {name: layer for name, layer in layers.items() if name in kept}
    nodes = {node.name: node for node in graph.nodes}
    outputs = dict.fromkeys(nodes[layer.output] for layer in layers.values())
    graph.output_node().args = (tuple(outputs),)
    graph.eliminate_dead_code(is_impure_node=lambda node: node.op in ("placeholder", "output"))
    return fx.GraphModule(model, graph), layers  # holds only the modules that the graph still names


def _rectified(conv: fx.Node, modules: dict[str, nn.Module]) -> tuple[fx.Node, bool]:
    """The node after the ReLU that follows a convolution (and its normalisation), and whether it lacks one."""
    node = conv
    while len(node.users) == 1:
        (user,) = node.users
        module = modules.get(str(user.target)) if user.op == "call_module" else None
        if isinstance(module, nn.ReLU) or user.target in (torch.relu, torch.relu_, nn.functional.relu, "relu", "relu_"):
            return user, False
        if not isinstance(module, nn.BatchNorm2d):
            break
        node = user
    return node, True


def _forbid_overwriting(network: fx.GraphModule) -> None:
    """An in-place ReLU would change the convolution's output after it was handed out."""
    for module in network.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    for node in network.graph.nodes:
        if node.op == "call_function" and node.kwargs.get("inplace"):
            node.update_kwarg("inplace", False)
        if node.target in (torch.relu_, "relu_"):
            node.target = torch.relu if node.op == "call_function" else "relu"
    network.recompile()


def _classifier(model: nn.Module) -> set[str]:
    """SqueezeNet's classifier is a convolution too, and no layer of its features."""
    from torchvision.models import SqueezeNet

    return {"classifier.1"} if isinstance(model, SqueezeNet) else set()


def _field_names(model: nn.Module) -> dict[str, str]:
    """conv1..conv5 for AlexNet, conv1_1..conv5_4 for VGG; other networks keep their module paths."""
    from torchvision.models import VGG, AlexNet

    if not isinstance(model, AlexNet | VGG):
        return {}
    names: dict[str, str] = {}
    block, place = 1, 0
    for path, module in model.features.named_children():
        if isinstance(module, nn.Conv2d):
            place += 1
            names[f"features.{path}"] = f"conv{place}" if isinstance(model, AlexNet) else f"conv{block}_{place}"
        elif isinstance(module, nn.MaxPool2d) and isinstance(model, VGG):
            block, place = block + 1, 0
    return names


def conv_filters(conv: nn.Conv2d, images: Tensor, channels: list[int]) -> Tensor:
    """Run only some filters of an ungrouped convolution: (N, C, H, W) -> (N, len(channels), H', W')."""
    bias = None if conv.bias is None else conv.bias[channels]
    return nn.functional.conv2d(images, conv.weight[channels], bias, conv.stride, conv.padding, conv.dilation)
