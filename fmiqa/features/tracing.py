"""Tracing: a network's graph, cut to its convolutional layers and made safe to hand their maps out."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Literal

import torch
from torch import Tensor, fx, nn
from torch.nn.parameter import is_lazy

from fmiqa.errors import InputError

__all__ = ["Layer", "Stage", "keep_layers", "layer_nodes", "refuse_meta", "trace_layers"]

Stage = Literal["relu", "conv"]
"""Where a layer's maps are taken: after its ReLU, or the convolution's own output."""


@dataclass(frozen=True)
class Layer:
    """A convolutional layer of a traced network.

    Args:
        name: Name as the field writes it (`conv1`, `conv3_2`), or the module path.
        path: Module path of the convolution.
        channels: Number of feature maps.
        rectify: Whether the value that holds the maps has still to go through a ReLU.
    """

    name: str
    path: str
    channels: int
    rectify: bool


def trace_layers(
    model: nn.Module,
    stage: Stage,
    keep: Iterable[str] | None = None,
    *,
    names: Mapping[str, str] | None = None,
    head: Container[str] = (),
) -> tuple[fx.GraphModule, dict[str, Layer]]:
    """Cut a copy of `model` to what its convolutions need, and list these in the order they run.

    Nothing in the copy overwrites maps that are handed out.

    Args:
        model: A network of one image tensor; further arguments of its `forward` keep their defaults.
        stage: Where the maps are taken.
        keep: Names of the layers to keep, all by default.
        names: Names of layers, by the paths of their convolutions; other layers are called by their paths.
        head: Paths of convolutions that are no layers of their own, such as a classifier.

    Raises:
        InputError: The network cannot be traced, has no `nn.Conv2d`, or lacks a layer of `keep`.
    """
    _refuse_unreadable(model)
    model = _copied(model).eval().requires_grad_(False)
    try:
        graph = _Tracer().trace(model, concrete_args=_defaults(model))
    except InputError:
        raise
    except Exception as error:  # data-dependent control flow fails in as many ways as there are networks
        raise InputError(
            f"{type(model).__name__} cannot be traced by torch.fx ({error}); pass a network whose forward takes one "
            "image tensor and does not branch on its values, or the convolutional part alone"
        ) from error
    for node in graph.nodes:
        node.type = None  # a postponed annotation, which is a string, keeps older versions of torch from pickling
    modules = dict(model.named_modules())
    _follow_writes(graph, modules)
    layers: dict[str, Layer] = {}
    ends: list[tuple[fx.Node, fx.Node]] = []
    for node in list(graph.nodes):
        conv = modules.get(str(node.target)) if node.op == "call_module" else None
        path = str(node.target)
        if not isinstance(conv, nn.Conv2d) or path in head:
            continue
        calls = sum(layer.path == path for layer in layers.values())
        name = (names or {}).get(path, path) + (f"#{calls + 1}" if calls else "")
        output, rectify = (node, False) if stage == "conv" else _rectified(node, modules)
        layers[name] = Layer(name, path, conv.out_channels, rectify)
        ends.append((node, output))
    if not layers:
        raise InputError(f"{type(model).__name__} has no nn.Conv2d layer, so there are no feature maps to compare")
    graph.output_node().args = (tuple(ends),)
    _separate_writes(graph, modules)
    return keep_layers(model, graph, layers, layers if keep is None else keep)


def _refuse_unreadable(model: nn.Module) -> None:
    """Raise `InputError` for modules whose operations or weights are not there to be read."""
    name = type(model).__name__
    if isinstance(model, torch.jit.ScriptModule):
        raise InputError(
            f"{name} is a TorchScript module, whose operations torch.fx cannot trace; pass the nn.Module that it was "
            "made from"
        )
    lazy = [path for path, parameter in model.named_parameters() if is_lazy(parameter)]
    if lazy:
        raise InputError(
            f"{name} has lazy layers without weights yet ({', '.join(lazy[:3])}); run it once on an image before "
            "passing it"
        )
    if any(parameter.is_complex() for parameter in model.parameters()):
        raise InputError(f"{name} has complex weights; feature maps are real, pass a network of real weights")
    scripted = [path for path, module in model.named_modules() if isinstance(module, torch.jit.ScriptModule)]
    if scripted:
        raise InputError(
            f"{name} holds TorchScript modules ({', '.join(scripted[:3])}), which torch.fx cannot trace; pass the "
            "network with the nn.Modules that they were made from"
        )


def refuse_meta(model: nn.Module) -> None:
    """Raise `InputError` for a module on the meta device, whose weights have no values."""
    if any(tensor.is_meta for tensor in chain(model.parameters(), model.buffers())):
        raise InputError(
            f"{type(model).__name__} is on the meta device and its weights have no values; pass weights=, a file or a "
            "state dict"
        )


def layer_nodes(graph: fx.Graph) -> list[tuple[fx.Node, fx.Node]]:
    """Each layer's convolution and the node whose value holds its maps, in the order of the layers.

    They are read off the graph's output, since nodes get other names when a network is unpickled.
    """
    return list(graph.output_node().args[0])  # type: ignore[arg-type]


def keep_layers(
    model: nn.Module, graph: fx.Graph, layers: dict[str, Layer], keep: Iterable[str]
) -> tuple[fx.GraphModule, dict[str, Layer]]:
    """Drop all that the layers to keep do not need; `graph` itself is changed.

    Raises:
        InputError: A layer to keep is not there, or none is named.
    """
    if isinstance(keep, str) or not isinstance(keep, Iterable):
        raise InputError(f"layers to keep must be a list of names, as in ['conv1'], got {keep!r}")
    kept = list(keep)
    if not all(isinstance(name, str) for name in kept):
        raise InputError(f"layers to keep must be a list of names, as in ['conv1'], got {kept!r}")
    if not kept or not set(kept) <= set(layers):
        raise InputError(f"layers to keep: {', '.join(kept) or 'none'}; the network has {', '.join(layers)}")
    ends = tuple(ends for name, ends in zip(layers, layer_nodes(graph), strict=True) if name in kept)
    layers = {name: layer for name, layer in layers.items() if name in kept}
    graph.output_node().args = (ends,)
    graph.eliminate_dead_code(is_impure_node=lambda node: node.op in ("placeholder", "output"))
    return fx.GraphModule(model, graph), layers  # holds only the modules that the graph still names


def _copied(model: nn.Module) -> nn.Module:
    """A deep copy, also of modules that hold computed tensors, as pruned ones do."""
    held = [value for module in model.modules() for value in vars(module).values() if isinstance(value, Tensor)]
    return copy.deepcopy(model, {id(value): value.detach().clone() for value in held if not value.is_leaf})


class _Tracer(fx.Tracer):
    """Takes every convolution as one step, those of other packages too."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, nn.Conv2d) or super().is_leaf_module(m, module_qualified_name)


