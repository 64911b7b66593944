"""Score stores: what is read is what was written, and what is missing, damaged or unfinished is named."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import fmiqa
from fmiqa import FileFormatError, InputError, MapIndex, ResumeError, ScoreMatrix, ScoreStore, StoreWriter, write_store
from fmiqa._io import load_tensors
from fmiqa.scoring.matrix import LISTS


def matrix(images: int = 23, maps: int = 5, seed: int = 0, dtype: torch.dtype = torch.float32) -> ScoreMatrix:
    generator = torch.Generator().manual_seed(seed)
    return ScoreMatrix(
        torch.rand(images, maps, generator=generator).to(dtype),
        MapIndex.of_layers({"conv1": 2, "conv2": maps - 2}),
        torch.rand(images, generator=generator, dtype=torch.float64),
        [f"réf {i // 4}" for i in range(images)],
        [f"{seed}/{i}" for i in range(images)],
        ["blur" if i % 2 else "jpeg" for i in range(images)],
        {"network": "alexnet", "dataset": "Toy", "measure": {"name": "ssim"}},
        digests=[f"{i:064x}" for i in range(images)],
    )


def equal(one: ScoreMatrix, other: ScoreMatrix) -> bool:
    lists = all(getattr(one, part) == getattr(other, part) for part in LISTS)
    same = one.maps == other.maps and one.options == other.options and one.values.dtype == other.values.dtype
    return lists and same and torch.equal(one.values, other.values) and torch.equal(one.targets, other.targets)


@pytest.fixture
def store(tmp_path: Path) -> ScoreStore:
    return write_store(tmp_path / "scores", [matrix()], block_images=8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("block_images", [1, 8, 23, 100])
def test_a_store_holds_what_was_written(tmp_path: Path, block_images: int, dtype: torch.dtype) -> None:
    whole = matrix(dtype=dtype)
    write_store(tmp_path / "scores", [whole], block_images=block_images)
    store = ScoreMatrix.open(tmp_path / "scores")
    assert isinstance(store, ScoreStore)
    assert equal(store.load(), whole)
    assert equal(store.columns(["conv2:1", "conv1:0"]), whole.columns(["conv2:1", "conv1:0"]))
    assert equal(ScoreMatrix.stack(list(store.blocks())), whole)
    assert torch.equal(torch.cat([values.clone() for values in store.values_by_block()]), whole.values)
    for rows in ([22, 0, 8, 7, -1, 8], [], torch.arange(23) % 5 == 0):
        assert equal(store.rows(rows), whole.rows(rows))
    for part in ("maps", "options", "targets", "dtype", *LISTS):
        own = getattr(store, part)
        expected = whole.values.dtype if part == "dtype" else getattr(whole, part)
        assert torch.equal(own, expected) if isinstance(own, torch.Tensor) else own == expected
    assert len(store) == 23
    store.check()


def test_the_scores_of_a_map_lie_together(store: ScoreStore) -> None:
    assert all(values.T.is_contiguous() for values in store.values_by_block())
    assert store.values_of([3, 1]).T.is_contiguous()


def test_a_block_is_a_file_that_other_programs_read(store: ScoreStore) -> None:
    tensors, _ = load_tensors(store.path / "block-000001.safetensors", "fmiqa score block 1")
    assert torch.equal(tensors["values"].T, matrix().values[8:16])


def test_unknown_maps_and_rows_are_refused(store: ScoreStore) -> None:
    with pytest.raises(InputError, match="conv9:0"):
        store.columns(["conv9:0"])
    with pytest.raises(InputError, match="23 images"):
        store.rows([23])


def test_parts_may_be_of_any_size_and_lack_what_is_optional(tmp_path: Path) -> None:
    parts = [matrix(3, seed=1), matrix(17, seed=2), matrix(1, seed=3)]
    parts[1] = ScoreMatrix(
        parts[1].values, parts[1].maps, parts[1].targets, parts[1].groups, parts[1].names, options=parts[1].options
    )
    store = write_store(tmp_path / "scores", iter(parts), block_images=4)
    assert equal(store.load(), ScoreMatrix.stack(parts))
    assert store.distortions is None
    assert equal(write_store(tmp_path / "again", store.blocks(), block_images=5).load(), store.load())


def test_open_takes_files_too(tmp_path: Path) -> None:
    matrix().save(tmp_path / "scores.safetensors")
    opened = ScoreMatrix.open(tmp_path / "scores.safetensors")
    assert isinstance(opened, ScoreMatrix)
    assert equal(opened, matrix())
    with pytest.raises(FileFormatError, match="no file"):
        ScoreMatrix.open(tmp_path / "absent")
    with pytest.raises(FileFormatError, match=r"no file .*store\.json"):
        ScoreMatrix.open(tmp_path)


def test_missing_and_damaged_blocks_are_named(store: ScoreStore) -> None:
    block = store.path / "block-000001.safetensors"
    content = block.read_bytes()
    block.write_bytes(content[:-1])
    with pytest.raises(FileFormatError, match=r"block-000001.*damaged.* of "):
        ScoreStore.open(store.path)
    with pytest.raises(FileFormatError, match=r"block-000001.*damaged"):
        store.load()
    block.write_bytes(bytes(len(content)))
    with pytest.raises(FileFormatError, match=r"block-000001.*damaged.*header"):
        store.load()
    changed = bytearray(content)
    changed[8 + int.from_bytes(content[:8], "little")] ^= 1  # of the first tensor
    block.write_bytes(changed)
    ScoreStore.open(store.path).load()  # the same size, and no format to break
    (store.path / "block-000002.safetensors").unlink()
    with pytest.raises(FileFormatError, match=r"changed.*block-000001\.safetensors, block-000002\.safetensors"):
        store.check()
    with pytest.raises(FileFormatError, match=r"block-000002\.safetensors.*missing"):
        ScoreStore.open(store.path)
    with pytest.raises(FileFormatError, match=r"block-000002\.safetensors.*missing"):
        list(store.blocks())


def test_a_damaged_index_is_named(store: ScoreStore) -> None:
    (store.path / "store.json").write_text('{"kind": "fmiqa score store 1", "maps": ["conv1:0"], "blocks": []}')
    with pytest.raises(FileFormatError, match=r"store\.json is damaged"):
        ScoreStore.open(store.path)


def interrupted(parts: list[ScoreMatrix], after: int) -> Iterator[ScoreMatrix]:
    yield from parts[:after]
    raise KeyboardInterrupt


@pytest.mark.parametrize("after", [0, 1, 2, 3])
def test_an_interrupted_writer_goes_on(tmp_path: Path, after: int) -> None:
    parts = [matrix(7, seed=seed) for seed in range(3)]
    path = tmp_path / "scores"
    with pytest.raises(KeyboardInterrupt):
        write_store(path, interrupted(parts, after), block_images=5)
    if after:
        with pytest.raises(FileFormatError, match="unfinished"):
            ScoreStore.open(path)
        before = (path / "block-000000.safetensors").stat().st_mtime_ns
        assert len(StoreWriter(path, parts[0].maps, parts[0].options, block_images=5)) == 7 * after // 5 * 5
    assert equal(write_store(path, parts, block_images=5).load(), ScoreMatrix.stack(parts))
    if after:
        assert (path / "block-000000.safetensors").stat().st_mtime_ns == before
    assert sorted(p.name for p in path.iterdir())[-1] == "store.json"


def test_a_writer_killed_between_the_last_block_and_the_index_goes_on(store: ScoreStore) -> None:
    path, whole = store.path, matrix()
    (path / "store.json").unlink()
    with pytest.raises(InputError, match="other files"):
        StoreWriter(path, whole.maps, whole.options, block_images=8)
    with pytest.raises(KeyboardInterrupt):
        write_store(path.parent / "other", interrupted([whole.rows(range(8))], 1), block_images=8)
    (path.parent / "other" / "writing.json").rename(path / "writing.json")
    assert len(StoreWriter(path, whole.maps, whole.options, block_images=8)) == 16  # the smaller one is written again
    assert equal(write_store(path, [whole], block_images=8).load(), whole)


def test_a_writer_refuses_what_is_not_its_own(store: ScoreStore, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="finished score store already"):
        write_store(store.path, [matrix()], block_images=8)
    (store.path / "writing.json").write_text("{}")  # killed after the index was written: the store is whole
    assert len(ScoreStore.open(store.path)) == 23
    with pytest.raises(InputError, match="finished score store already"):
        write_store(store.path, [matrix()], block_images=8)
    path, whole = tmp_path / "other", matrix()
    with pytest.raises(KeyboardInterrupt):
        write_store(path, interrupted([whole], 1), block_images=5)
    with pytest.raises(ResumeError, match="block_images"):
        write_store(path, [whole], block_images=6)
    with pytest.raises(ResumeError, match="other images"):
        write_store(path, [matrix(seed=1)], block_images=5)
    with pytest.raises(ResumeError, match="20 images of an unfinished store, more than the 7"):
        write_store(path, [whole.rows(range(7))], block_images=5)
    writer = StoreWriter(path, whole.maps, whole.options, block_images=5)
    with pytest.raises(InputError, match="a block is a ScoreMatrix of"):
        writer.append(whole.columns(["conv1:0"]))
    with pytest.raises(InputError, match="at least one image"):
        StoreWriter(tmp_path / "empty", whole.maps).finish()
    with pytest.raises(InputError, match="no score matrices"):
        write_store(tmp_path / "none", [])
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written"):
        whole.to_store(tmp_path / "file")


def test_searches_that_need_memory_say_so(store: ScoreStore) -> None:
    with pytest.raises(InputError, match=r"load\(\)"):
        fmiqa.weighted_select(store)  # type: ignore[arg-type]
