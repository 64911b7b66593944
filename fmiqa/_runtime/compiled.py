"""Inner loops as one kernel each, by `torch.compile`, where that pays; the same functions run eagerly elsewhere.

Compiling costs seconds once a machine (torch keeps the kernels in its cache folder) and needs a C++ compiler on CPUs,
Triton on GPUs. So nothing is compiled unless a caller who knows how much work lies ahead asks for it.
"""

from __future__ import annotations

import contextlib
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any, Generic, ParamSpec, TypeVar

import torch

# With these at no limit, each intermediate value goes into the loop that uses it, however much it reads.
_ONE_LOOP = ("realize_reads_threshold", "realize_acc_reads_threshold", "realize_opcount_threshold")
_NO_LIMIT = 10_000

__all__ = ["Fused", "ahead", "fusing", "is_fusing"]

P = ParamSpec("P")
R = TypeVar("R")


class _Wanted(threading.local):
    on: bool | None = None
    paying = False


_wanted = _Wanted()


@contextlib.contextmanager
def fusing(on: bool | None) -> Iterator[None]:
    """Compile inner loops within this, on this thread.

    Args:
        on: Always, never, or (None, the default everywhere) where so much work lies ahead that compiling pays.

    Example:
        >>> with fusing(False):
        ...     is_fusing()
        False
    """
    before, _wanted.on = _wanted.on, on
    try:
        yield
    finally:
        _wanted.on = before


@contextlib.contextmanager
def ahead(*, pays: bool) -> Iterator[None]:
    """Say of the work within this whether compiling pays; `fusing` has the last word."""
    before, _wanted.paying = _wanted.paying, pays
    try:
        yield
    finally:
        _wanted.paying = before


def is_fusing() -> bool:
    """Whether `Fused` functions are compiled at the moment."""
    on = _wanted.paying if _wanted.on is None else _wanted.on
    return on and not torch.compiler.is_compiling()


class Fused(Generic[P, R]):
    """A function of tensors that can be compiled into one kernel.

    Where compiling fails (no C++ compiler, say), a warning says so once and the function runs eagerly.

    Args:
        function: Without side effects; its tensors may come in any size.
        one_loop: Compute each value anew in every loop that uses it, so that none is ever kept, such as a window's
            taps. Where many values are used twice, compiling takes minutes.

    Attributes:
        eager: The function itself.
    """

    def __init__(self, function: Callable[P, R], *, one_loop: bool = False) -> None:
        self.eager = function
        self._limits = _ONE_LOOP if one_loop else ()
        self._compiled: Callable[P, R] | None = None
        self._failed = False

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """The function, compiled or not."""
        if self._failed or not is_fusing():
            return self.eager(*args, **kwargs)
        if self._compiled is None:
            self._compiled = self._compile()
        from torch._dynamo.exc import TorchDynamoException  # takes a second to import

        try:
            return self._compiled(*args, **kwargs)
        except TorchDynamoException as error:
            self._failed = True
            reason = str(error).strip().splitlines()[0]
            warnings.warn(f"torch.compile does not work here, going on without it, slower: {reason}", stacklevel=3)
            return self.eager(*args, **kwargs)

    def _compile(self) -> Callable[P, R]:
        from torch._inductor import config

        options: dict[str, Any] = {name: _NO_LIMIT for name in self._limits if hasattr(config, name)}
        return torch.compile(self.eager, dynamic=True, options=options)
