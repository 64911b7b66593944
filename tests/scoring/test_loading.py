"""Items come in order, however they are decoded, and references are told without a look at each item's pixels."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch.utils.data import Subset

from fmiqa import InputError
from fmiqa.datasets import Sample
from fmiqa.scoring import loading
from fmiqa.scoring.loading import Reference, item_digests, loaded

ROWS = [7, 2, 9, 0, 4, 1]


def make_samples(count: int) -> list[Sample]:
    generator = torch.Generator().manual_seed(0)
    pictures = torch.randint(0, 256, (2, 3, 8, 9), generator=generator, dtype=torch.uint8)
    tests = torch.randint(0, 256, (count, 3, 8, 9), generator=generator, dtype=torch.uint8)
    return [Sample(pictures[i % 2], tests[i], float(i), f"r{i % 2}", f"image{i}") for i in range(count)]


class Decoding(Sequence[Sample]):
    """Tells by distortion and level which thread and process decoded an item."""

    def __init__(self, samples: list[Sample], *, thread_safe: bool) -> None:
        self.samples = samples
        self.thread_safe = thread_safe
        self.decoded: list[int] = []

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]
        self.decoded.append(index)
        return replace(self.samples[index], distortion=str(threading.get_ident()), level=os.getpid())

    def digest(self, index: int) -> str:
        return f"digest {index}"


@pytest.fixture
def samples() -> list[Sample]:
    return make_samples(10)


@pytest.mark.parametrize("thread_safe", [True, False])
@pytest.mark.parametrize("workers", [0, 1, 3])
def test_items_come_in_order(samples: list[Sample], thread_safe: bool, workers: int) -> None:
    data = Decoding(samples, thread_safe=thread_safe)
    for given, expected in ((data, ROWS), (Subset(data, range(9, -1, -1)), [9 - row for row in ROWS])):  # type: ignore[arg-type]
        items = list(loaded(given, ROWS, workers, digests=True))
        assert [item.sample.name for item in items] == [f"image{row}" for row in expected]
        assert [item.digest for item in items] == [f"digest {row}" for row in expected]
        assert all(
            torch.equal(item.sample.distorted, samples[row].distorted)
            for item, row in zip(items, expected, strict=True)
        )
    assert all(item.digest is None for item in loaded(data, ROWS, workers, digests=False))


def test_threads_decode_what_says_that_they_may_and_processes_the_rest(samples: list[Sample]) -> None:
    main = str(threading.get_ident()), os.getpid()

    def where(thread_safe: bool, workers: int) -> list[tuple[str | None, int | None]]:
        items = loaded(Decoding(samples, thread_safe=thread_safe), ROWS, workers, digests=False)
        return [(item.sample.distortion, item.sample.level) for item in items]

    assert set(where(True, 0)) == set(where(False, 0)) == {main}
    assert all(thread != main[0] and process == main[1] for thread, process in where(True, 2))
    assert all(process != main[1] for _, process in where(False, 2))


def test_items_in_memory_are_taken_as_they_are(samples: list[Sample]) -> None:
    assert all(
        item.sample is samples[row] for item, row in zip(loaded(samples, ROWS, 3, digests=False), ROWS, strict=True)
    )
    digests = [item.digest for item in loaded(samples, ROWS, 0, digests=True)]
    assert digests == item_digests(samples, ROWS)
    assert len(set(digests)) == len(ROWS)


def test_threads_are_only_so_far_ahead_and_end_with_the_run(samples: list[Sample]) -> None:
    data = Decoding(make_samples(50), thread_safe=True)
    items = loaded(data, range(50), 2, digests=False)
    next(items)
    assert len(data.decoded) <= 5  # two a worker, and the one that was given out
    items.close()  # type: ignore[attr-defined]
    assert len(data.decoded) <= 5


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("thread_safe", [True, False])
def test_errors_come_through(samples: list[Sample], thread_safe: bool, workers: int) -> None:
    broken = [*samples[:3], replace(samples[3], distorted=samples[3].distorted[:, :-1])]
    with pytest.raises(InputError, match=r"item 3 \(image3\).*never resizes"):
        list(loaded(Decoding(broken, thread_safe=thread_safe), range(4), workers, digests=False))


def test_a_reference_is_compared_once_a_tensor(samples: list[Sample], monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[int] = []
    real = loading.same_image
    monkeypatch.setattr(loading, "same_image", lambda a, b: compared.append(1) or real(a, b))
    first, second = samples[0], replace(samples[0], reference=samples[0].reference.clone())
    items = list(loaded([first, second, *samples[2::2]], range(6), 0, digests=False))
    reference = Reference(items[0])
    assert all(reference.is_of(item) for item in items * 3)
    assert len(compared) == len({id(item.sample.reference) for item in items}) - 1
    (other,) = loaded([replace(first, reference_id="other")], [0], 0, digests=False)
    (changed,) = loaded([replace(first, reference=255 - first.reference)], [0], 0, digests=False)
    (wider,) = loaded([replace(first, reference=first.reference / 255)], [0], 0, digests=False)
    assert not any(reference.is_of(item) for item in (other, changed, wider))


def test_references_from_processes_are_told_by_digests(samples: list[Sample], monkeypatch: pytest.MonkeyPatch) -> None:
    items = list(loaded(Decoding(samples, thread_safe=False), range(10), 2, digests=False))
    monkeypatch.setattr(loading, "same_image", None)
    assert items[0].sample.reference is not items[2].sample.reference
    assert [Reference(items[0]).is_of(item) for item in items] == [True, False] * 5
