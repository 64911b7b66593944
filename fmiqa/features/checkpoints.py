"""Network weights: read without running code, fitted strictly, fingerprinted."""

from __future__ import annotations

import hashlib
import io
import math
import os
import pickle
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fmiqa._io import readable
from fmiqa.errors import WeightsError

__all__ = [
    "Identity",
    "StateDict",
    "download",
    "fingerprint",
    "fit_state",
    "load_weights",
    "read_state",
    "seeded_state",
    "shared_names",
]

StateDict = Mapping[str, Tensor]


def read_state(source: str | os.PathLike[str] | StateDict) -> dict[str, Tensor]:
    """Read a state dict from a `.pth`/`.pt` or `.safetensors` file, or take one as it is.

    Nothing stored in the file is executed: pickles are read in torch's tensors-only mode.

    Raises:
        WeightsError: The file is missing, damaged, or holds anything but tensors by name.
    """
    if isinstance(source, Mapping):
        state: Any = source
        origin = "the given state dict"
    else:
        path = Path(source).expanduser()
        origin = str(path)
        if not path.is_file():
            raise WeightsError(
                f"no weights file {path}; pass the path of a state dict (.pth or .safetensors), a state dict, "
                "'DEFAULT' for torchvision's, or None for seeded random weights"
            )
        try:
            with readable(path) as name:
                if path.suffix == ".safetensors":
                    from safetensors.torch import load_file

                    with torch.device("cpu"):  # older versions load onto the default device
                        state = load_file(name)
                else:
                    state = torch.load(name, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            raise WeightsError(
                f"{path} is not a plain state dict: it is damaged, or holds objects that could run code "
                "(a whole pickled module, for instance), which fmiqa never loads; "
                "save the network's state_dict() and pass that file"
            ) from error
        except Exception as error:  # every reader has its own exceptions for a damaged file
            raise WeightsError(f"{path} cannot be read as network weights: {error}") from error
    if isinstance(state, Mapping) and isinstance(state.get("state_dict"), Mapping):
        state = state["state_dict"]  # a training checkpoint
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        kind = type(state).__name__
        raise WeightsError(f"{origin} holds a {kind} that is not a mapping of names to tensors (a state dict)")
    return {str(name): value for name, value in state.items()}


def fit_state(
    state: StateDict,
    expected: StateDict,
    *,
    ignored: Iterable[str] = (),
    defaults: StateDict | None = None,
    shared: Iterable[Sequence[str]] = (),
) -> dict[str, Tensor]:
    """The tensors of `state` that `expected` names, checked one by one, on the devices of `expected`.

    Args:
        state: What was given, under the network's names, these without `features.`, or either with the
            `module.` that `nn.DataParallel` puts in front.
        expected: Names and shapes that must be there; those without memory (on the meta device) come to be on
            the CPU. Half precision is widened to the dtype expected, double precision is kept.
        ignored: Names that may be there and are not needed (the classifier).
        defaults: Taken where `state` has none.
        shared: Groups of names that stand for one tensor, of which `state` may have any one; files of layers that
            share their weights often hold them once.

    Raises:
        WeightsError: Naming every missing, misshapen and unknown tensor.
    """
    ignored = list(ignored)
    state = {**(defaults or {}), **_named_as({*expected, *ignored}, state)}
    for names in shared:
        held = [state[name] for name in names if name in state]
        if held:
            state = {**{name: held[0] for name in names if name in expected}, **state}
    found = [f"{name} is missing" for name in expected if name not in state]
    found += [
        f"{name} has shape {tuple(state[name].shape)}, expected {tuple(value.shape)}"
        for name, value in expected.items()
        if name in state and state[name].shape != value.shape
    ]
    found += [f"{name} is not of this network" for name in sorted(set(state) - set(expected) - set(ignored))]
    if found:
        shown = "; ".join(found[:12]) + (f"; and {len(found) - 12} more" if len(found) > 12 else "")
        raise WeightsError(f"the weights do not fit the network; are they of another network? {shown}")
    return {name: _placed_as(expected[name], state[name]) for name in expected}


def shared_names(state: StateDict) -> list[list[str]]:
    """Groups of names that stand for one tensor, such as the weights of layers that share them."""
    groups: dict[tuple[Any, ...], list[str]] = {}
    for name, value in state.items():
        if not value.is_meta and value.numel():
            place = value.device, value.data_ptr(), value.dtype, value.shape, value.stride()
            groups.setdefault(place, []).append(name)
    return [names for names in groups.values() if len(names) > 1]


def _named_as(expected: AbstractSet[str], state: StateDict) -> StateDict:
    """The tensors under the names of the network that they fit best."""
    bare = {name.removeprefix("module."): value for name, value in state.items()}
    below = {f"features.{name}": value for name, value in bare.items()}
    return max((state, bare, below), key=lambda names: len(expected & names.keys()))


def _placed_as(expected: Tensor, value: Tensor) -> Tensor:
    narrow = value.is_floating_point() and value.itemsize < expected.itemsize
    device = "cpu" if expected.is_meta else expected.device
    return value.to(device, expected.dtype if narrow else value.dtype)


def fingerprint(state: StateDict) -> str:
    """SHA-256 over names, dtypes, shapes and bytes of the tensors, sorted by name.

    The same weights give the same fingerprint from whichever file or dict they came.
    """
    digest = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().cpu().contiguous()
        digest.update(f"{name}|{value.dtype}|{tuple(value.shape)}|".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


@dataclass(frozen=True)
class Identity:
    """What a network's weights are known as, as long as they are unchanged.

    Args:
        sha256: The fingerprint that they are known as: their own, or that of the network they are a part of.
        own: Their own.
        dtypes: Theirs, by name.
    """

    sha256: str
    own: str
    dtypes: Mapping[str, torch.dtype]

    @classmethod
    def of(cls, state: StateDict, *, whole: str | None = None) -> Identity:
        """The identity of weights, or of a part of a network with the fingerprint `whole`."""
        own = fingerprint(state)
        return cls(own if whole is None else whole, own, {name: value.dtype for name, value in state.items()})

    def now(self, state: StateDict) -> str:
        """The fingerprint of the same network's weights as they are now."""
        own = fingerprint({name: self._as_before(name, value) for name, value in state.items()})
        return self.sha256 if own == self.own else own

    def _as_before(self, name: str, value: Tensor) -> Tensor:
        """A tensor in the type it had, where it has only been widened since."""
        dtype = self.dtypes.get(name, value.dtype)
        if not value.is_floating_point() or value.itemsize <= dtype.itemsize:
            return value
        narrow = value.to(dtype)
        return narrow if torch.equal(narrow.to(value.dtype), value) else value


def load_weights(
    network: nn.Module,
    whole: nn.Module,
    weights: str | os.PathLike[str] | StateDict | None,
    *,
    name: str,
    fetch: Callable[[], StateDict] | None,
    seed: int,
) -> None:
    """Give a network weights of its own, and freeze it.

    Args:
        network: The network, which holds what is needed of `whole`.
        whole: The network that it was cut from.
        weights: See `FeatureExtractor`.
        name: Name of the network.
        fetch: Fetches the default weights.
        seed: Seed of random weights.

    Raises:
        WeightsError: Weights are missing, misshapen, of another network, or not available.
    """
    expected = network.state_dict()
    if weights is None:
        warnings.warn(
            f"{name} has random weights (seed {seed}): good for trying things out, "
            "not for judging images; pass weights='DEFAULT' or a file",
            stacklevel=3,
        )
        state = seeded_state(network, seed)
    else:
        given = download(name, fetch) if weights == "DEFAULT" and fetch else read_state(weights)
        named = whole.state_dict()
        constants = {k: v for k, v in expected.items() if k not in named}  # found by the tracer
        state = fit_state(
            given, expected, ignored=set(named) - set(expected), defaults=constants, shared=shared_names(named)
        )
    parameters = dict(network.named_parameters(remove_duplicate=False))
    copies: dict[str, Tensor] = {
        key: nn.Parameter(value.detach().clone(), requires_grad=False) if key in parameters else value.detach().clone()
        for key, value in state.items()
    }
    for first, *others in shared_names(expected):  # these go on sharing: they are one object
        for other in others:
            if type(copies[other]) is type(copies[first]) and torch.equal(copies[other], copies[first]):
                copies[other] = copies[first]
    network.load_state_dict(copies, assign=True)
    network.requires_grad_(False)


def download(name: str, fetch: Callable[[], StateDict]) -> dict[str, Tensor]:
    """The default weights of a network, from a cache or the internet.

    Raises:
        WeightsError: The download failed; the message says how to pass a local file.
    """
    nowhere = io.StringIO()  # torch announces downloads, and Python may run without standard output and error
    try:
        with redirect_stdout(sys.stdout or nowhere), redirect_stderr(sys.stderr or nowhere):
            return dict(fetch())
    except Exception as error:  # URL, socket, proxy, disk, hash: whichever, the remedy is the same
        raise WeightsError(
            f"the default weights of {name} could not be fetched ({error}). Fetch them where there is "
            f"a network and pass the file: FeatureExtractor({name!r}, weights='path/to/{name}.pth'); "
            "weights=None gives seeded random weights"
        ) from error


def seeded_state(network: nn.Module, seed: int) -> dict[str, Tensor]:
    """He-normal convolution weights and zero biases, the same for the same seed on every machine (see `_normal`)."""
    generator = torch.Generator().manual_seed(seed)
    state: dict[str, Tensor] = {}
    for name, value in network.state_dict().items():
        if value.ndim > 1:
            fan_in = value[0].numel()
            state[name] = _normal(value.numel(), generator).view(value.shape) * (2.0 / fan_in) ** 0.5
        else:
            state[name] = torch.zeros(value.shape, device="cpu")
    return state


def _normal(count: int, generator: torch.Generator) -> Tensor:
    """(count,) float32, standard normal, the same on every processor.

    `torch.randn` in float32 rounds differently on processors with and without AVX2, which would give the weights of a
    seed another fingerprint. Its uniform numbers are the same everywhere; the Box-Muller transform is computed in
    float64 here, with an error of some 1e-15, and rounded to multiples of 2^-16: the chance that any of a million
    numbers lies so close to the middle between two multiples that processors round it differently is below 1e-4.
    """
    pairs = -(-count // 16) * 8
    uniform = torch.rand(pairs // 8, 2, 8, generator=generator, device="cpu").double()
    radius = (-2 * (1 - uniform[:, 0]).log()).sqrt()
    angle = 2 * math.pi * uniform[:, 1]
    normal = torch.stack((radius * angle.cos(), radius * angle.sin()), 1).flatten()[:count]
    return (normal * 2**16).round().div(2**16).float()
