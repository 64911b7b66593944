"""A pretended CUDA device: tensors that say `cuda:0`, take every branch for GPUs, and compute on the CPU.

    with pretended_cuda() as log:
        scores = fmiqa.forward_select(values.cuda(), targets.cuda())
    print(log.counts, log.lines_of("wait"))

What CUDA refuses is refused: tensors of two devices in one operation, CPU generators, `.numpy()`, operations without a
CUDA kernel. Launches, bytes, copies and host waits are logged by the line of fmiqa that caused them. It shows neither
how CUDA rounds nor how long anything takes.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any, Literal, NoReturn
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from fmiqa._runtime.compiled import Fused, is_fusing

from .functions import cuda_functions, in_new_threads
from .log import Log
from .operations import (
    COPIES,
    READ_BY_INDEX,
    WRITTEN_BY_INDEX,
    has_cuda_kernel,
    is_composite,
    is_view,
    name_of,
    on_cpu,
    size_of,
    takes_cpu_scalars,
    tensors_of,
    traffic,
    waits,
    with_tensors,
)

__all__ = ["PretendedTensor", "compiled_as_one_kernel", "current", "pretended_cuda"]

_WITH_GRADIENTS = "pretended"  # torch's name for the device type with an autograd engine
_running: list[_Device] = []  # the device within `pretended_cuda`, for all threads


@contextlib.contextmanager
def pretended_cuda(*, data: Literal["cpu", "meta"] = "cpu", gradients: bool = False) -> Iterator[Log]:
    """Pretend that there is a CUDA device; gives what it does.

    Args:
        data: Where tensors are: `"cpu"`, or `"meta"` to count launches and bytes of any size and compute nothing. What
            the host reads back is then 0.
        gradients: Have backward passes. Autograd's engine asks CUDA's driver, so that the device type is then called
            otherwise (see `Log.device`) and code that looks for the type "cuda" takes another branch.
    """
    device = _Device(data, device_type(gradients))
    lifting, overwriting = (
        torch._C._only_lift_cpu_tensors(),
        torch.__future__.get_overwrite_module_params_on_conversion(),
    )
    torch._C._ensureCUDADeviceGuardSet()
    torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(..., device="cuda") becomes a copy from the host
    torch.__future__.set_overwrite_module_params_on_conversion(True)  # a parameter's data cannot change its class
    _forget_constants()
    _running.append(device)
    try:
        with cuda_functions(device.log), in_new_threads(_Mode), _Mode():
            yield device.log
    finally:
        _running.pop()
        _forget_constants()
        torch._C._set_only_lift_cpu_tensors(lifting)
        torch.__future__.set_overwrite_module_params_on_conversion(overwriting)


def current() -> Log | None:
    """The log of the pretended device, where there is one."""
    return _running[-1].log if _running else None


@contextlib.contextmanager
def compiled_as_one_kernel() -> Iterator[None]:
    """Count a `Fused` function that would be compiled as one kernel: inputs are read and results written once.

    It runs eagerly, because the compiler cannot see through a pretended device.
    """

    def call(self: Fused[..., Any], *args: Any, **kwargs: Any) -> Any:
        log = current()
        if log is None or not is_fusing():
            return self.eager(*args, **kwargs)
        with log.paused():
            result = self.eager(*args, **kwargs)
        there = [t for t in tensors_of((args, kwargs, result)) if isinstance(t, PretendedTensor)]
        log.launch(f"fused {self.eager.__name__}", sum(size_of(t.data_here) for t in there))
        return result

    with mock.patch.object(Fused, "__call__", call):
        yield


class PretendedTensor(Tensor):
    """A tensor that says it is on the pretended device.

    Attributes:
        data_here: Its values, on the CPU or on "meta".
    """

    data_here: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, data: Tensor, device: torch.device) -> PretendedTensor:
        made = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            data.shape,
            strides=data.stride(),
            storage_offset=data.storage_offset(),
            dtype=data.dtype,
            device=device,
        )
        made.data_here = data
        return made  # type: ignore[no-any-return]

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _running[-1].run(func, args, kwargs or {})

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"PretendedTensor({self.data_here!r})"

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if self.ndim == 0 else super().__format__(spec)

    def __deepcopy__(self, memo: dict[int, Any]) -> PretendedTensor:
        with torch.no_grad():
            copied = self.clone()
        copied.requires_grad_(self.requires_grad)
        copied._is_param = getattr(self, "_is_param", False)
        memo[id(self)] = copied
        return copied

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError("tensors of a pretended device are not pickled")

    def numpy(self, *, force: bool = False) -> Any:
        if force:
            return self.detach().cpu().numpy()
        raise TypeError(f"can't convert {self.device} device type tensor to numpy. Use Tensor.cpu() first.")

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        return self.numpy()

    def tolist(self) -> Any:
        return self.cpu().tolist()


class _Mode(TorchDispatchMode):
    """Sees every operation on its thread, those too that make tensors of nothing."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _running[-1].run(func, args, kwargs or {})


