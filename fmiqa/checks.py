"""Checks of arguments that are the same everywhere: tensors go in, tensors come out."""

from __future__ import annotations

import torch
from torch import Tensor
from torch._subclasses import FakeTensor

from fmiqa.errors import InputError

__all__ = ["check_tensor", "is_recording", "is_traced", "is_transformed", "known_values"]


def check_tensor(value: object, what: str) -> Tensor:
    """The value itself if it is an ordinary tensor.

    The library takes tensors and converts nothing, so that dtype and device are always the caller's choice.

    Args:
        value: What was given.
        what: The name of the argument and the shape it should have, which opens the message: "targets (N,)".

    Raises:
        InputError: The value is no tensor, or is a sparse, quantized or complex tensor, or has no values.
    """
    if not isinstance(value, Tensor):
        advice = "" if value is None or isinstance(value, str) else "; convert it with torch.as_tensor(...)"
        raise InputError(f"{what} must be a torch.Tensor, got {type(value).__name__}{advice}")
    if value.layout != torch.strided:
        raise InputError(f"{what} must be a dense tensor, got the layout {value.layout}; convert it with .to_dense()")
    if value.is_quantized:
        raise InputError(f"{what} must not be quantized, got {value.dtype}; convert it with .dequantize()")
    if value.is_complex():
        raise InputError(f"{what} must be real, got {value.dtype}; take its .abs() or .real")
    return value


def is_recording() -> bool:
    """Whether torch.compile, torch.export or torch.jit.trace records operations, so that no numbers can be read."""
    return torch.compiler.is_compiling() or is_traced()


def is_traced() -> bool:
    """Whether torch.jit.trace records operations: sizes of tensors are then tensors themselves."""
    return torch._C._get_tracing_state() is not None


def is_transformed(tensor: Tensor) -> bool:
    """Whether a transform of torch.func (vmap, grad, jvp, ...) runs over this tensor, outside torch.compile."""
    return not torch.compiler.is_compiling() and torch._C._functorch.is_functorch_wrapped_tensor(tensor)


def known_values(tensor: Tensor) -> Tensor | None:
    """A tensor of the same numbers that can be read, for checks that depend on them.

    Returns:
        None while operations are recorded, and for tensors without values (meta device, fake tensors). Inside a
        transform of torch.func it is what was given to the transform: the whole batch, under torch.func.vmap.
    """
    if is_recording():
        return None
    while is_transformed(tensor):
        tensor = torch._C._functorch.get_unwrapped(tensor)
    return None if tensor.is_meta or isinstance(tensor, FakeTensor) else tensor.detach()
