"""Ways to keep a score matrix on disk: written, read through, and read at some maps.

    python benchmarks/store.py --scratch /fast/disk [--matrix 100000x4224]

Every way writes the same random blocks, with the disk's cache flushed at the end. They are then read twice: first
after the system was asked to forget the files (cold), then at once (warm). Reading through takes the sum of each
block; 16 maps are read on all images. Zarr is measured where it is installed, with the sharding codec and no
compression, as random scores cannot be compressed. Names of a million images are written and read as a header of JSON,
by blocks, and as Parquet where pyarrow is installed. Results go to results/store.json.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import measuring
import numpy as np
import torch
from common import store
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from fmiqa import MapIndex, ScoreMatrix, ScoreStore, StoreWriter
from fmiqa._tables import text_table
from fmiqa.scoring.samples import write_samples

ROWS, MAPS_READ, NAMES = 4096, 16, 10**6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--matrix", type=measuring.sizes, default=(100_000, 4224), help="images x maps")
    parser.add_argument("--scratch", type=Path, help="folder for the files, on the disk to measure")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    images, maps = args.matrix
    some = torch.randperm(maps, generator=torch.Generator().manual_seed(1))[:MAPS_READ].tolist()
    found: dict[str, Any] = {}
    for way in (Store, MappedStore, Rows, Columns, Zarr):
        if way is Zarr and importlib.util.find_spec("zarr") is None:
            print("zarr is not installed; it is left out")
            continue
        with tempfile.TemporaryDirectory(dir=args.scratch) as folder:
            found[way.__name__] = measured(way(Path(folder) / "scores", images, maps), some)
        print(way.__name__, found[way.__name__], flush=True)
    expected = {entry.pop("sum") for entry in found.values()}
    assert max(expected) - min(expected) < 1e-5 * max(expected), "the ways hold different scores"
    head = ("", "write s", "through GB/s, cold", "warm", f"{MAPS_READ} maps s, cold", "warm", "GB", "files")
    rows = [head, *((name, *(f"{v:.3g}" for v in entry.values())) for name, entry in found.items())]
    print(text_table(rows))
    with tempfile.TemporaryDirectory(dir=args.scratch) as folder:
        names = samples(Path(folder))
    for name, entry in names.items():
        print(name, {k: round(v, 2) for k, v in entry.items()})
    content = {"images": images, "maps": maps, "block_images": ROWS, "ways": found, "names": names}
    print(f"written to {store('store', content, torch.device('cpu'))}")


class Store:
    """`ScoreStore`: safetensors files of 4096 images, a map's scores together, read by `read`."""

    def __init__(self, path: Path, images: int, maps: int) -> None:
        self.path, self.images, self.maps = path, images, maps

    def write(self) -> None:
        writer = StoreWriter(self.path, MapIndex.of_layers({"map": self.maps}), block_images=ROWS)
        for first, values in blocks(self.images, self.maps):
            names = [str(i) for i in range(first, first + len(values))]
            targets = torch.rand(len(names), dtype=torch.float64)
            writer.append(ScoreMatrix(values, MapIndex.of_layers({"map": self.maps}), targets, names, names))
        writer.finish()

    def through(self) -> Iterator[Tensor]:
        return ScoreStore.open(self.path).values_by_block()

    def some(self, positions: list[int]) -> Tensor:
        return ScoreStore.open(self.path).values_of(positions)


class MappedStore(Store):
    """The same files, mapped into memory by safetensors."""

    def through(self) -> Iterator[Tensor]:
        for path in sorted(self.path.glob("*.safetensors")):
            with safe_open(path, framework="pt") as file:
                yield file.get_tensor("values").T

    def some(self, positions: list[int]) -> Tensor:
        parts = []
        for path in sorted(self.path.glob("*.safetensors")):
            with safe_open(path, framework="pt") as file:
                values = file.get_slice("values")
                parts.append(torch.stack([values[position] for position in positions], 1))
        return torch.cat(parts)


class Rows(Store):
    """One .npy file, an image's scores together, mapped into memory."""

    def shape(self) -> tuple[int, int]:
        return self.images, self.maps

    def write(self) -> None:
        self.path.mkdir()
        array = np.lib.format.open_memmap(self.path / "scores.npy", "w+", np.float32, self.shape())
        for first, values in blocks(self.images, self.maps):
            self.view(array)[first : first + len(values)] = values.numpy()
        array.flush()

    def view(self, array: Any) -> Any:
        return array

    def through(self) -> Iterator[Tensor]:
        array = self.view(np.load(self.path / "scores.npy", mmap_mode="r"))
        for first in range(0, self.images, ROWS):
            yield torch.from_numpy(array[first : first + ROWS])

    def some(self, positions: list[int]) -> Tensor:
        return torch.from_numpy(np.array(self.view(np.load(self.path / "scores.npy", mmap_mode="r"))[:, positions]))


