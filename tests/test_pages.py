"""Freed memory stays with the process within `pages_kept`, and goes back after it."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys

import pytest

# Page faults of taking and filling 64 MiB ten times outside, within, and what is held after. Then those of 256 MiB:
# a heap can keep a hole of 64 MiB that later blocks of that size fall into, but none of four times the size.
PROGRAM = """
import json, resource, torch
from fmiqa.pages import pages_kept

def faults(times=10, values=2**24):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        torch.zeros(values)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def held():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()

faults()
start = held()
outside = faults()
with pages_kept():
    faults()
    with pages_kept():
        faults()
    # A small block may fall into the freed one now and then, and the next is of fresh pages: not three times.
    within = min(faults() for _ in range(3))
more = held() - start
print(json.dumps({"outside": outside, "within": within, "more": more, "after": faults(5, 2**26)}))
"""
BLOCK = 2**26 // os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 0


def run(**environment: str) -> dict[str, int]:
    cleared = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_") and k != "GLIBC_TUNABLES"}
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM], env={**cleared, **environment}, capture_output=True, text=True, check=True
    )
    figures: dict[str, int] = json.loads(result.stdout)
    return figures


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="not glibc")
def test_no_fresh_pages_until_the_outermost_ends_and_memory_goes_back_after() -> None:
    found = run(THP_MEM_ALLOC_ENABLE="0")
    if found["outside"] < 5 * BLOCK:
        pytest.skip("this system hands out larger pages")
    assert found["within"] < BLOCK // 10
    assert found["more"] < 2**24
    # Once is 4 blocks; kept, the other four times would take none.
    assert found["after"] > 19 * BLOCK


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="not glibc")
def test_leaves_the_users_settings_alone() -> None:
    found = run(MALLOC_MMAP_THRESHOLD_="131072", THP_MEM_ALLOC_ENABLE="0")
    assert found["within"] == pytest.approx(found["outside"], rel=0.1)
