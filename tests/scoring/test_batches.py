"""Batches: which items share one, and that scores do not depend on it."""

from __future__ import annotations

import warnings
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fmiqa import FeatureExtractor, InputError, ScoreMatrix, score_matrix
from fmiqa.datasets import Sample
from fmiqa.scoring import run
from fmiqa.scoring.batches import Batch, BatchScorer
from fmiqa.scoring.loading import loaded
from fmiqa.scoring.scorer import MapScorer

# See tests/scoring/test_run.py: another batch adds up in another order.
CLOSE = {"rtol": 0, "atol": 1e-3}
FEW = ["conv1:5", "conv3:100", "conv1:0", "conv2:17"]
GPU = torch.device("cuda")


@pytest.fixture(scope="module")
def extractor() -> FeatureExtractor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return FeatureExtractor("alexnet", weights=None)


def make_samples(counts: list[int], height: int = 72, width: int = 80) -> list[Sample]:
    """So many test images of each reference, side by side."""
    generator = torch.Generator().manual_seed(0)
    samples = []
    for number, count in enumerate(counts):
        reference = torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8)
        for k in range(count):
            noise = torch.randn(3, height, width, generator=generator) * (10 + k)
            test = (reference + noise).clamp(0, 255).to(torch.uint8)
            samples.append(Sample(reference, test, float(-k), f"r{number}", f"image{number}.{k}"))
    return samples


def make(extractor: FeatureExtractor, batch_size: int = 16, memory: int = 2**30, images: int = 1) -> BatchScorer:
    """As on a GPU, on the CPU."""
    scorer = BatchScorer(MapScorer(extractor, FEW), torch.device("cpu"), memory, batch_size, None, images)
    scorer._mixing = True
    return scorer


def batches_of(scorer: BatchScorer, samples: list[Sample]) -> list[Batch]:
    items = loaded(samples, range(len(samples)), 0, digests=False)
    return list(scorer.batches(items, len(samples)))


def test_batches_have_several_references_of_one_size(extractor: FeatureExtractor) -> None:
    samples = [*make_samples([10, 3, 7]), *make_samples([4], 80, 72)]
    counts = [batch.counts for batch in batches_of(make(extractor), samples)]
    assert counts == [[10, 3, 3], [4], [4]]
    floats = [*samples[:2], *(replace(s, distorted=s.distorted / 255) for s in samples[2:4])]
    assert [batch.counts for batch in batches_of(make(extractor), floats)] == [[2], [2]]
    scorer = make(extractor)
    scorer._mixing = False
    assert [batch.counts for batch in batches_of(scorer, samples)] == [[10], [3], [7], [4]]


@pytest.mark.parametrize(
    ("counts", "prepared", "beside"),
    [
        ([10, 6], 2, 0),  # many of each
        ([1] * 12, 0, 12),  # a reference each
        ([2, 1, 3, 1], 0, 4),
        ([12], 1, 0),
        ([20, 12], 2, 0),  # the first one's side is kept for its second batch
    ],
)
def test_each_reference_goes_through_the_network_once(
    extractor: FeatureExtractor, monkeypatch: pytest.MonkeyPatch, counts: list[int], prepared: int, beside: int
) -> None:
    samples = make_samples(counts)
    calls: Counter[str] = Counter()
    real_prepare, real_grouped = MapScorer.prepare, MapScorer.grouped

    def prepare(self: MapScorer, reference: torch.Tensor) -> Any:
        calls["prepared"] += len(reference)
        return real_prepare(self, reference)

    def grouped(self: MapScorer, test: torch.Tensor, references: Any, counts: list[int]) -> torch.Tensor:
        calls["beside"] += len(references) if isinstance(references, torch.Tensor) else 0
        return real_grouped(self, test, references, counts)

    monkeypatch.setattr(MapScorer, "prepare", prepare)
    monkeypatch.setattr(MapScorer, "grouped", grouped)
    scorer = make(extractor)
    scores = torch.cat([scorer.scores(batch) for batch in batches_of(scorer, samples)])
    assert (calls["prepared"], calls["beside"]) == (prepared, beside)
    each = MapScorer(extractor, FEW)
    expected = torch.cat([each(s.distorted[None], s.reference[None]) for s in samples])
    torch.testing.assert_close(scores, expected, **CLOSE)  # type: ignore[arg-type]


