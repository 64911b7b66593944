"""`ScoreStore`: a score matrix on disk that is larger than memory, read by rows and by columns.

A store is a folder of safetensors files, each a block of some thousand images with all that is known of them. Within a
block the scores of a map lie together, so that a few maps are read without the others; blocks are read one after
another by whatever goes through all images. Names and references are kept in their blocks, too, and read only where
they are asked for. `store.json` lists the blocks, and is written last.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fmiqa._io import load_json
from fmiqa.errors import FileFormatError
from fmiqa.maps import FeatureMap, MapIndex
from fmiqa.scoring.blocks import Block, check_size, read_samples, read_tensor, sha256_of
from fmiqa.scoring.matrix import LISTS, ScoreMatrix, positions_among

__all__ = ["KIND", "ScoreStore"]

KIND = "fmiqa score store 1"
"""What the index of a finished store says that it is."""


class ScoreStore:
    """The score matrix of a folder, of which only what is asked for is read into memory.

    Made by `ScoreMatrix.to_store`, `write_store` or `StoreWriter`, opened by `ScoreMatrix.open` or `ScoreStore.open`.

    Args:
        path: The folder.
        maps: The M feature maps.
        options: What the scores were computed with.
        blocks: The files of the folder, in order.

    Example:
        >>> import tempfile
        >>> names = ["a1", "a2", "b1", "b2"]
        >>> scores = ScoreMatrix(torch.rand(4, 2), MapIndex(["conv1:0", "conv1:1"]), torch.arange(4.0), names, names)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     store = scores.to_store(f"{folder}/scores")
        ...     print(store, store.columns(["conv1:1"]).values.shape, store.rows([0, 3]).names)
        ScoreStore(4 images x 2 maps in 1 block) torch.Size([4, 1]) ['a1', 'b2']
    """

    def __init__(self, path: Path, maps: MapIndex, options: dict[str, Any], blocks: Sequence[Block]) -> None:
        self.path, self.maps, self.options = path, maps, options
        self._blocks = tuple(blocks)
        self._length = sum(block.images for block in blocks)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> ScoreStore:
        """Open a finished store; that its blocks are there and of their size is looked up, without reading them.

        Raises:
            FileFormatError: The folder is no store, an unfinished one, or lacks a block or a part of one.
        """
        folder = Path(path)
        if not (folder / "store.json").exists() and (folder / "writing.json").exists():
            raise FileFormatError(
                f"{folder} is an unfinished score store; write it to its end, by the call or command that began it"
            )
        content = load_json(folder / "store.json", KIND)
        try:
            blocks = [Block(**block) for block in content["blocks"]]
            store = cls(folder, MapIndex(content["maps"]), content["options"], blocks)
            if not len(store):
                raise ValueError("no images")
        except (KeyError, TypeError, ValueError) as error:
            raise FileFormatError(
                f"{folder / 'store.json'} is damaged: it is no complete {KIND} ({error!r})"
            ) from error
        for file, block in zip(store._paths, blocks, strict=True):
            check_size(file, block)
        return store

    def __len__(self) -> int:
        return self._length

    @property
    def nbytes(self) -> int:
        """The size of all blocks on disk."""
        return sum(block.bytes for block in self._blocks)

    @cached_property
    def dtype(self) -> torch.dtype:
        """The dtype of the scores."""
        return read_tensor(self._paths[0], "values", []).dtype

    @cached_property
    def targets(self) -> Tensor:
        """(N,) float64, the subjective scores."""
        return torch.cat([read_tensor(path, "targets") for path in self._paths])

    @cached_property
    def _lists(self) -> dict[str, Any]:
        """What is known of the images, by the name of its part of a `ScoreMatrix`; equal texts are kept once."""
        known: dict[str, str] = {}
        found: dict[str, Any] = {part: [] for part in LISTS}
        for path in self._paths:
            for part, own in read_samples(path).items():
                if own is None:
                    found[part] = None
                elif found[part] is not None:
                    found[part] += [known.setdefault(value, value) for value in own]
        return found

    @property
    def _paths(self) -> list[Path]:
        return [self.path / block.file for block in self._blocks]

    @property
    def names(self) -> list[str]:
        """The name of each image."""
        return self._lists["names"]  # type: ignore[no-any-return]

    @property
    def groups(self) -> list[str]:
        """The reference id of each image."""
        return self._lists["groups"]  # type: ignore[no-any-return]

    @property
    def distortions(self) -> list[str] | None:
        """The distortion type of each image, where all blocks have them."""
        return self._lists["distortions"]  # type: ignore[no-any-return]

    @property
    def datasets(self) -> list[str] | None:
        """The data set of each image, where several are stacked."""
        return self._lists["datasets"]  # type: ignore[no-any-return]

    @property
    def digests(self) -> list[str] | None:
        """What tells each image and score from others of the same name, where it is known."""
        return self._lists["digests"]  # type: ignore[no-any-return]

    def blocks(self) -> Iterator[ScoreMatrix]:
        """All images in order, a block of them at a time.

        Raises:
            FileFormatError: A block is missing or damaged; the message names its file.
        """
        return map(self._matrix, self._paths)

    def values_by_block(self) -> Iterator[Tensor]:
        """The scores (n, M) of one block of images after another; the scores of a map are contiguous.

        The next block is read into the memory of the one before.

        Raises:
            FileFormatError: A block is missing or damaged; the message names its file.
        """
        values = None
        for path in self._paths:
            values = read_tensor(path, "values", memory=values)
            yield values.T

    def values_of(self, positions: Sequence[int]) -> Tensor:
        """(N, K) the scores of the maps at K positions; the scores of a map are contiguous.

        Raises:
            FileFormatError: A block is missing or damaged; the message names its file.
        """
        found = torch.empty(len(positions), len(self), dtype=self.dtype, device="cpu")
        first = 0
        for path, block in zip(self._paths, self._blocks, strict=True):
            found[:, first : first + block.images] = read_tensor(path, "values", positions)
            first += block.images
        return found.T

    def columns(self, maps: Iterable[FeatureMap | str]) -> ScoreMatrix:
        """Some of the maps of all images, in the order given, in memory; the others are not read.

        Raises:
            InputError: Unknown maps.
            FileFormatError: A block is missing or damaged; the message names its file.
        """
        index = MapIndex(maps)
        values = self.values_of(self.maps.positions(index))
        return ScoreMatrix(values, index, self.targets, options=self.options, **self._lists)

    def rows(self, index: Sequence[int] | Tensor) -> ScoreMatrix:
        """Some of the images at all maps, in the order given, in memory (positions, or a boolean mask).

        Every block that holds one of them is read.

        Raises:
            InputError: Positions that are not there, or a mask of another length.
            FileFormatError: A block is missing or damaged; the message names its file.
        """
        chosen = torch.tensor(positions_among(len(self), index), dtype=torch.long, device="cpu")
        parts, places, first = [], [], 0
        for path, block in zip(self._paths, self._blocks, strict=True):
            own = ((chosen >= first) & (chosen < first + block.images)).nonzero()[:, 0]
            if len(own):
                parts.append(self._matrix(path).rows(chosen[own] - first))
                places.append(own)
            first += block.images
        if not parts:
            return self._matrix(self._paths[0]).rows([])
        return ScoreMatrix.stack(parts).rows(torch.cat(places).argsort())

    def load(self) -> ScoreMatrix:
        """All of it in memory."""
        return self.columns(self.maps)

    def check(self) -> None:
        """Read every block, and compare its bytes with those that were written.

        Raises:
            FileFormatError: Blocks are missing or have changed; the message names them all.
        """
        changed = []
        for path, block in zip(self._paths, self._blocks, strict=True):
            if not path.exists() or sha256_of(path) != block.sha256:
                changed.append(block.file)
        if changed:
            raise FileFormatError(
                f"{self.path} has blocks that are missing or have changed since they were written: {', '.join(changed)}"
            )

    def _matrix(self, path: Path) -> ScoreMatrix:
        """The images of a block."""
        lists: dict[str, Any] = read_samples(path)
        values, targets = read_tensor(path, "values").T, read_tensor(path, "targets")
        return ScoreMatrix(values, self.maps, targets, options=self.options, **lists)

    def __repr__(self) -> str:
        blocks = len(self._blocks)
        return f"ScoreStore({len(self)} images x {len(self.maps)} maps in {blocks} block{'s' * (blocks != 1)})"
