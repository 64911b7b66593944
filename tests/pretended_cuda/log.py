"""What work on a pretended CUDA device costs: kernels, bytes, copies, host waits, and the time that a model gives."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NamedTuple

import torch

import fmiqa

__all__ = ["H100", "Counts", "Kind", "Log", "Model"]

Kind = Literal["launch", "wait", "upload", "download"]
"""`wait`: the host reads something back, and waits for all work before it. `upload`, `download`: copies from and to the
host. Every download that is not asynchronous is a wait, too; an upload that is not holds the host up as well, but is
counted only as an upload."""

_PACKAGE = str(Path(fmiqa.__file__).parent)
OUTSIDE = "outside fmiqa"


class Model(NamedTuple):
    """What a device takes, in seconds, bytes and floating-point operations a second."""

    launch: float
    wait: float
    bandwidth: float
    arithmetic: float


H100 = Model(launch=5e-6, wait=30e-6, bandwidth=2.7e12, arithmetic=45e12)
"""Reached figures, below the data sheet's 3.35 TB/s and 67 TFLOP/s of float32 without tensor cores."""


class Counts(NamedTuple):
    """Totals of some work.

    Args:
        launches: Kernels; one for each operation of torch, which may start a few.
        waits: How often the host waits for a result.
        uploads: Copies from the host.
        downloads: Copies to the host.
        bytes: What kernels read and write in the device's memory if no cache helps.
        copied: Bytes of uploads and downloads.
        seconds: The time by `H100`.
    """

    launches: int = 0
    waits: int = 0
    uploads: int = 0
    downloads: int = 0
    bytes: int = 0
    copied: int = 0
    seconds: float = 0.0

    def __sub__(self, before: Counts) -> Counts:
        return Counts(*(now - then for now, then in zip(self, before, strict=True)))


class Log:
    """What a pretended device has done.

    Attributes:
        device: What its tensors say.
        counts: All of it.
        lines: How often each kind of event came from which operation and line of fmiqa: (kind, operation, line) -> n.
    """

    def __init__(self, device: torch.device, model: Model = H100) -> None:
        self.device = device
        self.model = model
        self.counts = Counts()
        self.lines: Counter[tuple[Kind, str, str]] = Counter()
        self._paused = 0

    def of(self, call: Callable[[], object]) -> Counts:
        """What one call does."""
        before = self.counts
        call()
        return self.counts - before

    def lines_of(self, *kinds: Kind) -> str:
        """The lines that events of these kinds come from, the most frequent first, as text."""
        found: Counter[tuple[str, str, str]] = Counter()
        for event, count in self.lines.items():
            if event[0] in kinds:
                found[event] += count
        return "\n".join(f"{count:7} {kind:8} {op:36} {line}" for (kind, op, line), count in found.most_common())

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Count nothing within this."""
        self._paused += 1
        try:
            yield
        finally:
            self._paused -= 1

    def launch(self, operation: str, moved: int, flops: int = 0) -> None:
        """A kernel that reads and writes so many bytes."""
        busy = max(self.model.launch, moved / self.model.bandwidth, flops / self.model.arithmetic)
        self._add("launch", operation, launches=1, bytes=moved, seconds=busy)

    def wait(self, operation: str) -> None:
        """The host waits for the device."""
        self._add("wait", operation, waits=1, seconds=self.model.wait)

    def upload(self, operation: str, copied: int, *, blocking: bool) -> None:
        """A copy from the host."""
        seconds = self.model.wait if blocking else self.model.launch
        self._add("upload", operation, uploads=1, copied=copied, seconds=seconds)

    def download(self, operation: str, copied: int, *, blocking: bool) -> None:
        """A copy to the host."""
        if blocking:
            self.wait(operation)
        self._add("download", operation, downloads=1, copied=copied, seconds=0.0 if blocking else self.model.launch)

    def _add(self, kind: Kind, operation: str, **more: float) -> None:
        if not self._paused:
            self.counts = self.counts._replace(**{name: getattr(self.counts, name) + n for name, n in more.items()})
            self.lines[kind, operation, _line()] += 1


def _line() -> str:
    """The innermost line of fmiqa that is being run."""
    frame = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith(_PACKAGE):
            return f"fmiqa{file[len(_PACKAGE) :]}:{frame.f_lineno} {frame.f_code.co_name}"
        frame = frame.f_back  # type: ignore[assignment]
    return OUTSIDE
