"""Writing a score store: in blocks that are kept, so that an interrupted writer goes on where it was."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from fmiqa._checks import is_count
from fmiqa._io import check_output_folder, load_json, save_json
from fmiqa.errors import FileFormatError, InputError, ResumeError
from fmiqa.maps import MapIndex
from fmiqa.scoring.blocks import Block, find_block, write_block
from fmiqa.scoring.checkpoint import refuse_other
from fmiqa.scoring.matrix import ScoreMatrix
from fmiqa.scoring.store import KIND, ScoreStore

__all__ = ["StoreWriter", "write_store"]

_DRAFT = "fmiqa unfinished score store 1"
_IMAGES = 4096  # of a block: 16 KiB a map, 70 MB at the 4224 maps of VGG16


class StoreWriter:
    """Writes a store, block by block, or goes on with one whose writing was interrupted.

    A block is written whole or not at all, and the store can be opened only when it is finished. A writer that is made
    again by the same call goes on: `len()` images are there, and the next that is appended comes after these.

    Args:
        path: A folder, which is made; or that of an unfinished store of the same description.
        maps: The M feature maps.
        options: What the scores were computed with.
        block_images: Images of a block. More make the reading of a few maps faster, and take more memory at a time.

    Raises:
        InputError: The folder holds something else, such as a finished store, or cannot be written to.
        ResumeError: It holds an unfinished store of other maps or options.

    Example:
        >>> import tempfile
        >>> maps, names = MapIndex(["conv1:0"]), ["a1", "a2"]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     writer = StoreWriter(f"{folder}/scores", maps, block_images=3)
        ...     for _ in range(3):
        ...         writer.append(ScoreMatrix(torch.rand(2, 1), maps, torch.rand(2), names, names))
        ...     print(writer.finish())
        ScoreStore(6 images x 1 maps in 2 blocks)
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        maps: MapIndex,
        options: dict[str, Any] | None = None,
        *,
        block_images: int = _IMAGES,
    ) -> None:
        if not isinstance(maps, MapIndex):
            raise InputError(f"maps must be a MapIndex, got {type(maps).__name__}; write MapIndex([...])")
        if not is_count(block_images):
            raise InputError(f"block_images is a whole number from 1, got {block_images!r}")
        self._folder, self._maps, self._options = Path(path), maps, dict(options or {})
        self._blocks: list[Block] = []
        self._waiting: list[ScoreMatrix] = []
        self._size = block_images
        self._begin()

    def __len__(self) -> int:
        return self._length + sum(map(len, self._waiting))

    @property
    def _length(self) -> int:
        return sum(block.images for block in self._blocks)

    @property
    def written(self) -> ScoreStore:
        """The blocks that are written so far, to read."""
        return ScoreStore(self._folder, self._maps, self._options, self._blocks)

    def append(self, scores: ScoreMatrix) -> None:
        """Add images after those that are there. Those that fill no block wait in memory for more, or for `finish`.

        Raises:
            InputError: The scores are of other maps.
            OSError: A block cannot be written.
        """
        if not isinstance(scores, ScoreMatrix) or scores.maps != self._maps:
            raise InputError(f"a block is a ScoreMatrix of {self._maps!r}, got {scores!r}")
        self._waiting.append(scores)
        waiting = sum(map(len, self._waiting))
        if waiting < self._size:
            return
        together = ScoreMatrix.stack(self._waiting) if len(self._waiting) > 1 else scores
        whole = waiting - waiting % self._size
        for first in range(0, whole, self._size):
            self._write(together.rows(range(first, first + self._size)))
        self._waiting = [together.rows(range(whole, waiting))] if whole < waiting else []

    def finish(self) -> ScoreStore:
        """Write what waits and the list of all blocks, which makes the folder a store.

        Raises:
            InputError: There are no images.
            OSError: It cannot be written.
        """
        if self._waiting:
            self._write(ScoreMatrix.stack(self._waiting))
            self._waiting = []
        if not self._blocks:
            raise InputError(f"{self._folder}: a score store needs at least one image; append some")
        content = {
            "maps": [str(m) for m in self._maps],
            "options": self._options,
            "blocks": [block._asdict() for block in self._blocks],
        }
        save_json(self._folder / "store.json", KIND, content)
        (self._folder / "writing.json").unlink()
        return ScoreStore.open(self._folder)

    def _write(self, scores: ScoreMatrix) -> None:
        self._blocks.append(write_block(self._folder / _name(len(self._blocks)), scores))

    def _begin(self) -> None:
        """Make the folder and say what it will hold, or find what an interrupted writer left there."""
        folder = self._folder
        check_output_folder(folder)
        draft = folder / "writing.json"
        described = {"maps": [str(m) for m in self._maps], "options": self._options, "block_images": self._size}
        finished = (folder / "store.json").exists()
        if draft.exists() and not finished:
            refuse_other(folder, load_json(draft, _DRAFT), described)
            self._find()
        elif folder.exists() and any(folder.iterdir()):
            kind = "a finished score store" if finished else "other files"
            raise InputError(f"{folder} holds {kind} already; give the name of a new folder, or delete it")
        else:
            save_json(draft, _DRAFT, described)

    def _find(self) -> None:
        """List the blocks that an interrupted writer left; what follows a damaged or a smaller one is written again."""
        with suppress(FileFormatError):
            while (block := find_block(self._folder / _name(len(self._blocks)))).images == self._size:
                self._blocks.append(block)


