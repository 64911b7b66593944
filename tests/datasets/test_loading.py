"""Data sets in loaders of one's own: `torch.utils.data` and what it does with them."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import ConcatDataset, DataLoader, Subset, random_split

from fmiqa.datasets import Batch, Demo, ImageDataset, Record, Sample, collate
from fmiqa.errors import InputError


@pytest.fixture(scope="module")
def demo() -> Demo:
    return Demo(references=2, size=96, levels=1)


@pytest.fixture
def files(tmp_path: Path) -> ImageDataset:
    """Five images of two references; optional fields are there for some."""
    records = []
    for i in range(5):
        reference, distorted = tmp_path / f"r{i % 2}.png", tmp_path / f"d{i}.png"
        Image.new("RGB", (12, 10), (i % 2, 0, 0)).save(reference)
        Image.new("RGB", (12, 10), (0, i, 0)).save(distorted)
        some = {"level": i, "score_std": i / 4} if i % 2 else {}
        records.append(Record(reference, distorted, float(i), f"r{i % 2}", f"d{i}", **some))  # type: ignore[arg-type]
    return ImageDataset(records, name="Study")


def test_batches_by_default(files: ImageDataset) -> None:
    first, second, third = DataLoader(files, batch_size=2)
    assert isinstance(first, Batch)
    assert first.reference.shape == first.distorted.shape == (2, 3, 10, 12)
    assert first.reference.dtype == torch.uint8
    assert torch.equal(second.distorted[1], files[3].distorted)
    assert torch.equal(second.reference[1], files[3].reference)
    assert second.score.dtype == torch.float64
    assert second.score.tolist() == [2, 3]
    assert second.name == ["d2", "d3"]
    assert second.reference_id == ["r0", "r1"]
    assert second.distortion == [None, None]
    assert second.level == [None, 3]
    assert second.score_std == [None, 0.75]
    assert third.name == ["d4"]


def test_a_batch_is_a_copy(files: ImageDataset) -> None:
    batch = next(iter(DataLoader(files, batch_size=1)))
    batch.reference.fill_(9)
    assert files[0].reference.max() == 0


@pytest.mark.parametrize("context", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_workers(files: ImageDataset, context: str) -> None:
    loader = DataLoader(files, batch_size=3, num_workers=1, multiprocessing_context=context)
    batches = list(loader)
    assert [name for batch in batches for name in batch.name] == files.names
    assert all(isinstance(batch, Batch) for batch in batches)


def test_shuffling_keeps_pairs_together(demo: Demo) -> None:
    loader = DataLoader(demo, batch_size=5, shuffle=True, generator=torch.Generator().manual_seed(1))
    names = []
    for batch in loader:
        for i, name in enumerate(batch.name):
            sample = demo[demo.names.index(name)]
            assert torch.equal(batch.reference[i], sample.reference)
            assert torch.equal(batch.distorted[i], sample.distorted)
            assert batch.score[i] == sample.score
        names += batch.name
    assert names != demo.names
    assert sorted(names) == sorted(demo.names)


def test_parts_and_joined_sets(demo: Demo, files: ImageDataset) -> None:
    assert next(iter(DataLoader(Subset(files, [4, 0]), batch_size=2))).name == ["d4", "d0"]
    one, other = random_split(files, [3, 2], torch.Generator().manual_seed(0))
    names = [name for part in (one, other) for batch in DataLoader(part, batch_size=2) for name in batch.name]
    assert sorted(names) == files.names
    joined = ConcatDataset([files, files])
    assert joined[-1].name == joined[4].name == "d4"
    assert [name for batch in DataLoader(joined, batch_size=4) for name in batch.name] == files.names * 2
    with pytest.raises(InputError, match=r"d0 is 12x10.* is 96x96"):
        list(DataLoader(ConcatDataset([files, demo]), batch_size=10))


def test_images_of_different_sizes(tmp_path: Path) -> None:
    for name, size in {"a": (12, 10), "b": (10, 12)}.items():
        Image.new("RGB", size).save(tmp_path / f"{name}.png")
    records = [Record(tmp_path / f"{n}.png", tmp_path / f"{n}.png", 1.0, n, n) for n in ("a", "b")]
    data = ImageDataset(records, name="Study")
    with pytest.raises(InputError, match=r"a is 12x10 .*b is 10x12 .*batch_size=None .*collate_fn=list"):
        next(iter(DataLoader(data, batch_size=2)))
    # What the message names works.
    assert [sample.name for sample in DataLoader(data, batch_size=None)] == ["a", "b"]
    assert [sample.name for sample in next(iter(DataLoader(data, batch_size=2, collate_fn=list)))] == ["a", "b"]


def test_collate_by_name(files: ImageDataset) -> None:
    batch = next(iter(DataLoader(files, batch_size=5, collate_fn=collate)))
    assert batch.name == files.names


def test_a_sample_whose_images_differ_in_size() -> None:
    sample = Sample(torch.zeros(3, 4, 5, dtype=torch.uint8), torch.zeros(3, 4, 6, dtype=torch.uint8), 1.0, "r", "d")
    with pytest.raises(InputError, match="of one size"):
        collate([sample])


def test_indices(files: ImageDataset) -> None:
    assert files[-1].name == files[np.int64(4)].name == files[torch.tensor(4)].name == "d4"  # type: ignore[index]
    for beyond in (5, -6):
        with pytest.raises(IndexError, match="5 images"):
            files[beyond]
    for odd in (slice(0, 2), 1.0, "d1", [0, 1], None):
        with pytest.raises(TypeError, match=r"whole number, got .*Subset"):
            files[odd]  # type: ignore[index]
    assert [sample.name for sample in files] == files.names


def test_pickled_sets_and_batches(files: ImageDataset, demo: Demo) -> None:
    for data in (files, demo):
        data[0]
        again = pickle.loads(pickle.dumps(data))
        assert torch.equal(again[1].distorted, data[1].distorted)
        assert again.names == data.names
    batch = next(iter(DataLoader(files, batch_size=2)))
    assert pickle.loads(pickle.dumps(batch)).name == batch.name


def test_one_set_in_several_threads(files: ImageDataset) -> None:
    rows = list(range(5)) * 40
    with ThreadPoolExecutor(8) as pool:
        samples = list(pool.map(files.__getitem__, rows))
    for row, sample in zip(rows, samples, strict=True):
        assert sample.reference[0, 0, 0] == row % 2
        assert sample.distorted[1, 0, 0] == row
