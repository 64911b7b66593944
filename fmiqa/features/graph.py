"""The walk over a network's graph: the operations that a set of maps needs, in the order in which they run."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from operator import attrgetter
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, fx, nn

from fmiqa.errors import FmiqaError, InputError
from fmiqa.features.tracing import Layer, layer_nodes
from fmiqa.maps import MapIndex

__all__ = [
    "Operation",
    "layer_shapes",
    "layers_of",
    "operations_for",
    "operations_text",
    "run_operation",
    "walk",
    "without_values",
]

T = TypeVar("T")


class _Value(NamedTuple):
    """Stands for the value of an operation among the arguments of another."""

    name: str


class Operation(NamedTuple):
    """An operation of a network as plain data, which torch.compile can read, unlike the nodes of torch.fx.

    Args:
        name: Name of the operation and of its value.
        kind: `"placeholder"`, `"get_attr"`, `"call_module"`, `"call_function"` or `"call_method"`, as in torch.fx.
        target: What is called: the path of a module or an attribute, a function, or the name of a method.
        args: Positional arguments, with a `_Value` for each value of another operation.
        kwargs: Named arguments, likewise.
        inputs: Names of the values among the arguments.
        last_uses: Those of `inputs` that no later operation needs.
        outputs: The layers whose maps the value holds, each with the channels to pick; None stands for all.
        filters: The filters of a convolution that are run; None stands for all.
    """

    name: str
    kind: str
    target: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    inputs: tuple[str, ...]
    last_uses: tuple[str, ...]
    outputs: tuple[tuple[Layer, list[int] | None], ...]
    filters: list[int] | None

    def run(self, network: nn.Module, images: Tensor, values: Mapping[str, Any]) -> Any:
        """The operation's value, from the images and the values of its inputs."""
        if self.kind == "placeholder":
            return images  # the only one that is needed: the other arguments' defaults are traced in
        if self.kind == "get_attr":
            return attrgetter(self.target)(network)
        args, kwargs = _filled(self.args, values), _filled(self.kwargs, values)
        if self.kind == "call_method":
            return getattr(args[0], self.target)(*args[1:], **kwargs)
        if self.kind == "call_function":
            return self.target(*args, **kwargs)
        module = network.get_submodule(self.target)
        if self.filters is not None:
            return _run_filters(module, args[0], self.filters)
        return module(*args, **kwargs)


def operations_for(network: fx.GraphModule, layers: Iterable[Layer], maps: MapIndex) -> tuple[Operation, ...]:
    """The operations that run for a set of maps, in order.

    Where a layer's other maps are not needed further on, only the filters asked for are run.

    Args:
        network: The traced network.
        layers: All its layers, in order.
        maps: The maps wanted, all of which the network has.
    """
    wanted = maps.channels
    ends = zip(layers, layer_nodes(network.graph), strict=True)
    found = [(layer, conv, output) for layer, (conv, output) in ends if layer.name in wanted]
    needed = _ancestors(output for _, _, output in found)
    outputs: dict[fx.Node, list[tuple[Layer, list[int] | None]]] = {}
    filters: dict[fx.Node, list[int]] = {}
    for layer, conv, output in found:
        channels: list[int] | None = wanted[layer.name]
        if channels == list(range(layer.channels)):
            channels = None
        elif channels and _is_last(layer, conv, output, needed):
            filters[conv], channels = channels, None
        outputs.setdefault(output, []).append((layer, channels))
    operations = []
    used: set[fx.Node] = set()
    for node in reversed([node for node in network.graph.nodes if node in needed]):
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda n: _Value(n.name))
        inputs = node.all_input_nodes
        operations.append(
            Operation(
                name=node.name,
                kind=node.op,
                target=node.target,
                args=args,
                kwargs=kwargs,
                inputs=tuple(i.name for i in inputs),
                last_uses=tuple(i.name for i in inputs if i not in used),
                outputs=tuple(outputs.get(node, ())),
                filters=filters.get(node),
            )
        )
        used.update(inputs)
    return tuple(reversed(operations))


def walk(
    operations: Iterable[Operation], evaluate: Callable[[Operation, Mapping[str, T]], T]
) -> Iterator[tuple[Operation, T]]:
    """Walk over the operations of a network, whatever is wanted of each.

    Args:
        operations: As `operations_for` gives them.
        evaluate: Makes something of an operation, from what was made of its inputs, by name.

    Yields:
        Each operation and what was made of it. What no later operation needs is let go of.
    """
    values: dict[str, T] = {}
    for operation in operations:
        values[operation.name] = evaluate(operation, values)
        for name in operation.last_uses:
            del values[name]
        yield operation, values[operation.name]


def layers_of(network: nn.Module, operations: Iterable[Operation], images: Tensor) -> Iterator[tuple[str, Tensor]]:
    """The maps of each layer in turn: its name and (N, C, H, W), the channels that were asked for.

    Args:
        network: The traced network.
        operations: As `operations_for` gives them.
        images: (N, 3, H, W), normalised.

    Raises:
        InputError: The network cannot run on these images.
    """
    for operation, value in walk(operations, partial(run_operation, network, images)):
        for layer, channels in operation.outputs:
            maps = value if channels is None else value[:, channels]
            yield layer.name, torch.relu(maps) if layer.rectify else maps
            del maps


