"""Inner loops as one kernel each, by `torch.compile`, where that pays; the same functions run eagerly elsewhere.

Compiling costs seconds once a machine (torch keeps the kernels in its cache folder) and needs a C++ compiler on CPUs,
Triton on GPUs. So nothing is compiled unless a caller who knows how much work lies ahead asks for it.
"""

from __future__ import annotations

import contextlib
import threading
import warnings
from collections.abc import Callable, Iterator
from types import FunctionType
from typing import Any, Generic, ParamSpec, TypeVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

# With these at no limit, each intermediate value goes into the loop that uses it, however much it reads.
_ONE_LOOP = ("realize_reads_threshold", "realize_acc_reads_threshold", "realize_opcount_threshold")
_NO_LIMIT = 10_000

__all__ = ["Fused", "ahead", "compiling", "is_fusing"]

P = ParamSpec("P")
R = TypeVar("R")


class _Wanted(threading.local):
    on: bool | None = None
    paying = False


_wanted = _Wanted()


@contextlib.contextmanager
def compiling(on: bool | None) -> Iterator[None]:
    """Compile the inner loops of searches, fits and score matrices within this, on this thread.

    Compiled loops run several times as fast, above all on a GPU. Compiling them takes up to a minute once a machine,
    and seconds in each later process. Results move by rounding only.

    Args:
        on: Always (True), never (False), or (None, the default everywhere) where so much work lies ahead that compiling
            pays.

    Example:
        >>> import fmiqa
        >>> values, targets = torch.rand(2, 40, generator=torch.Generator().manual_seed(0))
        >>> with fmiqa.compiling(False):
        ...     found = fmiqa.plcc(values, targets)
    """
    before, _wanted.on = _wanted.on, on
    try:
        yield
    finally:
        _wanted.on = before


@contextlib.contextmanager
def ahead(*, pays: bool) -> Iterator[None]:
    """Say of the work within this whether compiling pays; `compiling` has the last word."""
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
        sized: On GPUs compile the function for each size of all dimensions but the first, where there are few. A kernel
            for any size spends two thirds of its instructions on working out positions.

    Attributes:
        eager: The function itself.
    """

    def __init__(self, function: Callable[P, R], *, one_loop: bool = False, sized: bool = False) -> None:
        self.eager = function
        self._limits = _ONE_LOOP if one_loop else ()
        self._sized = sized
        self._compiled: dict[tuple[object, ...], Callable[P, R]] = {}
        self._failed = False

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """The function, compiled or not."""
        if self._failed or not is_fusing():
            return self.eager(*args, **kwargs)
        leaves = tree_leaves((args, kwargs)) if self._sized else []
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.ndim and not leaf.is_cpu]
        sizes = tuple((len(x) == 1, x.shape[1:]) for x in tensors)
        if sizes not in self._compiled:
            self._compiled[sizes] = self._compile(any_size=not sizes)
        from torch._dynamo import maybe_mark_dynamic
        from torch._dynamo.exc import TorchDynamoException  # takes a second to import

        for x in tensors:
            if len(x) > 1:
                maybe_mark_dynamic(x, 0)
        try:
            return self._compiled[sizes](*args, **kwargs)
        except TorchDynamoException as error:
            self._failed = True
            reason = str(error).strip().splitlines()[0]
            warnings.warn(f"torch.compile does not work here, going on without it, slower: {reason}", stacklevel=3)
            return self.eager(*args, **kwargs)

    def _compile(self, *, any_size: bool) -> Callable[P, R]:
        from torch._inductor import config

        options: dict[str, Any] = {name: _NO_LIMIT for name in self._limits if hasattr(config, name)}
        if any_size:
            return torch.compile(self.eager, dynamic=True, options=options)
        # A copy, since torch limits how often one function's code is compiled.
        eager: Any = self.eager
        copied = FunctionType(eager.__code__.replace(), eager.__globals__, eager.__name__, None, eager.__closure__)
        return torch.compile(copied, dynamic=False, options=options)
