"""Inner loops as one kernel each, by `torch.compile`, where that pays; the same functions run eagerly elsewhere.

Compiling costs seconds once a machine (torch keeps the kernels in its cache folder) and needs a C++ compiler on CPUs,
Triton on GPUs. So nothing is compiled unless a caller who knows how much work lies ahead asks for it.
"""

from __future__ import annotations

import contextlib
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, TypeVar

import torch

__all__ = ["Fused", "fusing", "is_fusing"]

P = ParamSpec("P")
R = TypeVar("R")


class _Wanted(threading.local):
    on = False


_wanted = _Wanted()


@contextlib.contextmanager
def fusing(on: bool) -> Iterator[None]:
    """Within this, on this thread, `Fused` functions are compiled or not."""
    before, _wanted.on = _wanted.on, on
    try:
        yield
    finally:
        _wanted.on = before


def is_fusing() -> bool:
    """Whether `Fused` functions are compiled at the moment: asked for, and not inside another compilation."""
    return _wanted.on and not torch.compiler.is_compiling()


class Fused:
    """A function of tensors that can be compiled into one kernel.

    Where compiling fails (no C++ compiler, say), a warning says so once and the function runs eagerly.

    Args:
        function: without side effects; its tensors may come in any size.
    """

    def __init__(self, function: Callable[P, R]) -> None:
        self._eager = function
        self._compiled: Callable[..., Any] | None = None
        self._failed = False

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Any:
        if self._failed or not is_fusing():
            return self._eager(*args, **kwargs)
        if self._compiled is None:
            self._compiled = torch.compile(self._eager, dynamic=True)
        from torch._dynamo.exc import TorchDynamoException

        try:
            return self._compiled(*args, **kwargs)
        except TorchDynamoException as error:
            self._failed = True
            reason = str(error).strip().splitlines()[0]
            warnings.warn(f"torch.compile does not work here, going on without it, slower: {reason}", stacklevel=3)
            return self._eager(*args, **kwargs)
