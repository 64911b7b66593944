"""Memory pages kept by the process during long work on a CPU.

glibc gives large blocks back to the system as soon as they are freed, and takes fresh pages, which the system has to
clear, for the next ones. That takes a quarter of the time of VGG16's score matrix, and a fifth of a selection step.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import platform
import threading
from collections.abc import Iterator

__all__ = ["give_back", "pages_kept"]

# mallopt's parameters (malloc.h), and the largest values that glibc comes to by itself.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
_NEVER = 2**31 - 1
_LARGEST_MMAP_THRESHOLD, _LARGEST_TRIM_THRESHOLD, _DEFAULT_MMAP_MAX = 2**25, 2**26, 2**16
_SET_BY_USER = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_MMAP_MAX_", "GLIBC_TUNABLES")


_lock = threading.Lock()
_keeping = 0  # how many blocks of `pages_kept` the process is within


@contextlib.contextmanager
def pages_kept() -> Iterator[None]:
    """Have glibc's malloc use freed pages again within this; they go back to the system at its end.

    A context manager, or a decorator. Within another, the outermost counts. Elsewhere than on glibc, or where the
    environment has malloc's settings, nothing is changed.

    Example:
        >>> with pages_kept():
        ...     bytearray(1000)[0]
        0
    """
    libc = _glibc()
    if libc is None or any(name in os.environ for name in _SET_BY_USER):
        yield
        return
    _enter(libc, 1)
    try:
        yield
    finally:
        _enter(libc, -1)


def give_back() -> None:
    """Give the pages that are free now back to the system."""
    libc = _glibc()
    if libc is not None:
        libc.malloc_trim(0)


def _enter(libc: ctypes.CDLL, levels: int) -> None:
    """Go so many levels further in; settings change at the outermost."""
    global _keeping
    with _lock:
        before, _keeping = _keeping, _keeping + levels
        if before == 0:
            libc.mallopt(_MMAP_MAX, 0)
            libc.mallopt(_TRIM_THRESHOLD, _NEVER)
        elif _keeping == 0:
            libc.mallopt(_MMAP_MAX, _DEFAULT_MMAP_MAX)
            libc.mallopt(_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
            libc.mallopt(_TRIM_THRESHOLD, _LARGEST_TRIM_THRESHOLD)
            give_back()


@functools.cache
def _glibc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None
