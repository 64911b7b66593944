"""The blocks of a score store: safetensors files, of which some maps can be read without the others.

A block holds `values` (M, n), so that the n scores of a map lie together, `targets` (n,) and `samples`, the names and
references as JSON text. They are read and not mapped into memory: from a disk, scattered maps take a tenth of the time,
because no pages around them are read, and a process takes only the memory that it asks for.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Sequence
from io import FileIO
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fmiqa._io import save_tensors
from fmiqa.errors import FileFormatError
from fmiqa.scoring.matrix import LISTS, ScoreMatrix

__all__ = ["Block", "check_size", "find_block", "read_samples", "read_tensor", "sha256_of", "write_block"]

_KIND = "fmiqa score block 1"
_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "U8": torch.uint8}


class Block(NamedTuple):
    """A file of a store, as its index lists it."""

    file: str
    images: int
    bytes: int
    sha256: str


def write_block(path: Path, scores: ScoreMatrix) -> Block:
    """Write a block, whole or not at all."""
    samples = json.dumps({part: getattr(scores, part) for part in LISTS}).encode()
    tensors = {
        "values": scores.values.T,
        "targets": scores.targets.double(),
        "samples": torch.frombuffer(bytearray(samples), dtype=torch.uint8),
    }
    save_tensors(path, _KIND, tensors, {})
    return Block(path.name, len(scores), path.stat().st_size, sha256_of(path))


def find_block(path: Path) -> Block:
    """A block that was written before.

    Raises:
        FileFormatError: The file is missing or damaged.
    """
    _, shape, _ = _layout(path, "targets")
    return Block(path.name, shape[0], path.stat().st_size, sha256_of(path))


def check_size(path: Path, block: Block) -> None:
    """Raise `FileFormatError` where a block is missing or of another size than it was."""
    try:
        size = path.stat().st_size
    except FileNotFoundError as error:
        raise _missing(path) from error
    if size != block.bytes:
        raise FileFormatError(f"{path}, a block of a score store, is damaged: it has {size} of {block.bytes} bytes")


def read_tensor(path: Path, name: str, rows: Sequence[int] | None = None, *, memory: Tensor | None = None) -> Tensor:
    """A tensor of a block, or some of its rows.

    Args:
        path: The file.
        name: The tensor's name.
        rows: The rows to read; None for all of it.
        memory: A tensor that is not needed any more, in which all of it is placed if it is of the same shape and dtype:
            fresh memory takes as long as reading what the system still has in its cache.

    Raises:
        FileFormatError: The file is missing or damaged.
    """
    dtype, shape, start = _layout(path, name)
    if rows is None:
        reused = memory is not None and memory.dtype == dtype and list(memory.shape) == shape
        found = memory if memory is not None and reused else torch.empty(shape, dtype=dtype, device="cpu")
        parts = [(start, found)]
    else:
        found = torch.empty(len(rows), *shape[1:], dtype=dtype, device="cpu")
        length = math.prod(shape[1:]) * dtype.itemsize
        parts = [(start + row * length, found[place]) for place, row in enumerate(rows)]
    try:
        with open(path, "rb", buffering=0) as file:
            for place, part in parts:
                _fill(file, place, part)
    except OSError as error:
        raise _damaged(path, error) from error
    return found


def read_samples(path: Path) -> dict[str, list[str] | None]:
    """What a block says of its images, by the name of the part of a `ScoreMatrix`.

    Raises:
        FileFormatError: The file is missing or damaged.
    """
    text = read_tensor(path, "samples")
    try:
        samples = json.loads(text.numpy().tobytes())
        return {part: samples[part] for part in LISTS}
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(path, error) from error


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        while part := file.read(2**22):
            digest.update(part)
    return digest.hexdigest()


def _layout(path: Path, name: str) -> tuple[torch.dtype, list[int], int]:
    """The dtype and shape of a tensor of a safetensors file, and where in the file it starts."""
    try:
        with open(path, "rb", buffering=0) as file:
            size = int.from_bytes(file.read(8), "little")
            if not 0 < size <= os.fstat(file.fileno()).st_size:
                raise ValueError(f"its header has {size} bytes")
            tensor: dict[str, Any] = json.loads(file.read(size))[name]
        dtype, shape, (start, end) = _DTYPES[tensor["dtype"]], tensor["shape"], tensor["data_offsets"]
        if math.prod(shape) * dtype.itemsize != end - start:
            raise ValueError(f"{name} of shape {shape} has {end - start} bytes")
        return dtype, shape, 8 + size + start
    except FileNotFoundError as error:
        raise _missing(path) from error
    except (OSError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise _damaged(path, error) from error


def _fill(file: FileIO, place: int, tensor: Tensor) -> None:
    """Read a contiguous tensor from a place in a file."""
    if not tensor.numel():
        return
    buffer = memoryview(tensor.view(torch.uint8).numpy().data).cast("B")
    file.seek(place)
    while buffer:
        read = file.readinto(buffer)
        if not read:
            raise OSError(f"{len(buffer)} bytes are missing at its end")
        buffer = buffer[read:]


def _missing(path: Path) -> FileFormatError:
    return FileFormatError(f"{path}, a block of a score store, is missing")


def _damaged(path: Path, error: Exception) -> FileFormatError:
    return FileFormatError(f"{path}, a block of a score store, is damaged: {error}")