def layer_shapes(
    network: nn.Module,
    operations: Iterable[Operation],
    size: tuple[int, int],
    dtype: torch.dtype,
) -> dict[str, tuple[int, int, int]]:
    """(C, H', W') of each layer for images of a size (height, width), without computing anything.

    Raises:
        InputError: The network cannot run on images of this size.
    """
    images = torch.empty(1, 3, *size, dtype=dtype, device="meta")
    layers = layers_of(without_values(network), operations, images)
    return {layer: (maps.shape[1], maps.shape[2], maps.shape[3]) for layer, maps in layers}


def operations_text(network: fx.GraphModule) -> str:
    """What a network does, operation by operation, in a text that is the same for the same network."""
    place = {node: f"%{i}" for i, node in enumerate(network.graph.nodes)}  # names differ when unpickled
    lines = []
    for node in network.graph.nodes:
        target, given = node.target, fx.node.map_arg((node.args, node.kwargs), place.get)
        module = network.get_submodule(str(target)) if node.op == "call_module" else None
        lines.append(f"{node.op} {getattr(target, '__name__', target)} {module} {given}")
    return re.sub(r" at 0x[0-9a-f]+", "", "\n".join(lines))


def _ancestors(outputs: Iterable[fx.Node]) -> set[fx.Node]:
    needed: set[fx.Node] = set()
    stack = list(outputs)
    while stack:
        node = stack.pop()
        if node not in needed:
            needed.add(node)
            stack.extend(node.all_input_nodes)
    return needed


def _is_last(layer: Layer, conv: fx.Node, output: fx.Node, needed: set[fx.Node]) -> bool:
    """Whether all that runs after this convolution is its own ReLU, so that filters may be left out."""
    users = {user for node in {conv, output} for user in node.users if user in needed}
    relu_follows = output in conv.users and not layer.rectify  # else it is a normalisation, which needs all channels
    return users <= {output} and (output is conv or relu_follows)


def run_operation(network: nn.Module, images: Tensor, operation: Operation, values: Mapping[str, Any]) -> Any:
    """The value of an operation, from the images (N, 3, H, W) and the values of its inputs.

    Raises:
        InputError: The network cannot run on these images.
    """
    try:
        return operation.run(network, images, values)
    except (RuntimeError, TypeError, ValueError, AssertionError, IndexError) as error:
        if _is_of_machine(error) or isinstance(error, FmiqaError):
            raise
        raise _refusal(error, operation, images) from error


def _is_of_machine(error: Exception) -> bool:
    """Whether memory or a device is to blame for an error, not the images."""
    kinds = [torch.OutOfMemoryError, getattr(torch, "AcceleratorError", torch.OutOfMemoryError)]
    return isinstance(error, tuple(kinds)) or "allocate" in str(error) or "same device" in str(error)


def _refusal(error: Exception, operation: Operation, images: Tensor) -> InputError:
    height, width = images.shape[-2:]
    seen = f"images {width} wide and {height} high"
    where = f"at {operation.target!r}"
    if "too small" in str(error) or "Kernel size can't be greater" in str(error):
        advice = "give larger images, or ask for maps of earlier layers only"
        return InputError(f"{seen} are too small for this network {where}; {advice} ({error})")
    return InputError(
        f"the network cannot run on {seen} {where}: {error}; pass a network that takes RGB images (N, 3, H, W) of this "
        "size and returns tensors from each of its layers"
    )


def _run_filters(conv: nn.Module, images: Tensor, channels: list[int]) -> Tensor:
    """Run only some filters of a convolution: (N, C, H, W) -> (N, len(channels), H', W').

    A convolution with a forward of its own, hooks, groups or its own padding is run whole.
    """
    hooked = conv._forward_pre_hooks or conv._forward_hooks
    if type(conv) is not nn.Conv2d or conv.groups != 1 or conv.padding_mode != "zeros" or hooked:
        maps: Tensor = conv(images)[:, channels]
        return maps
    bias = None if conv.bias is None else conv.bias[channels]
    return nn.functional.conv2d(images, conv.weight[channels], bias, conv.stride, conv.padding, conv.dilation)


def _filled(part: Any, values: Mapping[str, Any]) -> Any:
    """Arguments with the values that they name."""
    if isinstance(part, _Value):
        return values[part.name]
    if isinstance(part, tuple):
        return tuple([_filled(p, values) for p in part])
    if isinstance(part, list):
        return [_filled(p, values) for p in part]
    if isinstance(part, dict):
        return {key: _filled(p, values) for key, p in part.items()}
    if isinstance(part, slice):
        return slice(*[_filled(p, values) for p in (part.start, part.stop, part.step)])
    return part


def without_values(module: nn.Module) -> nn.Module:
    """A module like this one on the meta device, made of its parts, of which none is copied or changed."""

    def shapes(values: Mapping[str, Any]) -> dict[str, Any]:
        return {name: v.detach().to("meta") if isinstance(v, Tensor) else v for name, v in values.items()}

    twin: nn.Module = nn.Module.__new__(type(module))
    twin.__dict__ = shapes(module.__dict__)  # pruned modules and replicas hold tensors as plain attributes
    twin.__dict__ |= {"_parameters": shapes(module._parameters), "_buffers": shapes(module._buffers)}
    twin.__dict__["_modules"] = {name: child and without_values(child) for name, child in module._modules.items()}
    return twin
