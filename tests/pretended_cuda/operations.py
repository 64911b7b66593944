"""What operations of torch do on CUDA: which wait for the host, what they read and write, which have a kernel at all.

Operations go by their names, such as "aten.add.Tensor".
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

__all__ = [
    "COPIES",
    "READ_BY_INDEX",
    "WRITTEN_BY_INDEX",
    "has_cuda_kernel",
    "is_composite",
    "is_view",
    "name_of",
    "on_cpu",
    "size_of",
    "takes_cpu_scalars",
    "tensors_of",
    "traffic",
    "waits",
    "with_tensors",
]

COPIES = {"aten._to_copy.default", "aten.copy_.default"}
READ_BY_INDEX = {"aten.index.Tensor", "aten._unsafe_index.Tensor"}
WRITTEN_BY_INDEX = {
    "aten.index_put_.default",
    "aten.index_put.default",
    "aten._index_put_impl_.default",
    "aten._unsafe_index_put.default",
}

# Their outcome is a number, or has a size, that only the device knows.
_WAITING = {
    "aten._local_scalar_dense.default",
    "aten.bincount.default",
    "aten.equal.default",
    "aten.masked_select.default",
    "aten.nonzero.default",
    "aten._linalg_check_errors.default",
    "aten._unique.default",
    "aten._unique2.default",
    "aten.unique_consecutive.default",
    "aten.unique_dim.default",
    "aten.unique_dim_consecutive.default",
}
_GATHERING = {*READ_BY_INDEX, "aten.index_select.default", "aten.gather.default", "aten.take.default"}
_SCATTERING = {
    "aten.index_put_.default",
    "aten._index_put_impl_.default",
    "aten.index_add_.default",
    "aten.index_copy_.default",
    "aten.scatter_.src",
    "aten.scatter_.value",
    "aten.scatter_add_.default",
}
_OVERWRITING = {"aten.copy_.default", "aten.fill_.Scalar", "aten.fill_.Tensor", "aten.zero_.default"}
_ALLOCATING = {
    "aten.empty.memory_format",
    "aten.empty_like.default",
    "aten.empty_strided.default",
    "aten.new_empty.default",
    "aten.new_empty_strided.default",
}
# Operations that are not tagged pointwise, and take numbers in CPU tensors all the same.
_WITH_SCALARS = {
    "aten.fill.Tensor",
    "aten.fill_.Tensor",
    "aten.index_fill.int_Tensor",
    "aten.index_fill_.int_Tensor",
    "aten.masked_fill.Tensor",
    "aten.masked_fill_.Tensor",
    "aten.where.self",
}


name_of = cache(str)
"""The name of an operation."""


def tensors_of(values: Any) -> list[Tensor]:
    """The tensors among arguments of an operation."""
    found: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, tuple | list):
            found += tensors_of(value)
        elif isinstance(value, dict) and value:
            found += tensors_of(value.values())
    return found


def with_tensors(change: Callable[[Tensor], Any], value: Any) -> Any:
    """Arguments or results of an operation with each tensor changed."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, tuple | list):
        return type(value)([with_tensors(change, one) for one in value])
    if isinstance(value, dict):
        return {name: with_tensors(change, one) for name, one in value.items()}
    return value


@cache
def has_cuda_kernel(operation: Any) -> bool:
    """Whether CUDA can run an operation; always so where torch was built without CUDA, which does not know."""
    built = torch.backends.cuda.is_built()
    return not built or torch._C._dispatch_has_computed_kernel_for_dispatch_key(operation.name(), "CUDA")


@cache
def is_composite(operation: Any) -> bool:
    """Whether an operation is made of others on all devices, kernels among them as far as is known."""
    return name_of(operation) != "aten.narrow.default" and bool(operation._can_decompose())


@cache
def is_view(operation: Any) -> bool:
    """Whether what an operation gives is a view of its first argument."""
    return any(r.alias_info is not None and not r.alias_info.is_write for r in operation._schema.returns)


