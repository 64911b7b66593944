"""Time, memory and growth, measured in the same way by all scripts that ask for them."""

from __future__ import annotations

import argparse
import gc
import json
import math
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

MIB = 2**20


def add_options(parser: argparse.ArgumentParser, *, repeats: int) -> None:
    """Where to compute, and how often to repeat."""
    parser.add_argument("--device", default="cpu", help="cpu, cuda, ...")
    parser.add_argument("--threads", type=int, help="threads on a CPU, by default as many as torch takes")
    parser.add_argument("--repeats", type=int, default=repeats, help="rounds of which the fastest counts")


def device_of(args: argparse.Namespace | Mapping[str, Any]) -> torch.device:
    """The device that these options name; sets the number of threads."""
    options = args if isinstance(args, Mapping) else vars(args)
    if options["threads"]:
        torch.set_num_threads(options["threads"])
    return torch.device(options["device"])


def sizes(text: str) -> tuple[int, int]:
    """`384x512` as (height, width)."""
    height, _, width = text.partition("x")
    return int(height), int(width)


def seconds(call: Callable[[], object], device: torch.device) -> float:
    """How long a call takes, until the device is done."""
    _synchronize(device)
    start = time.perf_counter()
    call()
    _synchronize(device)
    return time.perf_counter() - start


def alternate(calls: Mapping[str, Callable[[], object]], *, repeats: int, device: torch.device) -> dict[str, float]:
    """Seconds of each call: the least over rounds in which each is called once, so that all see the same machine."""
    least = dict.fromkeys(calls, math.inf)
    for _ in range(repeats):
        for name, call in calls.items():
            least[name] = min(least[name], seconds(call, device))
    return least


def exponent(x: Sequence[float], y: Sequence[float]) -> float:
    """The p of y ~ x^p: the slope of the least-squares line through the logarithms."""
    a, b = (torch.tensor(v, dtype=torch.float64).log() for v in (x, y))
    a, b = a - a.mean(), b - b.mean()
    return float((a * b).sum() / (a * a).sum())


class PeakMemory:
    """Bytes that what runs inside takes at its highest, beyond what there was before; for fresh processes.

    On a GPU what torch's allocator gives out; on a CPU the memory of the process (resident pages). There, a process
    whose memory was higher before hides what it uses again, where the system cannot start its peak anew.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.bytes = 0

    def __enter__(self) -> PeakMemory:
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
            self._before = torch.cuda.memory_allocated(self.device)
        else:
            _restart_peak()
            self._before = _peak_resident()
        return self

    def __exit__(self, *_: object) -> None:
        cuda = self.device.type == "cuda"
        peak = torch.cuda.max_memory_allocated(self.device) if cuda else _peak_resident()
        self.bytes = peak - self._before


def start(main: Callable[[], None], case: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Run a script: `main`, or in a process of `in_fresh_process` the `case` it was started for."""
    if sys.argv[1:2] == ["--case"]:
        _end_with_parent()
        print(json.dumps(case(json.loads(sys.argv[2]))))
    else:
        main()


def in_fresh_process(
    script: str, case: Mapping[str, Any], *, limit: int | None = None, environment: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """What the script's `case` function gives in a process of its own; `{"failed": reason}` if it fails.

    Args:
        script: the file, which calls `start`.
        case: what to run, as JSON has it.
        limit: bytes of memory (its data segment) that the process may take on Linux; more is an error in it.
        environment: variables beside this process's.
    """

    def confine() -> None:
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))

    done = subprocess.run(
        [sys.executable, "-W", "ignore", script, "--case", json.dumps(case, default=str)],
        capture_output=True,
        text=True,
        env={**os.environ, **(environment or {})},
        preexec_fn=confine,
        check=False,
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"]
        return {"failed": lines[-1][:200]}
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def large_copy(device: torch.device) -> tuple[Callable[[], object], int]:
    """A large copy within the device's memory, and how many bytes it reads and writes."""
    source = torch.ones(2**30 if device.type == "cuda" else 2**28, dtype=torch.uint8, device=device)
    target = source.clone()  # written once, or the first copy would wait for fresh pages
    return lambda: target.copy_(source), 2 * source.numel()


def large_product(device: torch.device) -> tuple[Callable[[], object], int]:
    """A large matrix product in full float32, and how many operations it takes."""
    from fmiqa._runtime.precision import strict_float32

    side = 8192 if device.type == "cuda" else 2048
    a = torch.rand(side, side, device=device)

    def product() -> None:
        with strict_float32(device):
            a @ a

    return product, 2 * side**3


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _restart_peak() -> None:
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def _peak_resident() -> int:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _end_with_parent() -> None:
    """A run that is interrupted leaves no process behind."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