class Columns(Rows):
    """One .npy file, a map's scores together, mapped into memory."""

    def shape(self) -> tuple[int, int]:
        return self.maps, self.images

    def view(self, array: Any) -> Any:
        return array.T


class Zarr(Store):
    """Zarr version 3: shards of 4096 images, in chunks of 4096 images at 16 maps."""

    def write(self) -> None:
        import zarr

        array = zarr.create_array(
            store=str(self.path), shape=(self.images, self.maps), dtype="float32", chunks=(ROWS, 16),
            shards=(ROWS, self.maps), compressors=None,
        )  # fmt: skip
        for first, values in blocks(self.images, self.maps):
            array[first : first + len(values)] = values.numpy()

    def through(self) -> Iterator[Tensor]:
        import zarr

        array = zarr.open_array(str(self.path), mode="r")
        for first in range(0, self.images, ROWS):
            yield torch.from_numpy(np.asarray(array[first : first + ROWS]))

    def some(self, positions: list[int]) -> Tensor:
        import zarr

        return torch.from_numpy(np.asarray(zarr.open_array(str(self.path), mode="r").oindex[:, positions]))


def blocks(images: int, maps: int) -> Iterator[tuple[int, Tensor]]:
    values = torch.rand(ROWS, maps, generator=torch.Generator().manual_seed(0))
    for first in range(0, images, ROWS):
        yield first, values[: images - first]


def measured(way: Store, some: list[int]) -> dict[str, float]:
    start = time.perf_counter()
    way.write()
    os.sync()
    written = time.perf_counter() - start
    sums: list[float] = []
    files = [path for path in way.path.rglob("*") if path.is_file()]

    def through() -> None:
        sums.append(sum(float(values.sum()) for values in way.through()))

    gigabytes = 4e-9 * way.images * way.maps
    cold_through, warm_through = (gigabytes / seconds for seconds in cold_and_warm(through, files))
    cold_some, warm_some = cold_and_warm(lambda: way.some(some), files)
    return {
        "write_s": written,
        "through_cold_gb_s": cold_through,
        "through_warm_gb_s": warm_through,
        "maps_cold_s": cold_some,
        "maps_warm_s": warm_some,
        "gb": 1e-9 * sum(path.stat().st_size for path in files),
        "files": len(files),
        "sum": sums[0],
    }


def cold_and_warm(call: Callable[[], object], files: list[Path]) -> tuple[float, float]:
    """Seconds of a call after the system forgot the files, and of the next."""
    for path in files:
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)
    device = torch.device("cpu")
    return measuring.seconds(call, device), measuring.seconds(call, device)


def samples(folder: Path) -> dict[str, dict[str, float]]:
    """Seconds to write and to read the names, references, distortions and digests of a million images."""
    numbers = range(NAMES)
    columns = {
        "names": [f"images/i{i // 24:05}_{i % 24:02}.png" for i in numbers],
        "groups": [f"i{i // 24:05}" for i in numbers],
        "distortions": [("blur", "jpeg", "noise")[i % 3] for i in numbers],
        "digests": [f"{i * 2654435761 % 2**61:064x}" for i in numbers],
    }
    found = {}
    header = {
        name: columns[name] for name in ("names", "groups", "distortions")
    }  # the digests exceed the format's limit
    path = folder / "header.safetensors"
    device = torch.device("cpu")

    def as_header() -> None:
        path.write_bytes(save({"x": torch.zeros(1)}, {"header": json.dumps(header)}))

    def read_header() -> None:
        with safe_open(path, framework="pt") as file:
            json.loads(file.metadata()["header"])

    found["one header, without digests"] = {
        "write_s": measuring.seconds(as_header, device),
        "read_s": measuring.seconds(read_header, device),
        "mb": path.stat().st_size * 1e-6,
    }
    scores = ScoreMatrix(torch.zeros(NAMES, 1), MapIndex(["map:0"]), torch.zeros(NAMES), **columns)
    start = time.perf_counter()
    by_blocks = scores.to_store(folder / "scores")
    written = time.perf_counter() - start
    found["blocks of a store, with scores of a map"] = {
        "write_s": written,
        "read_s": measuring.seconds(lambda: ScoreStore.open(by_blocks.path).names, device),
        "mb": by_blocks.nbytes * 1e-6,
    }
    if importlib.util.find_spec("pyarrow") is None:
        print("pyarrow is not installed; Parquet is left out")
        return found
    import pyarrow.parquet

    table = folder / "samples.parquet"
    found["Parquet"] = {
        "write_s": measuring.seconds(lambda: write_samples(by_blocks, table), device),
        "read_s": measuring.seconds(lambda: pyarrow.parquet.read_table(table).to_pydict(), device),
        "mb": table.stat().st_size * 1e-6,
    }
    shutil.rmtree(by_blocks.path)
    return found


if __name__ == "__main__":
    main()
