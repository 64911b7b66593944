"""Several processes on one problem, by `torch.distributed`: this one's share, and what all know in the end.

Where a process group is initialised, `score_matrix` deals its images to the processes, and every search over maps
(`forward_select`, `cross_validate`, `permutation_null`, ...) its candidates and problems. The work is cut in the same
pieces as in one process and only dealt, so the result has the same bits, in every process. Each process must make the
same calls, with the same arguments, on machines of one kind, with the same number of threads (`torchrun` sets
OMP_NUM_THREADS to 1). A script for `torchrun --nproc-per-node 4 script.py`::

    import fmiqa, os, torch
    import torch.distributed as dist

    dist.init_process_group()
    torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))  # where there are GPUs: each process its own
    extractor, data = fmiqa.FeatureExtractor("vgg16"), fmiqa.datasets.TID2013("TID2013")
    scores = fmiqa.score_matrix(extractor, data, device="cuda", save="scores.safetensors")
    if dist.get_rank() == 0:
        print(scores)
    dist.destroy_process_group()

A process that waits for another one that died, or for longer than the `timeout` given to `init_process_group`, raises
`WorkerError`. The timeout has to be longer than one process may be slower than another.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from fmiqa.errors import FmiqaError, InputError, WorkerError

if TYPE_CHECKING:
    from torch.distributed.distributed_c10d import Store

__all__ = [
    "alone",
    "from_first",
    "gather",
    "is_first",
    "largest",
    "launched",
    "processes",
    "processes_here",
    "rank",
    "share",
]

T = TypeVar("T")
_Items = TypeVar("_Items", bound=Sequence[Any])

_apart: ContextVar[bool] = ContextVar("_apart", default=False)
_LAUNCHED_TIMEOUT = timedelta(hours=3)  # torchrun itself notices a process that died; this is for one that hangs


def processes() -> int:
    """How many processes work together: 1 where no process group is initialised."""
    dist = torch.distributed
    return dist.get_world_size() if not _apart.get() and dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """The number of this process, from 0."""
    return torch.distributed.get_rank() if processes() > 1 else 0


def is_first() -> bool:
    """Whether this is process 0, which writes files and prints; always so where there is only one.

    Example:
        >>> is_first()
        True
    """
    return rank() == 0


def processes_here() -> int:
    """How many of them share this machine, as far as the launcher says."""
    return max(1, min(processes(), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))


@contextmanager
def alone() -> Iterator[None]:
    """Inside, this process works as if there were no others: for what only some of them do.

    Example:
        >>> with alone():
        ...     processes()
        1
    """
    token = _apart.set(True)
    try:
        yield
    finally:
        _apart.reset(token)


def share(items: _Items) -> _Items:
    """This process's consecutive part of a sequence that is the same in all of them.

    Example:
        >>> share([3, 1, 4])
        [3, 1, 4]
    """
    me, count = rank(), processes()
    return items[len(items) * me // count : len(items) * (me + 1) // count]  # type: ignore[return-value]


def gather(value: T) -> list[T]:
    """The value of each process, in all of them.

    Raises:
        WorkerError: A process did not come.

    Example:
        >>> gather("mine")
        ['mine']
    """
    if processes() == 1:
        return [value]
    _meet()
    # One after the other: gathered at once, all would take the room of the largest.
    return [_broadcast(value, source) for source in range(processes())]


def from_first(work: Callable[[], T]) -> T:
    """What `work` gives in process 0, the only one that does it; its errors are raised in all of them.

    Raises:
        WorkerError: A process did not come.
    """
    if processes() == 1:
        return work()
    outcome: Any = None
    if is_first():
        try:
            with alone():
                outcome = work()
        except (FmiqaError, OSError) as error:
            outcome = error
    _meet()
    outcome = _broadcast(outcome, 0)
    if isinstance(outcome, Exception):
        raise outcome
    return outcome  # type: ignore[no-any-return]


def largest(values: Tensor) -> Tensor:
    """Element by element, the largest of all processes; where only one has more than -inf, its bits.

    Raises:
        WorkerError: A process did not come.
    """
    if processes() == 1:
        return values
    _meet()
    kinds = torch.distributed.get_backend_config()  # such as "cpu:gloo,cuda:nccl"
    there = next(kind for kind in (values.device.type, "cpu", "cuda") if f"{kind}:" in kinds)
    moved = values.clone() if there == values.device.type else values.to(there)
    with _translated():
        torch.distributed.all_reduce(moved, op=torch.distributed.ReduceOp.MAX)
    return moved.to(values.device)


@contextmanager
def launched(device: str | None) -> Iterator[None]:
    """Be in the process group that `torchrun` started this process for, if it did, and leave it at the end.

    Args:
        device: Where to compute, CUDA where there is one if None. `"cuda"` is then each process's own GPU.

    Raises:
        InputError: There are fewer GPUs than processes.
        WorkerError: The other processes did not come.
    """
    dist = torch.distributed
    if not (dist.is_available() and dist.is_torchelastic_launched()):
        yield
        return
    cuda = torch.cuda.is_available() and (device is None or device.startswith("cuda"))
    if cuda:
        here, own = torch.cuda.device_count(), int(os.environ["LOCAL_RANK"])
        if own >= here:
            raise InputError(f"process {own} of this machine has no GPU of its own; torchrun --nproc-per-node {here}")
        torch.cuda.set_device(own)
    try:
        dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=_LAUNCHED_TIMEOUT)
    except RuntimeError as error:
        raise WorkerError(f"the processes that torchrun started did not find each other: {error}") from error
    try:
        yield
    finally:
        dist.destroy_process_group()


def _meet() -> None:
    """Return when every process has come here, so that what follows is a matter of moments.

    Raises:
        WorkerError: Naming who did not come.
    """
    dist, me, everyone = torch.distributed, rank(), range(processes())
    try:
        store = _store()
        number = store.add(f"fmiqa/{me}", 1)
        keys = [f"fmiqa/{number}/{other}" for other in everyone]
        store.set(keys[me], "here")
    except RuntimeError as error:
        raise _no_answer([0], error) from error  # the store is in its hands, or in the launcher's

    def absent() -> list[int]:
        return [other for other in everyone if not store.check([keys[other]])]

    if "cpu:" in dist.get_backend_config():
        missing, cause = _call_the_roll(absent) if me == 0 else _answer_the_roll(absent)
        if missing:
            raise _no_answer(missing, cause) from cause
    else:
        try:
            store.wait(keys)  # NCCL would not notice that the process at the other end has died
        except RuntimeError as error:
            raise _no_answer(absent(), error) from error


def _call_the_roll(absent: Callable[[], list[int]]) -> tuple[list[int], Exception | None]:
    """Process 0 hears from each other one, and tells all who is missing. gloo sees at once when one dies."""
    cause: Exception | None = None
    missing = torch.zeros(processes(), dtype=torch.bool, device="cpu")
    for other in range(1, len(missing)):
        try:
            torch.distributed.recv(torch.zeros(1, device="cpu"), src=other)
        except RuntimeError as error:
            cause = error
            missing[other] = other in absent()  # after a timeout, gloo drops those who are here, too
    for other in range(1, len(missing)):
        if not missing[other]:
            try:
                torch.distributed.send(missing, dst=other)
            except RuntimeError as error:
                cause = error
                missing[other] = not missing.any()  # it was here, and is gone now
    return missing.nonzero()[:, 0].tolist(), cause


def _answer_the_roll(absent: Callable[[], list[int]]) -> tuple[list[int], Exception | None]:
    """What process 0 says of who is missing."""
    missing = torch.zeros(processes(), dtype=torch.bool, device="cpu")
    try:
        torch.distributed.send(torch.zeros(1, device="cpu"), dst=0)
        torch.distributed.recv(missing, src=0)
    except RuntimeError as error:
        try:
            known = absent()
        except RuntimeError:  # the store ended with process 0
            known = [0]
        return ([0] if 0 in known or not known else known), error  # without process 0, the rest may be on their way
    return missing.nonzero()[:, 0].tolist(), None


def _no_answer(ranks: list[int], cause: Exception | None) -> WorkerError:
    """The error that names who did not answer; nobody where all came, and one was lost since."""
    who = f"process{'es' if len(ranks) > 1 else ''} {', '.join(map(str, ranks))}" if ranks else "a process"
    hint = "; process 0 may have ended because it missed another, which its own message names" if ranks == [0] else ""
    reason = f" ({str(cause).splitlines()[0]})" if str(cause or "") else ""
    return WorkerError(
        f"{who} of {processes()} did not answer process {rank()}: ended, hangs, or is later than the timeout of "
        f"init_process_group{hint}. Start all processes again, in any number; where the result is saved to a file, "
        "finished parts are kept and not computed again. Every process has to make the same calls; where one works "
        f"for itself, `with fmiqa.distributed.alone():`{reason}"
    )


def _broadcast(value: Any, source: int) -> Any:
    box = [value if rank() == source else None]
    with _translated():
        torch.distributed.broadcast_object_list(box, src=source)
    return box[0]


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise _no_answer([], error) from error


def _store() -> Store:
    """The key-value store that the processes met at."""
    from torch.distributed.distributed_c10d import _get_default_store

    return _get_default_store()
