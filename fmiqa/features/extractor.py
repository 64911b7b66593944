"""Feature maps of a pre-trained network: only what is asked for is run, layer by layer."""

from __future__ import annotations

import copy
import hashlib
import os
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, NamedTuple, NoReturn, get_args

import torch
from torch import Tensor, fx, nn

from fmiqa._checks import check_tensor, is_traced, is_transformed, known_values
from fmiqa._runtime.precision import Precision, WideBuffers, at_least_float32, reduced
from fmiqa.errors import FmiqaError, InputError
from fmiqa.features.checkpoints import (
    Identity,
    StateDict,
    download,
    fingerprint,
    fit_state,
    read_state,
    seeded_state,
    shared_names,
)
from fmiqa.features.networks import (
    NETWORKS,
    Layer,
    Stage,
    blank_network,
    conv_filters,
    keep_layers,
    layer_nodes,
    refuse_meta,
    trace_layers,
)
from fmiqa.features.viewing import Viewing
from fmiqa.maps import FeatureMap, MapIndex

__all__ = ["FeatureExtractor", "Operation", "check_extractor", "run_node"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# A float image a little outside [0, 1] (an optimiser's overshoot) is let through; these bounds
# tell it from the two common mistakes, [0, 255] and mean/std-normalised input.
_LOWEST, _HIGHEST = -0.5, 1.5
_MOST_PLANS = 64


class FeatureExtractor(WideBuffers):
    """A network cut to its convolutional layers, with the input normalisation inside.

    The network is copied, frozen and in evaluation mode; nothing of the given module is changed.

    Args:
        model: `"alexnet"` (1152 maps), `"vgg11"`, `"vgg13"`, `"vgg16"` (4224), `"vgg19"`,
            `"squeezenet1_1"`, or any `nn.Module` that torch.fx can trace.
        weights: for a named network: `"DEFAULT"` (torchvision's ImageNet weights), the path of a state
            dict (.pth, .safetensors), a state dict, of the whole network or of `features.*` alone, with
            or without that prefix; `None` gives seeded random weights, and says so in a warning.
            An `nn.Module` keeps the weights it has under `"DEFAULT"` and `None`.
        stage: `"relu"` takes a layer's maps after its ReLU (and its normalisation, if any); where the network
            has another activation there, or none, a ReLU is applied. `"conv"` takes the convolution's own output.
        layers: names of the layers to keep, all by default; what only the others need is dropped, and
            `weights` may lack it.
        viewing: the scale at which the network sees images, see `fmiqa.Viewing`; as they are by default.
        precision: what the network computes in: `"float32"`, or faster and coarser `"tf32"` (on CUDA) or
            `"bfloat16"`; maps are compared in float32 all the same. Recorded with every result.
        seed: of the random weights when `weights` is None.

    `.half()`, `.bfloat16()` and `.double()` make the network compute in that type, whatever the type of the images, and
    feature maps come in it. The measures widen maps of half precision to float32, and the normalisation of the
    images stays in float32.

    Attributes:
        maps: every feature map, a `MapIndex`, in the order the layers run.
        network_name: `"alexnet"`, ..., or the class name of the given module.

    Raises:
        InputError: unknown network name, or a module that cannot be traced or has no convolution.
        WeightsError: weights that are missing, misshapen, of another network, or not to be had.

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
            raise InputError(f"precision is one of {', '.join(get_args(Precision))}, got {precision!r}")
        if stage not in ("relu", "conv"):
            raise InputError(f"stage is 'relu' (after the ReLU) or 'conv' (before it), got {stage!r}")
        if not isinstance(model, str | nn.Module):
            raise InputError(f"model is one of {', '.join(NETWORKS)} or an nn.Module, got {type(model).__name__}")
        if not isinstance(viewing, Viewing):
            raise InputError(f"viewing is a fmiqa.Viewing, such as Viewing(factor=0.5), got {viewing!r}")
        if not isinstance(weights, str | os.PathLike | Mapping | None):
            raise InputError(f"weights is 'DEFAULT', a path, a state dict or None, got {type(weights).__name__}")
        if not isinstance(seed, int):
            raise InputError(f"seed is a whole number, got {seed!r}")
        self._stage: Stage = stage
        self.viewing = viewing
        self.precision: Precision = precision
        if isinstance(model, nn.Module) and (weights is None or weights == "DEFAULT"):
            refuse_meta(model)
        module = blank_network(model) if isinstance(model, str) else model
        self.network, self._layers = trace_layers(module, stage, layers)
        self.network_name = model if isinstance(model, str) else _network_name(model)
        self.maps = MapIndex.of_layers({layer.name: layer.channels for layer in self._layers.values()})
        self._plans: dict[MapIndex, _Plan] = {}
        if isinstance(model, str) or not (weights is None or weights == "DEFAULT"):
            self._load(module, weights, seed)
        self._identity = Identity.of(self.network.state_dict())
        for name, value in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD)):
            # Rounded to float32 also for wider networks, as .double() has it.
            constant = torch.tensor(value, device="cpu").view(1, 3, 1, 1)
            self.register_buffer(name, constant.to(self.device, self.dtype), persistent=False)
        self.plan(self.maps)
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
        place = {node: f"%{i}" for i, node in enumerate(self.network.graph.nodes)}  # names differ when unpickled
        lines = []
        for node in self.network.graph.nodes:
            target, given = node.target, fx.node.map_arg((node.args, node.kwargs), place.get)
            module = self.network.get_submodule(str(target)) if node.op == "call_module" else None
            lines.append(f"{node.op} {getattr(target, '__name__', target)} {module} {given}")
        text = re.sub(r" at 0x[0-9a-f]+", "", "\n".join(lines))
        return hashlib.sha256(f"{text}\n{fingerprint(self.constants)}".encode()).hexdigest()

    def forward(self, images: Tensor, maps: Iterable[FeatureMap | str] | None = None) -> dict[str, Tensor]:
        """Feature maps by layer.

        Args:
            images: (N, 3, H, W), float in [0, 1] or uint8, on the network's device.
            maps: the maps wanted, all by default. Nothing past the deepest of them is run, and where a
                layer's other maps are not needed further on, only the chosen filters are.

        Returns:
            layer -> (N, C, H', W'), C the wanted channels in the order given.

        Raises:
            InputError: images of another form, or too small for the network; unknown maps.
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
        plan = self._plan(self.maps if maps is None else maps if isinstance(maps, MapIndex) else MapIndex(maps))
        walk = _execute(self.network, plan, images)
        return walk if self.precision == "float32" else self._reduced(walk)

    def _reduced(self, walk: Iterator[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
        while True:
            with reduced(self.device, self.precision):  # not while the caller works on a layer
                step = next(walk, None)
            if step is None:
                return
            yield step[0], step[1].to(self.dtype)

    def nodes_of(self, maps: MapIndex) -> Iterator[Operation]:
        """The operations of the network that run for these maps, in order."""
        plan = self._plan(maps)
        nodes = {node.name: node for node in self.network.graph.nodes}
        names = [call.name for call in plan.calls]
        return (Operation(nodes[n], plan.outputs.get(n, []), plan.filters.get(n)) for n in names)

    def normalize(self, images: Tensor) -> Tensor:
        """Images as the network wants them: (N, 3, H, W) float at its scale, ImageNet mean and deviation removed.

        Raises:
            InputError: not (N, 3, H, W), an integer type other than uint8, values that are not in
                [0, 1] (a small overshoot is let through), NaN, or images on another device.
        """
        if isinstance(images, Tensor) and images.device != self.device:
            raise InputError(
                f"images are on {images.device}, the network is on {self.device}; move one of them with .to()"
            )
        check_images(images)
        if is_traced():  # a trace holds sizes as constants, so it must refuse images of another size
            images = images.expand(-1, 3, *map(int, images.shape[-2:]))
        # Channels last is a fifth faster through CPU convolutions, and the layers' maps inherit it. torch.func.vmap
        # does not know this layout, and torch.compile chooses its own.
        channels_last = images.is_cpu and not (torch.compiler.is_compiling() or is_transformed(images))
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
            InputError: the images are too small for the network.
        """
        network = copy.deepcopy(self.network).to("meta")
        x = torch.empty(1, 3, *self.viewing.size(height, width), device="meta", dtype=self.dtype)
        plan = self._plan(self.maps if maps is None else MapIndex(maps))
        shapes: dict[str, tuple[int, int, int]] = {}
        for layer, value in _execute(network, plan, x):
            _, c, h, w = value.shape
            shapes[layer] = (c, h, w)
        return shapes

    def keep(self, layers: Iterable[str]) -> FeatureExtractor:
        """A copy with these layers and what they need; `weights_sha256` stays that of the whole while unchanged.

        Raises:
            InputError: no layers, or one that the network does not have.
        """
        other = copy.deepcopy(self)
        other.network, other._layers = keep_layers(other.network, other.network.graph, other._layers, layers)
        other.maps = MapIndex.of_layers({layer.name: layer.channels for layer in other._layers.values()})
        other._plans = {}
        other._identity = Identity.of(other.network.state_dict(), whole=self.weights_sha256)
        other.plan(other.maps)
        return other

    def plan(self, maps: MapIndex) -> None:
        """Plan the run for these maps now: torch.compile with `fullgraph=True` cannot, it finds a plan that is there.

        Raises:
            InputError: no maps, or maps that the network does not have.
        """
        self._plan(maps)

    def recorded(
        self, weights_sha256: str, *, normalization: Mapping[str, list[float]] | None, constants: StateDict
    ) -> None:
        """Be the kept part of a network that was saved with this fingerprint, normalisation and constants.

        Raises:
            WeightsError: constants that the network does not have.
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

    def _plan(self, maps: MapIndex) -> _Plan:
        if maps not in self._plans:
            if not len(maps):
                raise InputError("no feature maps asked for; name at least one")
            self.maps.positions(maps)
            if len(self._plans) >= _MOST_PLANS:
                self._plans.clear()
            self._plans[maps] = _Plan.make(self.network, self._layers.values(), maps)
        return self._plans[maps]

    def _load(self, module: nn.Module, weights: str | os.PathLike[str] | StateDict | None, seed: int) -> None:
        expected = self.network.state_dict()
        if weights is None:
            warnings.warn(
                f"{self.network_name} has random weights (seed {seed}): good for trying things out, "
                "not for judging images; pass weights='DEFAULT' or a file",
                stacklevel=3,
            )
            state = seeded_state(self.network, seed)
        else:
            given = download(self.network_name) if weights == "DEFAULT" else read_state(weights)
            whole = module.state_dict()
            constants = {k: v for k, v in expected.items() if k not in whole}  # found by the tracer
            state = fit_state(
                given, expected, ignored=set(whole) - set(expected), defaults=constants, shared=shared_names(whole)
            )
        parameters = dict(self.network.named_parameters(remove_duplicate=False))
        copies: dict[str, Tensor] = {
            name: nn.Parameter(value.detach().clone(), requires_grad=False)
            if name in parameters
            else value.detach().clone()
            for name, value in state.items()
        }
        for first, *others in shared_names(expected):  # these go on sharing: they are one object
            for name in others:
                if type(copies[name]) is type(copies[first]) and torch.equal(copies[name], copies[first]):
                    copies[name] = copies[first]
        self.network.load_state_dict(copies, assign=True)
        self.network.requires_grad_(False)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_plans": {}}  # nodes get other names when the network is unpickled

    def __setstate__(self, state: dict[str, Any]) -> None:
        recorded = state.pop("weights_sha256", None)  # these two are attributes in pickles of version 0.1
        if "stage" in state:
            state["_stage"] = state.pop("stage")
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        if recorded is not None:
            self._take_for(recorded)
        self.plan(self.maps)

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
            f"extractor is a FeatureExtractor, got {type(extractor).__name__}; make one of a network with "
            "fmiqa.FeatureExtractor(network)"
        )


def check_images(images: Tensor, what: str = "images") -> None:
    """Raise `InputError` unless `images` is (N, 3, H, W), uint8 or float in [0, 1]."""
    if not isinstance(images, Tensor):
        raise InputError(
            f"{what}: expected a torch.Tensor (N, 3, H, W), got {type(images).__name__}; convert it with "
            "torch.as_tensor(...)"
        )
    check_tensor(images, f"{what} (N, 3, H, W)", meta=True)
    if images.ndim != 4 or images.shape[1] != 3 or images.numel() == 0:
        raise InputError(
            f"{what}: expected RGB images of shape (N, 3, H, W), got {tuple(images.shape)}; "
            "add a batch dimension with [None], or repeat a grey channel three times"
        )
    if images.dtype == torch.uint8:
        return
    if not images.is_floating_point():
        raise InputError(
            f"{what}: expected uint8 or floating point, got {images.dtype}; convert values from 0 to 255 with "
            ".to(torch.uint8), values in [0, 1] with .float()"
        )
    values = known_values(images)
    if values is None:
        return
    try:
        low, high = torch.stack(values.aminmax()).tolist()
    except RuntimeError:
        if is_transformed(images):  # older versions of torch transform operations on plain tensors, too
            return
        raise
    if not (low >= _LOWEST and high <= _HIGHEST):  # also false for NaN
        raise InputError(
            f"{what}: float images lie in [0, 1], got values from {low:.4g} to {high:.4g}; "
            "divide by 255, pass uint8, or undo a mean/std normalisation (fmiqa does its own)"
        )


class Operation(NamedTuple):
    """An operation of a network, and what a run for some maps needs of it."""

    node: fx.Node
    outputs: list[tuple[Layer, list[int] | None]]  # the layers it holds, with the channels to pick; None: all
    filters: list[int] | None  # of a convolution: those that are run; None: all


@dataclass
class _Plan:
    """What to run for a set of maps, in order, and what to hand out after which node (all by node name)."""

    calls: list[_Call]
    outputs: dict[str, list[tuple[Layer, list[int] | None]]]  # node -> layers it holds, channels to pick
    filters: dict[str, list[int]]  # convolutions of which only these filters are run
    last_use: dict[str, list[str]]  # node -> values that nothing needs after it

    @classmethod
    def make(cls, network: fx.GraphModule, layers: Iterable[Layer], maps: MapIndex) -> _Plan:
        wanted = maps.channels
        ends = zip(layers, layer_nodes(network.graph), strict=True)
        found = [(layer, conv, output) for layer, (conv, output) in ends if layer.name in wanted]
        needed = _ancestors(output for _, _, output in found)
        outputs: dict[str, list[tuple[Layer, list[int] | None]]] = {}
        filters: dict[str, list[int]] = {}
        for layer, conv, output in found:
            channels: list[int] | None = wanted[layer.name]
            if channels == list(range(layer.channels)):
                channels = None
            elif channels and _is_last(layer, conv, output, needed):
                filters[conv.name], channels = channels, None
            outputs.setdefault(output.name, []).append((layer, channels))
        order = [node for node in network.graph.nodes if node in needed]
        last_use: dict[str, list[str]] = {}
        used: set[fx.Node] = set()
        for node in reversed(order):
            last_use[node.name] = [i.name for i in node.all_input_nodes if i not in used]
            used.update(node.all_input_nodes)
        return cls([_Call.of(node) for node in order], outputs, filters, last_use)


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


def _execute(network: fx.GraphModule, plan: _Plan, images: Tensor) -> Iterator[tuple[str, Tensor]]:
    values: dict[str, Any] = {}
    for call in plan.calls:
        name = call.name
        try:
            values[name] = call.run(network, values, plan.filters.get(name), images)
        except (RuntimeError, TypeError, ValueError, AssertionError, IndexError) as error:
            if _is_of_machine(error) or isinstance(error, FmiqaError):
                raise
            raise _refusal(error, call, images) from error
        for dead in plan.last_use[name]:
            del values[dead]
        for layer, channels in plan.outputs.get(name, ()):
            value = values[name] if channels is None else values[name][:, channels]
            yield layer.name, torch.relu(value) if layer.rectify else value
            del value


def _is_of_machine(error: Exception) -> bool:
    """Whether memory or a device is to blame for an error, not the images."""
    kinds = [torch.OutOfMemoryError, getattr(torch, "AcceleratorError", torch.OutOfMemoryError)]
    return isinstance(error, tuple(kinds)) or "allocate" in str(error) or "same device" in str(error)


def _refusal(error: Exception, call: _Call, images: Tensor) -> InputError:
    height, width = images.shape[-2:]
    seen = f"images {width} wide and {height} high"
    where = f"at {call.target!r}"
    if "too small" in str(error) or "Kernel size can't be greater" in str(error):
        advice = "give larger images, or ask for maps of earlier layers only"
        return InputError(f"{seen} are too small for this network {where}; {advice} ({error})")
    return InputError(
        f"the network cannot run on {seen} {where}: {error}; pass a network that takes RGB images (N, 3, H, W) of this "
        "size and returns tensors from each of its layers"
    )


def run_node(
    network: fx.GraphModule, node: fx.Node, values: dict[str, Any], filters: list[int] | None, images: Tensor
) -> Any:
    """One operation of the network, on the values of the nodes before it; of a convolution some filters, or all."""
    return _Call.of(node).run(network, values, filters, images)


class _Value(NamedTuple):
    """Stands for the value of a node among the arguments of another."""

    node: str


class _Call(NamedTuple):
    """An operation of the network as plain data: torch.compile cannot read the nodes of torch.fx."""

    name: str
    kind: str
    target: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @classmethod
    def of(cls, node: fx.Node) -> _Call:
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda n: _Value(n.name))
        return cls(node.name, node.op, node.target, args, kwargs)

    def run(self, network: fx.GraphModule, values: Mapping[str, Any], filters: list[int] | None, images: Tensor) -> Any:
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
        if filters is not None:
            return conv_filters(module, args[0], filters)
        return module(*args, **kwargs)


def _filled(part: Any, values: Mapping[str, Any]) -> Any:
    """Arguments with the values of the nodes that they name."""
    if isinstance(part, _Value):
        return values[part.node]
    if isinstance(part, tuple):
        return tuple([_filled(p, values) for p in part])
    if isinstance(part, list):
        return [_filled(p, values) for p in part]
    if isinstance(part, dict):
        return {key: _filled(p, values) for key, p in part.items()}
    if isinstance(part, slice):
        return slice(*[_filled(p, values) for p in (part.start, part.stop, part.step)])
    return part


def _network_name(model: nn.Module) -> str:
    """torchvision's name where the module's features are those of one of `NETWORKS`, else its class name."""
    if type(model).__module__.startswith("torchvision."):
        for name in NETWORKS:
            blank = blank_network(name)
            # Its text tells poolings and activations too, which users exchange.
            if type(model) is type(blank) and repr(model.features) == repr(blank.features):
                return name
    return type(model).__name__