class _Device:
    """How operations run."""

    def __init__(self, data: str, kind: str) -> None:
        self.home = torch.device(kind, 0)
        self.data = torch.device(data)
        self.log = Log(self.home)
        self._pinned: dict[int, torch.UntypedStorage] = {}  # kept, so that no other storage has its address

    def run(self, operation: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """One operation, on either device or between them."""
        tensors = tensors_of((args, kwargs)) if kwargs else tensors_of(args)
        there = [t for t in tensors if isinstance(t, PretendedTensor)]
        asked, name = kwargs.get("device"), name_of(operation)
        if name in ("aten._pin_memory.default", "aten.is_pinned.default"):
            return self._is_pinned(args[0]) if name == "aten.is_pinned.default" else self._kept_pinned(args[0].clone())
        result_there = bool(there) if asked is None else self._is_home(asked)
        if not there and not result_there and not is_composite(operation):  # those may yet go to the device
            made = operation(*args, **{**kwargs, "pin_memory": False} if kwargs.get("pin_memory") else kwargs)
            return self._kept_pinned(made) if kwargs.get("pin_memory") else made
        if torch.is_inference_mode_enabled() and is_view(operation) and not args[0].is_inference():
            with torch.inference_mode(False), torch.no_grad():  # views are of the kind of what they are views of
                return self.run(operation, args, kwargs)
        if is_composite(operation):
            with _Mode():
                result = operation.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        if name in COPIES and (copied := self._copied(operation, args, kwargs, result_there)) is not None:
            return copied
        self._check(operation, tensors, args, kwargs)
        return self._computed(operation, args, kwargs, result_there)

    def _computed(self, operation: Any, args: Any, kwargs: Any, result_there: bool) -> Any:
        """An operation of the device on its data; what comes back is on the device, arguments as they were given."""
        name = name_of(operation)
        known = {id(t.data_here): t for t in tensors_of((args, kwargs)) if isinstance(t, PretendedTensor)}
        own_args, own_kwargs = self._own(args, kwargs, self.data if result_there else None)
        waiting = waits(name, own_args, own_kwargs)
        if waiting:
            self.log.wait(name)
        if waiting and self.data.type == "meta":
            result = _read_back(name, own_args)
        else:
            result = on_cpu(operation)(*own_args, **own_kwargs)
        if not result_there:  # its shape alone is taken from the device
            return result
        moved = traffic(operation, own_args, own_kwargs, result)
        if moved:
            self.log.launch(name, moved, _flops(operation, own_args, own_kwargs, result))

        return with_tensors(lambda t: known[id(t)] if id(t) in known else self._there(t), result)

    def _copied(self, operation: Any, args: Any, kwargs: Any, result_there: bool) -> Tensor | None:
        """A copy to the device or from it; None for one within it."""
        name, in_place = name_of(operation), name_of(operation) == "aten.copy_.default"
        source, target = (args[1], args[0]) if in_place else (args[0], None)
        to_device = isinstance(target, PretendedTensor) if in_place else result_there
        from_device = isinstance(source, PretendedTensor)
        if to_device == from_device or torch.device(kwargs.get("device") or "cpu").type == "meta":
            return None
        asynchronous = kwargs.get("non_blocking", False) or (in_place and len(args) > 2 and args[2])
        if to_device:
            self.log.upload(name, size_of(source), blocking=not asynchronous)
        else:
            pinned = target is None or self._is_pinned(target)
            self.log.download(name, size_of(source.data_here), blocking=not (asynchronous and pinned))
            if self.data.type == "meta":
                blank = torch.zeros(source.shape, dtype=source.dtype, device="cpu")
                args = (target, blank) if in_place else (blank,)
        own_args, own_kwargs = self._own(args, kwargs, self.data if to_device else torch.device("cpu"))
        if in_place:
            operation(*own_args, **own_kwargs)
            return target
        copied: Tensor = operation(*own_args, **{"device": torch.device("cpu"), **own_kwargs})
        return self._there(copied) if to_device else copied

    def _own(self, args: Any, kwargs: Any, device: torch.device | None) -> tuple[Any, dict[str, Any]]:
        """Arguments with the data of the device's tensors, for a result on `device` if it is not None."""
        to_meta = device is not None and device.type == "meta"

        def own(tensor: Tensor) -> Tensor:
            if not isinstance(tensor, PretendedTensor):
                return tensor.to("meta") if to_meta else tensor
            if tensor.data_here.device != self.data:
                raise AssertionError("a tensor of another pretended device, which something has kept")
            return tensor.data_here

        own_args, own_kwargs = with_tensors(own, args), with_tensors(own, kwargs)
        if device is not None and "device" in own_kwargs:
            own_kwargs["device"] = device
        own_kwargs.pop("pin_memory", None)
        return own_args, own_kwargs

    def _check(self, operation: Any, tensors: list[Tensor], args: Any, kwargs: Any) -> None:
        """Refuse what CUDA refuses; indices on the CPU are copied to the device.

        Raises:
            NotImplementedError: The operation has no CUDA kernel.
            RuntimeError: Tensors of both devices, or a CPU generator.
        """
        name, home = name_of(operation), self.home
        if not has_cuda_kernel(operation):
            raise NotImplementedError(
                f"Could not run '{name}' with arguments from the 'CUDA' backend: it has no kernel"
            )
        generator = kwargs.get("generator")
        if generator is not None and generator.device.type == "cpu":
            raise RuntimeError(f"Expected a '{home.type}' device type for generator but found 'cpu' ({name})")
        here = [t for t in tensors if not isinstance(t, PretendedTensor)]
        if len(here) in (0, len(tensors)):
            return
        if isinstance(args[0], PretendedTensor) and name in READ_BY_INDEX | WRITTEN_BY_INDEX:
            indices = [i for i in args[1] if any(i is t for t in here)]
            here = [t for t in here if t.ndim and not any(t is i for i in indices)]
            for index in indices if not here else ():
                self.log.upload(name, size_of(index), blocking=True)
        elif takes_cpu_scalars(operation):
            here = [t for t in here if t.ndim]
        if here:
            raise RuntimeError(
                f"Expected all tensors to be on the same device, but found at least two devices, {home} and cpu! "
                f"({name} of {', '.join(f'{tuple(t.shape)} on {t.device}' for t in tensors)})"
            )

    def _kept_pinned(self, tensor: Tensor) -> Tensor:
        self._pinned[tensor.untyped_storage()._cdata] = tensor.untyped_storage()
        return tensor

    def _is_pinned(self, tensor: Tensor) -> bool:
        return not isinstance(tensor, PretendedTensor) and tensor.untyped_storage()._cdata in self._pinned

    def _is_home(self, device: torch.device | str) -> bool:
        asked = torch.device(device)
        if asked.type == self.home.type and asked.index:
            raise RuntimeError(f"CUDA error: invalid device ordinal ({asked}; the pretended device is {self.home})")
        return asked.type == self.home.type

    def _there(self, data: Tensor) -> PretendedTensor:
        return PretendedTensor(data, self.home)


def _forget_constants() -> None:
    """Empty the caches of the library, which keep tensors for each device."""
    for module in [m for name, m in sys.modules.items() if name.startswith("fmiqa.")]:
        for owner in (module, *(v for v in vars(module).values() if isinstance(v, type))):
            for value in vars(owner).values():
                clear = getattr(getattr(value, "__func__", value), "cache_clear", None)
                if clear is not None:
                    clear()


def _flops(operation: Any, args: Any, kwargs: Any, result: Any) -> int:
    count = flop_registry.get(operation._overloadpacket)
    return 0 if count is None else int(count(*args, **kwargs, out_val=result))


def _read_back(name: str, args: Any) -> Any:
    """What the host reads where nothing has been computed."""
    if name == "aten._local_scalar_dense.default":
        return torch.zeros((), dtype=args[0].dtype, device="cpu").item()
    if name == "aten.equal.default":
        return False
    if name == "aten._linalg_check_errors.default":
        return None
    raise NotImplementedError(f"{name} gives a tensor of a size that depends on values, and meta tensors have none")


def device_type(gradients: bool) -> str:
    """The device type; that with gradients is registered with torch for the rest of the process.

    That must come before the first backward pass of the process, when the engine counts the devices.
    """
    if not gradients:
        return "cuda"
    if torch._C._get_privateuse1_backend_name() != _WITH_GRADIENTS:
        from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

        class Module(_DummyBackendModule):
            def get_amp_supported_dtype(self) -> list[torch.dtype]:
                return [torch.bfloat16, torch.float16]

        _setup_privateuseone_for_python_backend(_WITH_GRADIENTS, backend_module=Module())
    return _WITH_GRADIENTS
