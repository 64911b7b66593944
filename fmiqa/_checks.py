"""Checks of arguments that are the same everywhere: tensors go in, tensors come out."""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import TypeGuard

import torch
from torch import Tensor
from torch._subclasses import FakeTensor

from fmiqa.errors import InputError

__all__ = [
    "CONVERTERS",
    "channels_first",
    "check_images",
    "check_layout",
    "check_picture",
    "check_tensor",
    "is_batched",
    "is_count",
    "is_number",
    "is_positive",
    "is_recording",
    "is_traced",
    "is_transformed",
    "known_values",
    "scalar_or_tensor",
]

# A float image a little outside [0, 1] (an optimiser's overshoot) is let through; these bounds tell it from the two
# common mistakes, values up to 255 and values that are normalised by mean and standard deviation.
_LOWEST, _HIGHEST = -0.5, 1.5
_FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


CONVERTERS = "fmiqa.to_tensor(...) makes a tensor (3, H, W) of an array or a PIL image, fmiqa.read_image(...) of a file"


def check_tensor(value: object, what: str, *, meta: bool = False, advice: str = "") -> Tensor:
    """The value itself if it is an ordinary tensor.

    The library takes tensors and converts nothing, so that dtype and device are always the caller's choice.

    Args:
        value: What was given.
        what: The name of the argument and the shape it should have, which opens the message: "targets (N,)".
        meta: Whether a tensor on the meta device will do, which has a shape but no values.
        advice: How to make a tensor of what was given, where `torch.as_tensor` would not do.

    Raises:
        InputError: The value is no tensor, or is a sparse, quantized, nested, complex or 8-bit float tensor, or has no
            values.
    """
    if not isinstance(value, Tensor):
        advice = advice or ("" if value is None or isinstance(value, str) else "convert it with torch.as_tensor(...)")
        raise InputError(f"{what} must be a torch.Tensor, got {type(value).__name__}{advice and f'; {advice}'}")
    if value.layout != torch.strided or value.is_nested:
        kind = "a nested tensor" if value.is_nested else f"the layout {value.layout}"
        raise InputError(f"{what} must be a dense tensor, got {kind}; convert it with .to_dense()")
    if value.is_quantized:
        raise InputError(f"{what} must not be quantized, got {value.dtype}; convert it with .dequantize()")
    if value.is_complex():
        raise InputError(f"{what} must be real, got {value.dtype}; take its .abs() or .real")
    if value.is_floating_point() and value.dtype not in _FLOATS:
        raise InputError(f"{what} must be of an ordinary dtype, got {value.dtype}; convert it with .float()")
    if value.is_meta and not meta:
        raise InputError(f"{what} has no values: it is on the meta device; give a tensor on a CPU or a GPU")
    return value


def check_picture(value: object, what: str) -> Tensor:
    """The value itself if it is one RGB image, a tensor (3, H, W).

    Raises:
        InputError: As `check_tensor`, or the tensor has another shape.
    """
    image = check_tensor(value, f"{what} (3, H, W)", advice=CONVERTERS)
    if image.ndim != 3 or image.shape[0] != 3 or image.numel() == 0:
        raise InputError(f"{what} is one RGB image (3, H, W), got {tuple(image.shape)}{channels_first(image)}")
    return image


def check_layout(images: object, what: str = "images") -> Tensor:
    """The images themselves if they are a tensor (N, 3, H, W).

    Raises:
        InputError: Arrays, PIL images, and tensors of another layout, such as (N, H, W, 3).
    """
    given = check_tensor(images, f"{what} (N, 3, H, W)", meta=True, advice=CONVERTERS)
    if given.ndim != 4 or given.shape[1] != 3 or given.numel() == 0:
        raise InputError(
            f"{what}: expected RGB images of shape (N, 3, H, W), got {tuple(given.shape)}"
            + (channels_first(given) or "; add a batch dimension with [None], or repeat a grey channel three times")
        )
    return given


def check_images(images: Tensor, what: str = "images") -> None:
    """Raise `InputError` unless `images` is (N, 3, H, W), uint8 or float in [0, 1]."""
    check_layout(images, what)
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


def channels_first(images: Tensor) -> str:
    """What to do about one image or a batch in the layout of arrays, (..., H, W, 3); nothing for another layout."""
    if images.ndim not in (3, 4) or images.shape[-1] != 3 or images.shape[-3] == 3:
        return ""
    batch = ".movedim(-1, 0)[None]" if images.ndim == 3 else ".movedim(-1, 1)"
    return f"; channels come first: give images{batch} ({CONVERTERS})"


def scalar_or_tensor(value: object, what: str) -> Tensor:
    """An ordinary tensor as it is, a Python number as a scalar tensor.

    Raises:
        InputError: As `check_tensor`.
    """
    return torch.tensor(value, device="cpu") if is_number(value) else check_tensor(value, what)


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value is a real number of Python or NumPy, but no truth value."""
    return isinstance(value, Real) and not isinstance(value, bool)


def is_count(value: object, least: int = 1) -> TypeGuard[int]:
    """Whether a value is a whole number from `least`, of Python or NumPy."""
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= least


def is_positive(value: object) -> TypeGuard[float]:
    """Whether a value is a finite number above 0."""
    return is_number(value) and 0 < value < math.inf


def is_recording() -> bool:
    """Whether torch.compile, torch.export or torch.jit.trace records operations, so that no numbers can be read."""
    return torch.compiler.is_compiling() or is_traced()


def is_traced() -> bool:
    """Whether torch.jit.trace records operations: sizes of tensors are then tensors themselves."""
    return torch._C._get_tracing_state() is not None


def is_transformed(tensor: Tensor) -> bool:
    """Whether a transform of torch.func (vmap, grad, jvp, ...) runs over this tensor, outside torch.compile."""
    return not torch.compiler.is_compiling() and torch._C._functorch.is_functorch_wrapped_tensor(tensor)


def is_batched(tensor: Tensor) -> bool:
    """Whether torch.func.vmap runs over this tensor, so that no step may depend on its numbers."""
    while is_transformed(tensor):
        if torch._C._functorch.is_batchedtensor(tensor):
            return True
        tensor = torch._C._functorch.get_unwrapped(tensor)
    return False


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