def test_memory_cuts_batches_of_several_references(extractor: FeatureExtractor) -> None:
    layers = [c * h * w for c, h, w in extractor.layer_shapes(72, 80, MapScorer(extractor, FEW).asked).values()]
    image = 4 * 4 * max(*layers, 3 * 72 * 80)
    memory = max(10 * image, 2**20)
    for batch in batches_of(make(extractor, memory=memory), make_samples([1] * 12)):
        assert 1 < len(batch.items) <= memory // (2 * image)  # references beside as many test images


def test_errors_name_images_and_references(extractor: FeatureExtractor) -> None:
    samples = [replace(s, reference=s.reference[:1], distorted=s.distorted[:1]) for s in make_samples([1, 1])]
    scorer = make(extractor)
    (batch,) = batches_of(scorer, samples)
    with pytest.raises(InputError, match=r"image0.0, image1.0, or the reference r0, r1: .*\(2, 1, 72, 80\)"):
        scorer.scores(batch)


def test_groups_are_scored_as_their_images_are(extractor: FeatureExtractor, device: torch.device) -> None:
    scorer = MapScorer(extractor, FEW).to(device)
    samples = make_samples([3, 1, 2])
    test = torch.stack([s.distorted for s in samples]).to(device)
    references = torch.stack([samples[i].reference for i in (0, 3, 4)]).to(device)
    expected = torch.cat([scorer(s.distorted[None].to(device), s.reference[None].to(device)) for s in samples])
    for given in (references, [scorer.prepare(reference[None]) for reference in references]):
        scores = scorer.grouped(test, given, [3, 1, 2])
        torch.testing.assert_close(scores, expected, **CLOSE)  # type: ignore[arg-type]
    pairs = torch.stack([s.reference for s in samples]).to(device)
    torch.testing.assert_close(scorer.grouped(test, pairs, [1] * 6), expected, **CLOSE)  # type: ignore[arg-type]


def test_parts_on_a_gpu_hold_several_references_and_on_a_cpu_one() -> None:
    ids = [f"r{i % 7}" for i in range(700)]
    small = run._plan(ids, 700, torch.device("cpu"))
    assert all(len(part) <= 32 and len({ids[row] for row in part}) == 1 for part in small)
    large = run._plan(ids, 700, GPU)
    assert [len(part) for part in large] == [256, 256, 188]
    assert [row for part in large for row in part] == [row for part in small for row in part]
    assert sorted(row for part in large for row in part) == list(range(700))
    assert run._plan(None, 3, GPU) == [[0, 1, 2]]


@pytest.mark.gpu
def test_runs_on_a_gpu_go_on_from_finished_parts(
    extractor: FeatureExtractor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device here")
    monkeypatch.setattr(run, "_PART_ROWS_ELSEWHERE", 8)
    samples = make_samples([5, 9, 3, 2, 1])
    options: dict[str, Any] = {"maps": FEW, "device": "cuda", "batch_size": 4}
    whole = score_matrix(extractor, samples, **options)
    real = BatchScorer.scores
    scored: list[int] = []

    def stopping(self: BatchScorer, batch: Batch) -> torch.Tensor:
        if sum(scored) >= 16:
            raise KeyboardInterrupt
        scored.append(len(batch.items))
        return real(self, batch)

    path = tmp_path / "scores"
    with monkeypatch.context() as patch:
        patch.setattr(BatchScorer, "scores", stopping)
        with pytest.raises(KeyboardInterrupt):
            score_matrix(extractor, samples, save=path, **options)
    # A part is written when the next one has its first batch on the device.
    assert sorted(p.name for p in Path(f"{path}.parts").iterdir()) == ["part-000000.safetensors", "run.json"]
    resumed = score_matrix(extractor, samples, save=path, **options)
    assert torch.equal(resumed.values, whole.values)
    assert torch.equal(ScoreMatrix.load(path).values, whole.values)
    assert resumed.names == [s.name for s in samples]
    assert resumed.values.is_cpu
    torch.testing.assert_close(whole.values, score_matrix(extractor, samples, maps=FEW).values, **CLOSE)  # type: ignore[arg-type]
