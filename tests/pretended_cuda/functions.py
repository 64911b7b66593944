"""Functions of torch.cuda that ask for a driver, and new threads, as a pretended device needs them."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from .log import Log

__all__ = ["cuda_functions", "in_new_threads"]

_MEMORY = 80 * 2**30


class Event:
    """An event that has always happened."""

    def __init__(self, log: Log) -> None:
        self._log = log

    def record(self, stream: object = None) -> None: ...

    def wait(self, stream: object = None) -> None: ...

    def query(self) -> bool:
        return True

    def synchronize(self) -> None:
        self._log.wait("Event.synchronize")


class Stream:
    """A stream; all of them are one."""

    def __init__(self, log: Log) -> None:
        self._log = log

    def wait_stream(self, stream: object) -> None: ...

    def wait_event(self, event: object) -> None: ...

    def record_event(self, event: Event | None = None) -> Event:
        return event or Event(self._log)

    def query(self) -> bool:
        return True

    def synchronize(self) -> None:
        self._log.wait("Stream.synchronize")


@contextlib.contextmanager
def cuda_functions(log: Log) -> Iterator[None]:
    """The functions of torch.cuda as with one device."""
    stream = Stream(log)
    replaced: dict[str, Any] = {
        "_lazy_init": lambda: None,
        "is_available": lambda: True,
        "is_bf16_supported": lambda *args, **kwargs: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "set_device": lambda device: None,
        "get_device_name": lambda device=None: "pretended CUDA device",
        "get_device_capability": lambda device=None: (9, 0),
        "mem_get_info": lambda device=None: (_MEMORY, _MEMORY),
        "synchronize": lambda device=None: log.wait("torch.cuda.synchronize"),
        "Event": lambda **options: Event(log),
        "Stream": lambda *args, **options: Stream(log),
        "stream": lambda stream: contextlib.nullcontext(),
        "current_stream": lambda device=None: stream,
    }
    with contextlib.ExitStack() as stack:
        for name, value in replaced.items():
            stack.enter_context(mock.patch.object(torch.cuda, name, value))
        stack.enter_context(mock.patch.object(torch.accelerator, "synchronize", replaced["synchronize"]))
        stack.enter_context(mock.patch.object(Tensor, "record_stream", _record_stream))
        yield


def _record_stream(self: Tensor, stream: object) -> None: ...


@contextlib.contextmanager
def in_new_threads(within: Callable[[], contextlib.AbstractContextManager[object]]) -> Iterator[None]:
    """Threads that are started within this run within a context of their own."""
    run = threading.Thread.run

    def wrapped(self: threading.Thread) -> None:
        with within():
            run(self)

    with mock.patch.object(threading.Thread, "run", wrapped):
        yield
