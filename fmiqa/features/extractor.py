"""Feature maps of a pre-trained network: only what is asked for is run, layer by layer."""

from __future__ import annotations

import copy
import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from operator import attrgetter
from typing import Any, NoReturn, get_args

import torch
from torch import Tensor, nn

from fmiqa._checks import check_images, is_traced, is_transformed
from fmiqa._runtime.precision import Precision, WideBuffers, at_least_float32, reduced
from fmiqa.errors import InputError
from fmiqa.features.checkpoints import Identity, StateDict, fingerprint, fit_state, load_weights
from fmiqa.features.graph import Operation, layer_shapes, layers_of, operations_for, operations_text
from fmiqa.features.networks import NETWORKS, blank_network, layer_paths, name_of
from fmiqa.features.tracing import Stage, keep_layers, refuse_meta, trace_layers
from fmiqa.features.viewing import Viewing
from fmiqa.maps import FeatureMap, MapIndex

__all__ = ["FeatureExtractor", "check_extractor"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

_MOST_PLANS = 64


class FeatureExtractor(WideBuffers):
    """A network cut to its convolutional layers, with the input normalisation inside.

    The network is copied, frozen and in evaluation mode; the given module is not changed.

    Args:
        model: Name of one of `fmiqa.features.networks.NETWORKS`, such as `"alexnet"` (1152 maps) or `"vgg16"` (4224),
            or any `nn.Module` that torch.fx can trace.
        weights: Weights of a named network: `"DEFAULT"` (torchvision's ImageNet weights), the path of a state dict
            (.pth, .safetensors), or a state dict. It may hold the whole network or `features.*` alone, with or without
            that prefix. `None` gives seeded random weights, and says so in a warning. An `nn.Module` keeps the weights
            it has under `"DEFAULT"` and `None`.
        stage: `"relu"` takes a layer's maps after its ReLU (and its normalisation, if any); where the network
            has another activation there, or none, a ReLU is applied. `"conv"` takes the convolution's own output.
        layers: Names of the layers to keep, all by default; what only the others need is dropped, and
            `weights` may lack it.
        viewing: The scale at which the network sees images, see `fmiqa.Viewing`; as they are by default.
        precision: What the network computes in: `"float32"`, or faster and coarser `"tf32"` (on CUDA) or
            `"bfloat16"`; maps are compared in float32 all the same. Recorded with every result.
        seed: Seed of the random weights when `weights` is None.

    `.half()`, `.bfloat16()` and `.double()` make the network compute in that type, whatever the type of the images, and
    feature maps come in it. The measures widen maps of half precision to float32, and the normalisation of the
    images stays in float32.

    Attributes:
        maps: Every feature map, a `MapIndex`, in the order the layers run.
        network_name: `"alexnet"`, ..., or the class name of the given module.

    Raises:
        InputError: The network's name is unknown, or the module cannot be traced or has no convolution.
        WeightsError: Weights are missing, misshapen, of another network, or cannot be fetched.

    Example:
        >>> import warnings; warnings.simplefilter("ignore")
        >>> extractor = FeatureExtractor("alexnet", weights=None)
        >>> len(extractor.maps), extractor.layers
        (1152, ['conv1', 'conv2', 'conv3', 'conv4', 'conv5'])
        >>> features = extractor(torch.rand(2, 3, 128, 96), ["conv1:3", "conv2:7", "conv2:1"])
        >>> {layer: tuple(value.shape) for layer, value in features.items()}
        {'conv1': (2, 1, 31, 23), 'conv2': (2, 2, 15, 11)}
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        model: str | nn.Module,
        *,
        weights: str | os.PathLike[str] | StateDict | None = "DEFAULT",
        stage: Stage = "relu",
        layers: Iterable[str] | None = None,
        viewing: Viewing = Viewing(),  # noqa: B008, a frozen value
        precision: Precision = "float32",
        seed: int = 0,
    ) -> None:
        super().__init__()
        if precision not in get_args(Precision):
            raise InputError(f"precision must be one of {', '.join(get_args(Precision))}, got {precision!r}")
        if stage not in ("relu", "conv"):
            raise InputError(f"stage must be 'relu' (after the ReLU) or 'conv' (before it), got {stage!r}")
        if not isinstance(model, str | nn.Module):
            raise InputError(f"model must be one of {', '.join(NETWORKS)} or an nn.Module, got {type(model).__name__}")
        if not isinstance(viewing, Viewing):
            raise InputError(f"viewing must be a fmiqa.Viewing, such as Viewing(factor=0.5), got {viewing!r}")
        if not isinstance(weights, str | os.PathLike | Mapping | None):
            raise InputError(f"weights must be 'DEFAULT', a path, a state dict or None, got {type(weights).__name__}")
        if not isinstance(seed, int):
            raise InputError(f"seed must be a whole number, got {seed!r}")
        self._stage: Stage = stage
        self.viewing = viewing
        self.precision: Precision = precision
        if isinstance(model, nn.Module) and (weights is None or weights == "DEFAULT"):
            refuse_meta(model)
        module = blank_network(model) if isinstance(model, str) else model
        names, head = layer_paths(module)
        self.network, self._layers = trace_layers(module, stage, layers, names=names, head=head)
        self.network_name = model if isinstance(model, str) else name_of(model)
        self.maps = MapIndex.of_layers({layer.name: layer.channels for layer in self._layers.values()})
        self._plans: dict[MapIndex, tuple[Operation, ...]] = {}
        if isinstance(model, str) or not (weights is None or weights == "DEFAULT"):
            fetch = NETWORKS[model].weights if isinstance(model, str) else None
            load_weights(self.network, module, weights, name=self.network_name, fetch=fetch, seed=seed)
        self._identity = Identity.of(self.network.state_dict())
        for name, value in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD)):
            # Rounded to float32 also for wider networks, as .double() has it.
            constant = torch.tensor(value, device="cpu").view(1, 3, 1, 1)
            self.register_buffer(name, constant.to(self.device, self.dtype), persistent=False)
        self.operations()
        self.eval()

    @property
    def layers(self) -> list[str]:
        """The layers' names, in the order they run."""
        return list(self._layers)

    @property
    def stage(self) -> Stage:
        """Where the maps are taken; it cannot be changed later."""
        return self._stage

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self._any_weight().device

    @property
    def dtype(self) -> torch.dtype:
        """What the network computes in; `.double()` makes it float64."""
        return self._any_weight().dtype

    @property
    def weights_sha256(self) -> str:
        """Fingerprint of the convolutional weights as they are now; it travels with every saved result.

        Every access reads all weights. Of an extractor that `keep` cut, it is that of the whole network as long as the
        weights that were kept are unchanged, and that of the kept ones afterwards. `.double()` changes nothing.
        """
        state = self.network.state_dict()
        # Replicas of nn.DataParallel hold their parameters as plain attributes.
        hidden = {name for name in self._identity.dtypes if name not in state} if _is_replica(self) else ()
        return self._identity.now({**state, **{name: attrgetter(name)(self.network) for name in hidden}})

    @property
    def constants(self) -> dict[str, Tensor]:
        """Tensors of the network that its state dict leaves out (buffers that are not persistent)."""
        saved = self.network.state_dict()
        return {name: value for name, value in self.network.named_buffers() if name not in saved}

    @property
    def normalization(self) -> dict[str, list[float]] | None:
        """The mean and deviation taken off the images, as JSON can hold them, where they are not ImageNet's."""
        used = {"mean": self.mean.flatten().tolist(), "std": self.std.flatten().tolist()}
        usual = {
            name: torch.tensor(value, device="cpu").tolist()
            for name, value in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD))
        }
        return None if used == usual else used

    @property
    def operations_sha256(self) -> str:
        """Fingerprint of what the network does with its weights: operations, their options, constants beside them."""
        text = operations_text(self.network)
        return hashlib.sha256(f"{text}\n{fingerprint(self.constants)}".encode()).hexdigest()

    def forward(self, images: Tensor, maps: Iterable[FeatureMap | str] | None = None) -> dict[str, Tensor]:
        """Feature maps by layer.

        Args:
            images: (N, 3, H, W), float in [0, 1] or uint8, on the network's device.
            maps: The maps wanted, all by default. Nothing past the deepest of them is run, and where a
                layer's other maps are not needed further on, only the chosen filters are.

        Returns:
            layer -> (N, C, H', W'), C the wanted channels in the order given.

        Raises:
            InputError: The images have another form or are too small for the network, or a map is unknown.
        """
        return dict(self.features(images, maps))

    def features(self, images: Tensor, maps: Iterable[FeatureMap | str] | None = None) -> Iterator[tuple[str, Tensor]]:
        """As `forward`, one layer at a time: the next layer runs when it is asked for.

        A caller that reduces each layer before it takes the next never holds more than one.
        """
        return self.features_of_normalized(self.normalize(images), maps)

    def features_of_normalized(
        self, images: Tensor, maps: Iterable[FeatureMap | str] | None = None
    ) -> Iterator[tuple[str, Tensor]]:
        """As `features`, of what `normalize` gave, or of a part of it."""
        walk = layers_of(self.network, self.operations(maps), images)
        return walk if self.precision == "float32" else self._reduced(walk)

    def _reduced(self, walk: Iterator[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
        while True:
            with reduced(self.device, self.precision):  # not while the caller works on a layer
                step = next(walk, None)
            if step is None:
                return
            # Channels last inside on CUDA, see normalize; the measures take rows.
            layout = torch.contiguous_format if step[1].is_cuda else torch.preserve_format
            yield step[0], step[1].to(self.dtype, memory_format=layout)

    def normalize(self, images: Tensor) -> Tensor:
        """Images as the network wants them: (N, 3, H, W) float at its scale, ImageNet mean and deviation removed.

        Raises:
            InputError: The images are not (N, 3, H, W), are on another device, have an integer type other than uint8,
                or hold NaN or values outside [0, 1] (a small overshoot is let through).
        """
        if isinstance(images, Tensor) and images.device != self.device:
            raise InputError(
                f"images are on {images.device}, the network is on {self.device}; move one of them with .to()"
            )
        check_images(images)
        if is_traced():  # a trace holds sizes as constants, so it must refuse images of another size
            images = images.expand(-1, 3, *map(int, images.shape[-2:]))
        # Channels last is a fifth faster through CPU convolutions, and the layers' maps inherit it. On CUDA it is the
        # layout of tensor cores, which compute in less than float32. torch.func.vmap does not know this layout, and
        # torch.compile chooses its own.
        faster = images.is_cpu or (images.is_cuda and self.precision != "float32")
        channels_last = faster and not (torch.compiler.is_compiling() or is_transformed(images))
        layout = torch.channels_last if channels_last else torch.contiguous_format
        if images.dtype != torch.uint8:
            seen = self.viewing(at_least_float32(images)).to(self.mean.dtype)
            return ((seen - self.mean) / self.std).to(self.dtype).contiguous(memory_format=layout)
        # In the one copy that is made: fresh memory costs more than the arithmetic.
        images = self.viewing(images.to(self.mean.dtype, memory_format=layout).div_(255))
        return images.sub_(self.mean).div_(self.std).to(self.dtype).contiguous(memory_format=layout)

    def train(self, mode: bool = True) -> FeatureExtractor:
        """Stays in evaluation mode, also inside a model that is being trained."""
        return super().train(False)

    def layer_shapes(
        self, height: int, width: int, maps: Iterable[FeatureMap | str] | None = None
    ) -> dict[str, tuple[int, int, int]]:
        """(C, H', W') of each layer that `maps` need, all by default, without computing anything.

        C counts the wanted maps.

        Raises:
            InputError: The images are too small for the network.
        """
        size = self.viewing.size(height, width)
        return layer_shapes(self.network, self.operations(maps), size, self.dtype)

    def keep(self, layers: Iterable[str]) -> FeatureExtractor:
        """A copy with these layers and what they need; `weights_sha256` stays that of the whole while unchanged.

        Raises:
            InputError: No layer is named, or one that the network does not have.
        """
        other = copy.deepcopy(self)
        other.network, other._layers = keep_layers(other.network, other.network.graph, other._layers, layers)
        other.maps = MapIndex.of_layers({layer.name: layer.channels for layer in other._layers.values()})
        other._plans = {}
        other._identity = Identity.of(other.network.state_dict(), whole=self.weights_sha256)
        other.operations()
        return other

    def operations(self, maps: Iterable[FeatureMap | str] | None = None) -> tuple[Operation, ...]:
        """The operations of the network that run for these maps, all by default, in order.

        They are planned once. torch.compile with `fullgraph=True` cannot plan them, so that they have to be there.

        Raises:
            InputError: No maps are named, or maps that the network does not have.
        """
        if not isinstance(maps, MapIndex):
            maps = self.maps if maps is None else MapIndex(maps)
        if maps not in self._plans:
            if not len(maps):
                raise InputError("no feature maps asked for; name at least one")
            self.maps.positions(maps)
            if len(self._plans) >= _MOST_PLANS:
                self._plans.clear()
            self._plans[maps] = operations_for(self.network, self._layers.values(), maps)
        return self._plans[maps]

    def recorded(
        self, weights_sha256: str, *, normalization: Mapping[str, list[float]] | None, constants: StateDict
    ) -> None:
        """Become the kept part of a network that was saved with this fingerprint, normalisation and constants.

        Raises:
            WeightsError: The network does not have one of the constants.
        """
        for name, values in (normalization or {}).items():
            getattr(self, name).copy_(torch.tensor(values, device="cpu").view(1, 3, 1, 1))
        for name, value in (fit_state(constants, self.constants) if constants else {}).items():  # 0.1 saved none
            owner, _, attribute = name.rpartition(".")
            setattr(self.network.get_submodule(owner), attribute, value.detach().clone())
        self._take_for(weights_sha256)

    def _take_for(self, weights_sha256: str) -> None:
        self._identity = Identity.of(self.network.state_dict(), whole=weights_sha256)

    def _any_weight(self) -> Tensor:
        if not _is_replica(self):
            for parameter in self.network.parameters():
                return parameter
        # Replicas have no parameters: their modules hold plain tensors.
        first = next(iter(self._layers.values()))
        return self.network.get_submodule(first.path).weight  # type: ignore[return-value]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_plans": {}}  # nodes get other names when the network is unpickled

    def __setstate__(self, state: dict[str, Any]) -> None:
        recorded = state.pop("weights_sha256", None)  # these two are attributes in pickles of version 0.1
        if "stage" in state:
            state["_stage"] = state.pop("stage")
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        if recorded is not None:
            self._take_for(recorded)
        self.operations()

    def __prepare_scriptable__(self) -> NoReturn:
        raise InputError(
            "torch.jit.script cannot compile fmiqa's modules; use torch.export.export or torch.compile, or "
            "torch.jit.trace for images of one size"
        )

    def extra_repr(self) -> str:
        """Shown by repr()."""
        return f"{self.network_name}, {len(self.maps)} maps, stage={self.stage!r}, weights {self.weights_sha256[:12]}"


def _is_replica(module: nn.Module) -> bool:
    """Whether nn.DataParallel made this module for one call on one of several devices."""
    return getattr(module, "_is_replica", False)


def check_extractor(extractor: object) -> None:
    """Raise `InputError` unless `extractor` is a `FeatureExtractor`."""
    if not isinstance(extractor, FeatureExtractor):
        raise InputError(
            f"extractor must be a FeatureExtractor, got {type(extractor).__name__}; make one of a network with "
            "fmiqa.FeatureExtractor(network)"
        )
