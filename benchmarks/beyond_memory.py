"""Forward selection on a score matrix on disk: seconds by stage, gigabytes a second, and peak memory.

    python benchmarks/beyond_memory.py --scratch /fast/disk [--matrix 1000000x4224 --steps 20]

A synthetic matrix is written as a score store, of qualities that a few maps know in part and the others hardly; it is
removed at the end. Each search runs in a process of its own, whose peak of resident memory is beyond its libraries;
the stages are timed there, the reading of all blocks alone last. On the first --compare images, which are written as a
store too, both searches are compared with `forward_select` in memory, that by a fitted correlation with a quarter of
the images as its sample, and the error of Gram matrices of float32 products is stated. Results go to
results/beyond_memory-<device>.json.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import measuring
import torch
from common import store
from measuring import MIB, PeakMemory
from torch import Tensor

from fmiqa import MapIndex, ScoreMatrix, ScoreStore, Selection, StoreWriter, forward_select
from fmiqa._tables import text_table
from fmiqa.selection.beyond_memory import forward_select_store
from fmiqa.selection.gram import grams_of

BLOCK, PARTS = 4096, 40


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    measuring.add_options(parser, repeats=1)
    parser.add_argument("--matrix", type=measuring.sizes, default=(10**6, 4224), help="images x maps")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--compare", type=int, default=10**4, help="images searched in memory, too")
    parser.add_argument("--scratch", type=Path, help="folder for the matrix, 4 bytes a score")
    args = parser.parse_args()
    device = measuring.device_of(args)
    options = {"device": args.device, "threads": args.threads, "steps": args.steps}
    images, maps = args.matrix
    with tempfile.TemporaryDirectory(dir=args.scratch) as folder:
        whole, part = Path(folder) / "whole", Path(folder) / "part"
        start = time.perf_counter()
        written = write(whole, images, maps)
        content: dict[str, Any] = {"images": images, "maps": maps, "steps": args.steps, "bytes": written.nbytes}
        content["write_s"] = time.perf_counter() - start
        print(
            f"{images} images x {maps} maps, {written.nbytes / 1e9:.1f} GB, written in {content['write_s']:.0f} s",
            flush=True,
        )
        written.rows(range(min(args.compare, images))).to_store(part)
        for search in ("linear", "fitted"):
            case = {**options, "search": search}
            same = measuring.in_fresh_process(__file__, {**case, "store": str(part), "compare": True})
            print(f"{search}, {args.compare} images: {same}", flush=True)
            content[search] = {"compared": same, **measuring.in_fresh_process(__file__, {**case, "store": str(whole)})}
            report(search, content[search], written.nbytes)
            print(f"written to {store(f'beyond_memory-{device.type}', content, device)}", flush=True)


def report(search: str, found: dict[str, Any], size: int) -> None:
    if "failed" in found:
        print(f"{search}: failed: {found['failed']}", flush=True)
        return
    read, first, steps = found["read_s"], found["first_step_s"], found["steps_s"]
    rows = [
        ("", "seconds", ""),
        ("reading all blocks alone", f"{read:.1f}", f"{size / read / 1e9:.2f} GB/s"),
        ("a pass over all images, and the first step", f"{first:.1f}", f"{size / first / 1e9:.2f} GB/s"),
        (f"{len(steps)} more steps", f"{sum(steps):.1f}", f"{min(steps):.2f} to {max(steps):.2f} each"),
        ("the whole search", f"{found['seconds']:.1f}", f"peak {found['peak'] / MIB:.0f} MiB"),
    ]
    print(f"\n{search}: {', '.join(found['selected'])}\n{text_table(rows)}\n", flush=True)


def case(options: dict[str, Any]) -> dict[str, Any]:
    """One search, in its own process."""
    device = measuring.device_of(options)
    scores = ScoreStore.open(options["store"])
    how: dict[str, Any] = {"max_maps": options["steps"], **({"fit": None} if options["search"] == "linear" else {})}
    forward_select(torch.rand(50, 8), torch.rand(50), max_maps=2)  # what it takes to have libraries loaded
    if options.get("compare"):
        return compared(scores, how, device)
    ends: list[float] = []
    with PeakMemory(torch.device("cpu")) as memory:
        start = time.perf_counter()
        found = forward_select_store(scores, device=device, callback=lambda _: ends.append(time.perf_counter()), **how)
        seconds = time.perf_counter() - start
    first, *steps = (end - before for before, end in zip([start, *ends], ends, strict=False))
    return {
        "read_s": measuring.seconds(lambda: sum(1 for _ in scores.values_by_block()), device),
        "seconds": seconds,
        "first_step_s": first,
        "steps_s": steps,
        "peak": memory.bytes,
        "selected": [str(m) for m in found.maps],
        "curve": found.curve,
        "sampled": found.options.get("sampled"),
    }


def compared(scores: ScoreStore, how: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """Whether the same maps are selected in memory, and by how much values differ."""
    matrix = scores.load()
    sample = {} if how.get("fit", True) is None else {"sample": len(matrix) // 4}
    ours = forward_select_store(scores, device=device, **sample, **how)
    theirs = forward_select(matrix, **how)
    content = {"same_maps": ours.maps == theirs.maps, "largest_difference": difference(ours, theirs), **sample}
    if sample:
        return {**content, "sampled": ours.options["sampled"]}
    (exact,) = grams_of(scores, scores.targets, device=device)
    start = time.perf_counter()
    (single,) = grams_of(scores, scores.targets, device=device, dtype=torch.float32)
    seconds = time.perf_counter() - start
    return {**content, "float32_s": seconds, "float32_error": float(largest(single.products, exact.products))}


def difference(one: Selection, other: Selection) -> float:
    return max(abs(a - b) for a, b in zip(one.curve, other.curve, strict=False))


def largest(products: Tensor, exact: Tensor) -> Tensor:
    """The largest error of a product, in units of the deviations of its columns."""
    deviation = exact.diagonal().sqrt()
    return ((products - exact).abs() / deviation / deviation[:, None]).max()


def write(path: Path, images: int, maps: int) -> ScoreStore:
    """Images of `PARTS` aspects of quality; a map sees all of them a little, and the first maps one of them clearly."""
    generator = torch.Generator().manual_seed(0)
    index = MapIndex.of_layers({"map": maps})
    weights = 0.02 + 0.03 * torch.rand(PARTS, maps, generator=generator)
    places = torch.randperm(maps, generator=generator)[:PARTS]
    weights[torch.arange(PARTS), places] += torch.linspace(1, 0.2, PARTS)
    noise = 0.2 + 0.4 * torch.rand(maps, generator=generator)
    writer = StoreWriter(path, index, {"dataset": "synthetic"}, block_images=BLOCK)
    for first in range(0, images, BLOCK):
        names = [f"{i:07}.png" for i in range(first, min(first + BLOCK, images))]
        aspects = torch.rand(len(names), PARTS, generator=generator) - 0.5
        values = aspects @ weights + noise * (torch.rand(len(names), maps, generator=generator) - 0.5)
        quality = (0.7 * aspects @ torch.linspace(1, 0.2, PARTS)).sigmoid().double()
        writer.append(ScoreMatrix(values.sigmoid(), index, quality, [name[:5] for name in names], names))
    return writer.finish()


if __name__ == "__main__":
    measuring.start(main, case)
