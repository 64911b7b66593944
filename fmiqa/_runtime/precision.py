"""What floating-point numbers a network computes in: strict float32, or less where it is asked for.

torch keeps these settings for the whole process, so that threads share them. What is held here is counted: a setting
is strict as long as any thread needs it so, and the caller's own value comes back when the last one is done. Only
settings that matter on the device in question, and are not strict already, are touched.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

__all__ = ["Precision", "WideBuffers", "at_least_float32", "reduced", "strict_float32"]

Precision = Literal["float32", "tf32", "bfloat16"]
"""`float32`: strict. `tf32`: products of 10-bit mantissas on CUDA (float32 elsewhere). `bfloat16`: of 7 bits."""

_BACKENDS: Any = torch.backends  # typed differently from torch to torch


@contextmanager
def strict_float32(device: torch.device | str) -> Iterator[None]:
    """Compute in full float32 on `device`, whatever the caller's autocast and TF32 settings.

    With TF32 convolutions the mean SSIM of a map was off by .019 at a mean of 10 and a standard
    deviation of .5 (data range 1): the cancellation in E[x^2] - mu^2 does not forgive short mantissas.

    Args:
        device: Where the work inside runs.

    Example:
        >>> with torch.autocast("cpu", dtype=torch.bfloat16), strict_float32("cpu"):
        ...     (torch.ones(2, 2) @ torch.ones(2, 2)).dtype
        torch.float32
    """
    kind = torch.device(device).type
    held = _hold(_Hold(kind == "cpu", tf32=False))
    try:
        with torch.autocast(kind, enabled=False):
            yield
    finally:
        _release(held)


@contextmanager
def reduced(device: torch.device | str, precision: Precision) -> Iterator[None]:
    """Let convolutions inside `strict_float32` compute in less.

    TF32 is a setting of the whole process: while another thread needs strict float32, convolutions here are strict too.

    Args:
        device: Where the work inside runs.
        precision: `"tf32"` or `"bfloat16"`.
    """
    kind = torch.device(device).type
    if precision == "bfloat16":
        with torch.autocast(kind, dtype=torch.bfloat16):
            yield
        return
    held = _hold(_Hold(kind == "cpu", tf32=True))
    try:
        yield
    finally:
        _release(held)


def at_least_float32(values: Tensor) -> Tensor:
    """Half precision (float16, bfloat16) widened to float32; anything else as it is."""
    return values.float() if values.is_floating_point() and values.itemsize < 4 else values


class WideBuffers(nn.Module):
    """A module whose own buffers stay as they are under `.half()` and the like, which are meant for its networks."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> WideBuffers:
        wide = {name: value for name, value in self._buffers.items() if value is not None}
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, value in wide.items():
            given = getattr(self, name)
            if given.itemsize < 4 <= value.itemsize:  # float16 would round them for good
                setattr(self, name, value.to(given.device))
        return self


class _Switch(NamedTuple):
    """One of torch's switches."""

    read: Callable[[], Any]
    write: Callable[[Any], None]
    own: Callable[[], Any]  # what to write later to have it as it is now
    strict: Any
    tf32: Any


@dataclass(eq=False)
class _Setting:
    """A setting of the process: the switch that counts, last, and those that mirror it.

    torch refuses to read an older switch that contradicts the newer ones, so all of them are set together. One that
    the caller has left contradictory cannot be read, and is left alone.
    """

    cpu: bool | None  # whether it matters on CPUs, or elsewhere; None: everywhere
    switches: tuple[_Switch, ...]
    convolutions: bool = False
    saved: list[tuple[_Switch, Any]] | None = None  # the caller's, while it is changed
    tf32: bool = False  # what it was changed to

    def settle(self, holds: list[list[_Hold]]) -> None:
        """Set what the threads need, or bring the caller's values back where none needs anything."""
        needs = [hold for hold in (self._last(stack) for stack in holds) if hold is not None]
        if not needs:
            self._restore()
        elif self.convolutions and all(hold.tf32 for hold in needs):
            self._change(tf32=True)
        elif self._is_reduced():
            self._change(tf32=False)

    def _last(self, stack: list[_Hold]) -> _Hold | None:
        return next((hold for hold in reversed(stack) if self.cpu in (None, hold.cpu)), None)

    def _is_reduced(self) -> bool:
        return self.switches[-1].read() in ("tf32", "bf16", "high", "medium", True)

    def _change(self, *, tf32: bool) -> None:
        if self.saved is None or self._is_reduced() != self.tf32:  # the latter if the caller has set it inside
            self.saved = [(switch, _readable(switch.own)) for switch in self.switches]
        for switch, before in self.saved:
            if before is not None:
                switch.write(switch.tf32 if tf32 else switch.strict)
        self.tf32 = tf32

    def _restore(self) -> None:
        saved, self.saved = self.saved, None
        if saved is None or self._is_reduced() != self.tf32:
            return
        for switch, before in saved:
            if before is not None:
                switch.write(before)


