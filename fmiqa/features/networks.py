"""The networks that have a name. To add one, add an entry to `NETWORKS`; nothing else lists them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fmiqa.errors import InputError

__all__ = ["NETWORKS", "Network", "blank_network", "layer_paths", "name_of"]


@dataclass(frozen=True)
class Network:
    """A network that has a name.

    Args:
        build: Makes the network; its weights do not matter.
        weights: Fetches its default weights, a state dict.
        kind: Gives the class of the network; the names of layers hold for any instance of it.
        names: Gives the names of layers by the paths of their convolutions; other layers are called by their paths.
        head: Paths of convolutions that belong to the classifier.
    """

    build: Callable[[], nn.Module]
    weights: Callable[[], Mapping[str, Tensor]]
    kind: Callable[[], type[nn.Module]]
    names: Callable[[nn.Module], dict[str, str]] = lambda model: {}
    head: frozenset[str] = frozenset()


def _of_torchvision(
    name: str,
    kind: str,
    *,
    names: Callable[[nn.Module], dict[str, str]] = lambda model: {},
    head: frozenset[str] = frozenset(),
) -> Network:
    def build() -> nn.Module:
        from torchvision.models import get_model

        return get_model(name, weights=None)  # type: ignore[no-any-return]

    def weights() -> Mapping[str, Tensor]:
        from torchvision.models import get_model_weights

        default = get_model_weights(name).DEFAULT
        return default.get_state_dict(progress=True, check_hash=True, weights_only=True)  # type: ignore[no-any-return]

    def class_of() -> type[nn.Module]:
        import torchvision.models

        return getattr(torchvision.models, kind)  # type: ignore[no-any-return]

    return Network(build, weights, class_of, names, head)


def _alexnet_names(model: nn.Module) -> dict[str, str]:
    """conv1 to conv5."""
    children = model.get_submodule("features").named_children()
    convolutions = [path for path, module in children if isinstance(module, nn.Conv2d)]
    return {f"features.{path}": f"conv{number}" for number, path in enumerate(convolutions, 1)}


def _vgg_names(model: nn.Module) -> dict[str, str]:
    """conv1_1 to conv5_4: the block and the place in it; a pooling ends a block."""
    names: dict[str, str] = {}
    block, place = 1, 0
    for path, module in model.get_submodule("features").named_children():
        if isinstance(module, nn.Conv2d):
            place += 1
            names[f"features.{path}"] = f"conv{block}_{place}"
        elif isinstance(module, nn.MaxPool2d):
            block, place = block + 1, 0
    return names


NETWORKS: Mapping[str, Network] = {
    "alexnet": _of_torchvision("alexnet", "AlexNet", names=_alexnet_names),
    **{name: _of_torchvision(name, "VGG", names=_vgg_names) for name in ("vgg11", "vgg13", "vgg16", "vgg19")},
    "squeezenet1_1": _of_torchvision("squeezenet1_1", "SqueezeNet", head=frozenset({"classifier.1"})),
}


def blank_network(name: str) -> nn.Module:
    """A network without memory for its weights (on the meta device).

    Raises:
        InputError: The name is none of `NETWORKS`.
    """
    if name not in NETWORKS:
        raise InputError(f"no network {name!r}: give one of {', '.join(NETWORKS)}, or an nn.Module of your own")
    with torch.device("meta"):
        return NETWORKS[name].build()


def layer_paths(model: nn.Module) -> tuple[dict[str, str], frozenset[str]]:
    """The names of a network's layers by the paths of their convolutions, and the paths of its classifier's.

    Both are empty where the network is of no kind that is known.
    """
    for network in NETWORKS.values():
        if isinstance(model, network.kind()):
            return network.names(model), network.head
    return {}, frozenset()


def name_of(model: nn.Module) -> str:
    """The name of the network of `NETWORKS` whose features a module has, else the name of its class."""
    for name, network in NETWORKS.items():
        # The text of its features tells poolings and activations too, which users exchange.
        if type(model) is network.kind() and _features(model) == _features(blank_network(name)):
            return name
    return type(model).__name__


def _features(model: nn.Module) -> str:
    return repr(getattr(model, "features", model))
