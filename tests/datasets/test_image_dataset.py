from __future__ import annotations

import math
import pickle
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from fmiqa.datasets import ImageDataset, Record, Sample
from fmiqa.errors import DatasetError, InputError


def noise(path: Path, seed: int, size: tuple[int, int] = (40, 24)) -> np.ndarray:
    width, height = size
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


@pytest.fixture
def records(tmp_path: Path) -> list[Record]:
    """Two references with three distorted images each."""
    made = []
    for r in range(2):
        reference = tmp_path / f"r{r}.png"
        noise(reference, r)
        for k in range(3):
            distorted = tmp_path / f"r{r}_{k}.bmp"
            noise(distorted, 10 * r + k + 2)
            made.append(
                Record(
                    reference,
                    distorted,
                    score=r + k / 4,
                    reference_id=f"r{r}",
                    name=distorted.name,
                    distortion=f"kind {k}",
                    level=k + 1,
                    score_std=0.5,
                )
            )
    return made


def problems(records: list[Record]) -> tuple[str, ...]:
    with pytest.raises(DatasetError) as caught:
        ImageDataset(records, name="Study")
    assert "Study" in str(caught.value)
    return caught.value.problems


def same(a: Sample, b: Sample) -> bool:
    plain = replace(a, reference=b.reference, distorted=b.distorted) == b
    return plain and torch.equal(a.reference, b.reference) and torch.equal(a.distorted, b.distorted)


def test_items_are_the_decoded_files(records: list[Record]) -> None:
    data = ImageDataset(records, name="Study")
    assert len(data) == 6
    for record, sample in zip(records, [data[i] for i in range(6)], strict=True):
        for path, image in ((record.reference, sample.reference), (record.distorted, sample.distorted)):
            assert image.dtype == torch.uint8
            assert image.is_contiguous()
            assert np.array_equal(image.permute(1, 2, 0).numpy(), np.array(Image.open(path)))
        for field in ("score", "reference_id", "name", "distortion", "level", "score_std"):
            assert getattr(sample, field) == getattr(record, field)


def test_what_is_known_without_decoding(records: list[Record]) -> None:
    data = ImageDataset(records, name="Study")
    assert data.targets.dtype == torch.float64
    assert data.targets.tolist() == [r.score for r in records]
    assert data.reference_ids == ["r0"] * 3 + ["r1"] * 3
    assert data.names == [r.name for r in records]
    assert data.distortions == ["kind 0", "kind 1", "kind 2"] * 2
    assert data.records == records
    assert repr(data) == "<Study: 6 images, 2 references, 3 distortion types, scores 0 to 1.5>"
    assert ImageDataset([replace(r, distortion=None) for r in records], name="Study").distortions is None


def test_index(records: list[Record]) -> None:
    data = ImageDataset(records, name="Study")
    assert same(data[-1], data[5])
    assert same(data[np.int64(2)], data[2])  # type: ignore[index]
    assert [s.name for s in data] == data.names
    for outside in (6, -7):
        with pytest.raises(IndexError, match="6 images"):
            data[outside]


def test_reference_is_decoded_once_for_a_run_of_items(records: list[Record]) -> None:
    data = ImageDataset(records, name="Study")
    first = data[0].reference
    assert data[2].reference is first
    assert not torch.equal(data[3].reference, first)
    assert torch.equal(data[1].reference, first)


def test_pickle(records: list[Record]) -> None:
    data = ImageDataset(records, name="Study")
    sample = data[4]
    blob = pickle.dumps(data)
    assert len(blob) < 10_000  # the cached reference stays at home
    assert same(pickle.loads(blob)[4], sample)


@pytest.mark.parametrize(("context", "workers"), [("fork", 2), ("spawn", 1)])
def test_workers_give_the_same_samples(records: list[Record], context: str, workers: int) -> None:
    data = ImageDataset(records, name="Study")
    loader = DataLoader(data, batch_size=None, num_workers=workers, multiprocessing_context=context)
    samples = list(loader)
    assert len(samples) == 6
    assert all(same(a, b) for a, b in zip(samples, data, strict=True))