class _Hold:
    """What a block of one thread needs."""

    def __init__(self, cpu: bool, *, tf32: bool) -> None:
        self.cpu, self.tf32 = cpu, tf32


_lock = threading.RLock()  # a finaliser or a signal handler may come in between on the same thread
_holds: dict[int, list[_Hold]] = {}  # thread -> what its blocks need, the innermost last


def _hold(hold: _Hold) -> tuple[list[_Hold], _Hold]:
    with _lock:
        stack = _holds.setdefault(threading.get_ident(), [])
        stack.append(hold)
        if not _is_repeated(stack):
            _settle()
    return stack, hold


def _release(held: tuple[list[_Hold], _Hold]) -> None:
    stack, hold = held
    with _lock:
        if hold in stack:  # not in a process forked by another thread
            repeated = _is_repeated(stack)
            stack.remove(hold)
            if not repeated:
                _settle()


def _is_repeated(stack: list[_Hold]) -> bool:
    """Whether the innermost block needs what the one around it does."""
    return len(stack) > 1 and (stack[-1].cpu, stack[-1].tf32) == (stack[-2].cpu, stack[-2].tf32)


def _settle() -> None:
    for thread in [thread for thread, stack in _holds.items() if not stack]:
        del _holds[thread]
    holds = list(_holds.values())
    for setting in _SETTINGS:
        setting.settle(holds)


def _after_fork() -> None:
    """A forked process has only the thread that forked it: what the others needed is over."""
    global _lock
    _lock = threading.RLock()
    own = threading.get_ident()
    for thread, stack in _holds.items():
        if thread != own:
            stack.clear()
    _settle()


def _readable(read: Callable[[], Any]) -> Any:
    try:
        return read()
    except RuntimeError:  # contradicts the newer switches
        return None


def _precision_of(owner: Any, *above: Any) -> _Switch:
    """The switch of a backend, which follows those above it while it says "none"."""

    def read() -> str:
        return owner.fp32_precision  # type: ignore[no-any-return]

    def write(value: str) -> None:
        owner.fp32_precision = value

    return _Switch(read, write, lambda: _own(owner, *above), "ieee", "tf32")


def _own(owner: Any, *above: Any) -> str:
    """A backend's own setting: reading it gives what it follows, and writing that would cut it off for good."""
    value: str = owner.fp32_precision
    for place, parent in enumerate(above):
        if value in ("tf32", "bf16") and parent.fp32_precision == value:
            before = _own(parent, *above[place + 1 :])
            parent.fp32_precision = "ieee"  # stricter for this moment, should another thread compute
            followed = owner.fp32_precision != value
            parent.fp32_precision = before
            if followed:
                return "none"
    return value


def _older(read: Callable[[], Any], write: Callable[[Any], None], strict: Any, tf32: Any) -> _Switch:
    return _Switch(read, write, read, strict, tf32)


def _set_cudnn(allow: bool) -> None:
    _BACKENDS.cudnn.allow_tf32 = allow


_CUDNN = _older(lambda: _BACKENDS.cudnn.allow_tf32, _set_cudnn, False, True)
_PRODUCTS = _older(torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, "highest", "high")


def _settings() -> list[_Setting]:
    if not hasattr(_BACKENDS.cudnn, "conv"):  # before torch 2.9
        return [_Setting(False, (_CUDNN,), convolutions=True), _Setting(None, (_PRODUCTS,))]
    cuda = (_BACKENDS.cudnn, _BACKENDS)  # the backend as a whole, then all backends
    rnn = _precision_of(_BACKENDS.cudnn.rnn, *cuda)
    mkldnn_products = _precision_of(_BACKENDS.mkldnn.matmul, _BACKENDS)
    return [  # the third writes the last one too, and is put back first
        _Setting(False, (_CUDNN, rnn, _precision_of(_BACKENDS.cudnn.conv, *cuda)), convolutions=True),
        _Setting(True, (_precision_of(_BACKENDS.mkldnn.conv, _BACKENDS),)),
        _Setting(False, (_PRODUCTS, mkldnn_products, _precision_of(_BACKENDS.cuda.matmul, *cuda))),
        _Setting(True, (mkldnn_products,)),
    ]


_SETTINGS = _settings()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