def write_store(
    path: str | os.PathLike[str], parts: Iterable[ScoreMatrix], *, block_images: int = _IMAGES
) -> ScoreStore:
    """Write score matrices of different images at the same maps into one store, one below the other.

    Only one of them is needed in memory at a time, and the images of a block. An interrupted call is gone on with by
    the same call; the parts that are written are compared by names and subjective scores, and not written again.

    Args:
        path: A new folder, or that of the interrupted call.
        parts: The matrices, such as those of the files of shards, or the `blocks` of other stores. The store has the
            options of the first.
        block_images: As of `StoreWriter`.

    Raises:
        InputError: There are no parts, their maps differ, or the folder holds something else.
        ResumeError: The folder holds an unfinished store of other images.

    Example:
        >>> import tempfile
        >>> names = ["a1", "a2"]
        >>> part = ScoreMatrix(torch.rand(2, 1), MapIndex(["conv1:0"]), torch.rand(2), names, names)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_store(f"{folder}/scores", (part for _ in range(3)))
        ScoreStore(6 images x 1 maps in 1 block)
    """
    writer: StoreWriter | None = None
    seen = 0
    for part in parts:
        if not isinstance(part, ScoreMatrix):
            raise InputError(f"a score store is written from ScoreMatrix objects, got {type(part).__name__}")
        if writer is None:
            writer = StoreWriter(path, part.maps, part.options, block_images=block_images)
            before = writer.written
        known = min(len(part), max(0, len(before) - seen))
        if known:
            _check_same(before, part.rows(range(known)), seen)
        if known < len(part):
            writer.append(part.rows(range(known, len(part))) if known else part)
        seen += len(part)
    if writer is None:
        raise InputError("there are no score matrices to write")
    if seen < len(before):
        raise ResumeError(
            f"{os.fspath(path)} holds {len(before)} images of an unfinished store, more than the {seen} given"
        )
    return writer.finish()


def _check_same(before: ScoreStore, part: ScoreMatrix, first: int) -> None:
    """Raise `ResumeError` unless images are those that were written from position `first`."""
    places = slice(first, first + len(part))
    if before.names[places] != list(part.names) or not torch.equal(before.targets[places], part.targets.double()):
        raise ResumeError(
            f"{before.path} holds an unfinished store of other images than these (from position {first}); give the "
            "same to go on with it, the name of a new folder, or delete that folder"
        )


def _name(number: int) -> str:
    return f"block-{number:06}.safetensors"