def _defaults(model: nn.Module) -> dict[str, object]:
    """What the arguments of `forward` after the images are by default."""
    others = list(inspect.signature(model.forward).parameters.values())[1:]
    named = [p for p in others if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    needed = [p.name for p in named if p.default is p.empty]
    if needed:
        raise InputError(
            f"{type(model).__name__}.forward needs {', '.join(needed)} beside the images; pass a network whose "
            "forward takes one image tensor, or a wrapper that fills in the rest"
        )
    return {p.name: p.default for p in named}


_RELUS = (torch.relu, torch.relu_, nn.functional.relu, nn.functional.relu6, "relu", "relu_")
_NORMALISATIONS = (nn.BatchNorm2d, nn.SyncBatchNorm, nn.GroupNorm, nn.InstanceNorm2d)


def _rectified(conv: fx.Node, modules: dict[str, nn.Module]) -> tuple[fx.Node, bool]:
    """The node after the ReLU that follows a convolution (and its normalisation), and whether it lacks one."""
    node = conv
    while len(node.users) == 1:
        (user,) = node.users
        module = modules.get(str(user.target)) if user.op == "call_module" else None
        if isinstance(module, nn.ReLU | nn.ReLU6) or (user.op != "call_module" and user.target in _RELUS):
            return user, False
        if not isinstance(module, _NORMALISATIONS):
            break
        node = user
    return node, True


def _follow_writes(graph: fx.Graph, modules: dict[str, nn.Module]) -> None:
    """Where an operation writes into its input, let later readers of that input read the operation's result.

    torch.fx knows only results: after the statement `F.relu_(x)` it would read x as it was before.
    """
    place = {node: i for i, node in enumerate(graph.nodes)}
    for node in graph.nodes:
        value = _written(node, modules)
        if value is not None:
            for user in [user for user in value.users if place[user] > place[node]]:
                user.replace_input_with(value, node)


def _separate_writes(graph: fx.Graph, modules: dict[str, nn.Module]) -> None:
    """Let operations that write into their input write into a copy, but where only they read it."""
    handed_out = {output for _, output in layer_nodes(graph)}
    for node in list(graph.nodes):
        value = _written(node, modules)
        if value is None:
            continue
        readers = [user for user in value.users if user.op != "output"]
        if _is_fresh(value, modules) and readers == [node] and value not in handed_out:
            continue
        with graph.inserting_before(node):
            node.replace_input_with(value, graph.call_method("clone", (value,)))


def _written(node: fx.Node, modules: dict[str, nn.Module]) -> fx.Node | None:
    """The value that a node writes into, if it does so."""
    value = node.args[0] if node.args else node.kwargs.get("input")
    if node.op == "call_module":
        writes = getattr(modules[str(node.target)], "inplace", False) is True
    elif node.op == "call_method":
        writes = str(node.target).endswith("_") and not str(node.target).endswith("__")
    elif node.op == "call_function":
        name = getattr(node.target, "__name__", "")
        writes = (name.endswith("_") and not name.endswith("__")) or _asks_in_place(node)
    else:
        writes = False
    return value if writes and isinstance(value, fx.Node) else None


def _asks_in_place(node: fx.Node) -> bool:
    """Whether a function such as F.relu is called with inplace=True, by name or by position."""
    try:
        given = inspect.signature(node.target).bind(*node.args, **node.kwargs)  # type: ignore[arg-type]
    except (TypeError, ValueError):  # a built-in without a signature; those say so in their names
        return False
    return given.arguments.get("inplace", False) is True


def _is_fresh(value: fx.Node, modules: dict[str, nn.Module]) -> bool:
    """Whether a value has memory of its own, shared with no other value."""
    return value.op == "call_module" and type(modules[str(value.target)]) in (nn.Conv2d, nn.BatchNorm2d)
