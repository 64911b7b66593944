"""Network weights: read without running code, fitted strictly, fingerprinted."""

from __future__ import annotations

import hashlib
import math
import os
import pickle
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fmiqa.errors import WeightsError

__all__ = ["StateDict", "download", "fingerprint", "fit_state", "read_state", "seeded_state"]

StateDict = Mapping[str, Tensor]


def read_state(source: str | os.PathLike[str] | StateDict) -> dict[str, Tensor]:
    """Read a state dict from a `.pth`/`.pt` or `.safetensors` file, or take one as it is.

    Nothing stored in the file is executed: pickles are read in torch's tensors-only mode.

    Raises:
        WeightsError: the file is missing, damaged, or holds anything but tensors by name.
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
            if path.suffix == ".safetensors":
                from safetensors.torch import load_file

                with torch.device("cpu"):  # older versions load onto the default device
                    state = load_file(path)
            else:
                state = torch.load(path, map_location="cpu", weights_only=True)
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
    state: StateDict, expected: StateDict, *, ignored: Iterable[str] = (), defaults: StateDict | None = None
) -> dict[str, Tensor]:
    """The tensors of `state` that `expected` names, checked one by one, on the devices of `expected`.

    Args:
        state: what was given, under the network's names, these without `features.`, or either with the
            `module.` that `nn.DataParallel` puts in front.
        expected: names and shapes that must be there; those without memory (on the meta device) come to be on
            the CPU. Half precision is widened to the dtype expected, double precision is kept.
        ignored: names that may be there and are not needed (the classifier).
        defaults: taken where `state` has none.

    Raises:
        WeightsError: naming every missing, misshapen and unknown tensor.
    """
    state = {**(defaults or {}), **_named_as(expected, state)}
    found = [f"{name} is missing" for name in expected if name not in state]
    found += [
        f"{name} has shape {tuple(state[name].shape)}, expected {tuple(value.shape)}"
        for name, value in expected.items()
        if name in state and state[name].shape != value.shape
    ]
    found += [f"{name} is not of this network" for name in sorted(set(state) - set(expected) - set(ignored))]
    if found:
        shown = "; ".join(found[:12]) + (f"; and {len(found) - 12} more" if len(found) > 12 else "")
        raise WeightsError(f"the weights do not fit the network: {shown}. Are they of another network?")
    return {name: _placed_as(expected[name], state[name]) for name in expected}


def _named_as(expected: StateDict, state: StateDict) -> StateDict:
    """The tensors under the names of the network that they fit best."""
    bare = {name.removeprefix("module."): value for name, value in state.items()}
    below = {f"features.{name}": value for name, value in bare.items()}
    return max((state, bare, below), key=lambda names: len(expected.keys() & names.keys()))


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
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def download(name: str) -> dict[str, Tensor]:
    """torchvision's default ImageNet weights of a network, from its cache or the net.

    Raises:
        WeightsError: the download failed; the message says how to pass a local file.
    """
    from torchvision.models import get_model_weights

    try:
        weights = get_model_weights(name).DEFAULT
        state: dict[str, Tensor] = weights.get_state_dict(progress=True, check_hash=True, weights_only=True)
    except Exception as error:  # URL, socket, proxy, disk, hash: whichever, the remedy is the same
        raise WeightsError(
            f"torchvision's default weights of {name} could not be fetched ({error}). Fetch them where there is "
            f"a network and pass the file: FeatureExtractor({name!r}, weights='path/to/{name}.pth'); "
            "weights=None gives seeded random weights"
        ) from error
    return state


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