@cache
def takes_cpu_scalars(operation: Any) -> bool:
    """Whether CUDA kernels of an operation take 0-dimensional CPU tensors beside their own."""
    return torch.Tag.pointwise in operation.tags or name_of(operation) in _WITH_SCALARS


def on_cpu(operation: Any) -> Callable[..., Any]:
    """What does on a CPU what an operation does on CUDA: mostly the operation itself."""
    return _AS_ON_CUDA.get(name_of(operation), operation)


def waits(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether the host waits within an operation."""
    if name == "aten.repeat_interleave.Tensor":
        return kwargs.get("output_size") is None
    if name in READ_BY_INDEX or name in WRITTEN_BY_INDEX:
        masked = any(isinstance(i, Tensor) and i.dtype in (torch.bool, torch.uint8) for i in args[1])
        # One number at a mask is a masked_fill.
        return masked and (name in READ_BY_INDEX or args[2].numel() != 1)
    return name in _WAITING


def traffic(operation: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> int:
    """Bytes that a kernel reads and writes, each once; 0 for what starts no kernel, such as views."""
    name, results = name_of(operation), tensors_of((result,))
    if name in _ALLOCATING or not any(t.numel() for t in results):
        return 0
    given = tensors_of((args, kwargs))
    changed = tensors_of([args[p] if p < len(args) else kwargs.get(own) for p, own in _written(operation)])
    if not changed and _are_views(results, given):
        return 0
    if name in _SCATTERING:
        others = [t for t in given if t is not args[0]]
        most = max(t.numel() for t in others)
        return 2 * min(size_of(args[0]), most * args[0].element_size()) + sum(map(size_of, others))
    written = sum(map(size_of, changed or results))
    if name in _OVERWRITING or "out" in kwargs:
        given = [t for t in given if not any(t is c for c in changed)]
    read = [min(size_of(t), written) if name in _GATHERING and t is args[0] else size_of(t) for t in given]
    return written + sum(read)


def size_of(tensor: Tensor) -> int:
    """Bytes of a tensor's elements, those that a broadcast repeats counted once."""
    count = tensor.element_size()
    for side, stride in zip(tensor.shape, tensor.stride(), strict=True):
        count *= side if stride else min(side, 1)
    return count


def _cudnn_batch_norm(maps: Tensor, *args: Any) -> tuple[Tensor, ...]:
    return (*torch.ops.aten.native_batch_norm.default(maps, *args), maps.new_empty(0, dtype=torch.uint8))


def _mean(values: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: torch.dtype | None = None) -> Tensor:
    """CUDA multiplies a sum by 1 / n, so that the mean of n ones may be less than 1: .99999994 of 41."""
    total = torch.ops.aten.sum.dim_IntList(values, dim, keepdim, dtype=dtype)
    return total * torch.tensor(total.numel() / max(1, values.numel()), dtype=total.dtype, device=total.device)


def _divided(values: Tensor, divisor: Any) -> Tensor:
    """CUDA multiplies by the reciprocal of a number that is not a tensor on the device."""
    if isinstance(divisor, Tensor) or not (values.is_floating_point() and divisor):
        return torch.ops.aten.div.Tensor(values, divisor)
    wide = torch.promote_types(values.dtype, torch.float32)
    return (values.to(wide) * torch.tensor(1 / divisor, dtype=wide, device=values.device)).to(values.dtype)


_AS_ON_CUDA: dict[str, Callable[..., Any]] = {
    "aten.cudnn_batch_norm.default": _cudnn_batch_norm,
    "aten.div.Tensor": _divided,
    "aten.mean.default": _mean,
    "aten.mean.dim": _mean,
}


def _are_views(results: list[Tensor], given: list[Tensor]) -> bool:
    known = {t.untyped_storage()._cdata for t in given if t.numel()}
    return all(not t.numel() or t.untyped_storage()._cdata in known for t in results)


@cache
def _written(operation: Any) -> tuple[tuple[int, str], ...]:
    """Places and names of the arguments that an operation writes in place."""
    found = [(p, a) for p, a in enumerate(operation._schema.arguments) if a.alias_info and a.alias_info.is_write]
    return tuple((place, argument.name) for place, argument in found)