def test_every_kind_of_damage_in_one_error(records: list[Record], tmp_path: Path) -> None:
    records[0].distorted.unlink()
    records[1].distorted.write_bytes(b"BM is not enough")
    noise(records[2].distorted, 9, size=(41, 24))
    records[3] = replace(records[3], score=math.nan)
    records[4] = replace(records[4], score=-math.inf, name=records[3].name)
    records[5] = replace(records[5], reference_id="r1 again", distortion=None)
    records.append(
        replace(records[5], reference=tmp_path / "lost.png", reference_id="lost", name="last", distortion="x")
    )

    found = problems(records)
    expected = [
        ("lost.png", "no such file", "1 image"),
        ("r0_0.bmp", "no such file"),
        ("r0_1.bmp", "not a readable image"),
        ("r0_2.bmp", "41x24", "40x24", "r0.png"),
        ("r1_0.bmp", "nan"),
        ("r1_0.bmp", "-inf"),
        ("r1_0.bmp", "stands twice", "record 3"),
        ("r1_2.bmp", "r1.png", "'r1 again'", "'r1'"),
        ("r1_2.bmp", "no distortion type"),
    ]
    for words in expected:
        assert any(all(word in line for word in words) for line in found), words
    assert len(found) == len(expected)


def test_a_missing_reference_is_reported_once_with_its_images(records: list[Record]) -> None:
    records[0].reference.unlink()
    (line,) = problems(records)
    assert "3 images" in line
    assert str(records[0].reference) in line


def test_no_records() -> None:
    assert problems([]) == ("there are no scored images",)


def test_places_and_problems_of_the_caller(records: list[Record]) -> None:
    records[1] = replace(records[1], score=math.inf)
    records[2] = replace(records[2], name=records[0].name)
    with pytest.raises(DatasetError) as caught:
        ImageDataset(records, name="Study", problems=["line 9 is odd"], places=[f"line {i}" for i in range(6)])
    odd, infinite, twice = caught.value.problems
    assert odd == "line 9 is odd"
    assert infinite.startswith("line 1: ")
    assert twice.startswith("line 2: ")
    assert "first in line 0" in twice


def test_ratings_go_with_the_records(records: list[Record]) -> None:
    ratings = torch.arange(12).reshape(6, 2)
    data = ImageDataset(records, name="Study", ratings=ratings)
    assert data.ratings is not None
    assert data.ratings.dtype == torch.float64
    assert data.ratings.tolist() == ratings.tolist()
    assert ImageDataset(records, name="Study").ratings is None
    for other in (ratings[:5], ratings[:, 0]):
        with pytest.raises(InputError, match=r"\(N, O\) of 6 images"):
            ImageDataset(records, name="Study", ratings=other)


def test_check_decodes_everything(records: list[Record], capsys: pytest.CaptureFixture[str]) -> None:
    data = ImageDataset(records, name="Study")
    data.check()
    # A cut file keeps its header: only decoding finds it.
    for path in (records[0].reference, records[4].distorted):
        path.write_bytes(path.read_bytes()[:-200])
    ImageDataset(records, name="Study")
    with pytest.raises(DatasetError, match="2 of 8 image files") as caught:
        data.check(progress=True)
    assert [any(p.name in line for line in caught.value.problems) for p in (records[0].reference, records[4].distorted)]
    assert len(caught.value.problems) == 2
    assert "8/8" in capsys.readouterr().err


def test_an_item_that_cannot_be_read_says_which(records: list[Record]) -> None:
    data = ImageDataset(records, name="Study")
    records[4].distorted.unlink()
    with pytest.raises(DatasetError, match=r"item 4 \(r1_1.bmp\)[\s\S]*no such file"):
        data[4]


def test_header_checks_are_fast(tmp_path: Path) -> None:
    references = [tmp_path / f"{r}.bmp" for r in range(25)]
    for r, path in enumerate(references):
        noise(path, r)
    records = []
    for i in range(1250):
        path = tmp_path / f"{i % 25}_{i}.bmp"
        path.write_bytes(references[i % 25].read_bytes())
        records.append(Record(references[i % 25], path, 1.0, reference_id=str(i % 25), name=str(i)))
    start = time.process_time()
    ImageDataset(records, name="Study")
    # 0.25 s on one idle core; decoding would take many times the bound for images of a usual size.
    assert time.process_time() - start < 2
