"""The score matrix of a data set: the same whatever the batches, whatever happens on the way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import Subset

from fmiqa import SSIM, FeatureExtractor, InputError, ResumeError, ScoreMatrix, score_matrix
from fmiqa.datasets import IQADataset, Sample
from fmiqa.scoring.batches import Batch, BatchScorer
from fmiqa.scoring.scorer import MapScorer

# Kernels for other batches, processors and devices add up in another order: maps in float32 differ by some 1e-5 of
# their range L, and SSIM, whose least denominators are (.01 L)^2 and (.03 L)^2, by up to 100 times as much.
CLOSE = {"rtol": 0, "atol": 1e-3}
FEW = ["conv1:5", "conv3:100", "conv1:0", "conv2:17"]


@pytest.fixture(scope="module")
def extractor() -> FeatureExtractor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return FeatureExtractor("alexnet", weights=None)


def make_samples(count: int, references: int = 2, height: int = 72, width: int = 80) -> list[Sample]:
    generator = torch.Generator().manual_seed(0)
    pictures = torch.randint(0, 256, (references, 3, height, width), generator=generator)
    samples = []
    for i in range(count):
        r = i % references  # references alternate
        noise = torch.randn(3, height, width, generator=generator) * (10 + i)
        test = (pictures[r] + noise).clamp(0, 255).to(torch.uint8)
        samples.append(Sample(pictures[r].to(torch.uint8), test, float(-i), f"r{r}", f"image{i}", distortion="noise"))
    return samples


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    return make_samples(10)


@pytest.fixture(scope="module")
def scores(extractor: FeatureExtractor, samples: list[Sample]) -> ScoreMatrix:
    return score_matrix(extractor, samples)


class Counting(Sequence[Sample]):
    """A data set that says nothing of its items, counts what is decoded, and may break down."""

    def __init__(self, samples: list[Sample], *, breaks_after: int | None = None) -> None:
        self.samples = samples
        self.decoded: list[int] = []
        self.breaks_after = breaks_after

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]
        if self.breaks_after is not None and len(self.decoded) >= self.breaks_after:
            raise KeyboardInterrupt
        self.decoded.append(index)
        return self.samples[index]


class Named(Counting):
    """The same with what an `IQADataset` says of its items."""

    def __init__(self, samples: list[Sample], **options: Any) -> None:
        super().__init__(samples, **options)
        self.name = "Toy"
        self.names = [s.name for s in samples]
        self.reference_ids = [s.reference_id for s in samples]


def test_rows_are_the_images_one_by_one(
    extractor: FeatureExtractor, samples: list[Sample], scores: ScoreMatrix
) -> None:
    scorer = MapScorer(extractor)
    each = torch.cat([scorer(s.distorted[None], s.reference[None]) for s in samples])
    torch.testing.assert_close(scores.values, each, **CLOSE)
    assert scores.values.dtype == torch.float32
    assert scores.maps == extractor.maps
    assert scores.targets.tolist() == [s.score for s in samples]
    assert scores.groups == [s.reference_id for s in samples]
    assert scores.names == [s.name for s in samples]
    assert scores.distortions == ["noise"] * 10
    assert scores.options["weights_sha256"] == extractor.weights_sha256
    assert scores.options["measure"] == SSIM().options()
    json.dumps(scores.options)


def test_the_same_call_gives_the_same_bits(
    extractor: FeatureExtractor, samples: list[Sample], scores: ScoreMatrix
) -> None:
    before = torch.get_rng_state()
    assert torch.equal(score_matrix(extractor, samples).values, scores.values)
    assert torch.equal(torch.get_rng_state(), before)  # and moves nobody's random numbers on


@pytest.mark.parametrize("options", [{"batch_size": 1}, {"batch_size": 3}, {"workers": 2}, {"memory": 2**24}])
def test_batches_workers_and_memory_change_nothing(
    extractor: FeatureExtractor, samples: list[Sample], scores: ScoreMatrix, options: dict[str, int]
) -> None:
    other = score_matrix(extractor, samples, **options)  # type: ignore[arg-type]
    torch.testing.assert_close(other.values, scores.values, **CLOSE)
    assert other.names == scores.names


def test_order_and_mates_change_nothing(
    extractor: FeatureExtractor, samples: list[Sample], scores: ScoreMatrix
) -> None:
    order = [7, 2, 9, 0, 4]
    some = score_matrix(extractor, [samples[i] for i in order])
    torch.testing.assert_close(some.values, scores.values[order], **CLOSE)
    for data in (samples, Named(samples)):
        subset = score_matrix(extractor, Subset(Subset(data, [0, 2, 4, 7, 9]), [3, 1, 4, 0, 2]))  # type: ignore[arg-type]
        assert subset.names == [f"image{i}" for i in (7, 2, 9, 0, 4)]
        assert torch.equal(subset.values, some.values)


def test_a_reference_is_prepared_once(
    extractor: FeatureExtractor, samples: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared: list[int] = []
    real = MapScorer.prepare
    monkeypatch.setattr(MapScorer, "prepare", lambda self, image: prepared.append(1) or real(self, image))
    score_matrix(extractor, Named(samples), maps=FEW, batch_size=2)
    assert len(prepared) == 2


def test_a_small_memory_runs_the_reference_beside_each_batch(
    extractor: FeatureExtractor, samples: list[Sample], scores: ScoreMatrix, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[int] = []
    real = MapScorer.forward

    def forward(self: MapScorer, test: Tensor, reference: Any) -> Tensor:
        if isinstance(reference, Tensor):
            batches.append(len(test))
        return real(self, test, reference)

    monkeypatch.setattr(MapScorer, "forward", forward)
    large = make_samples(2, 3, 120, 130)
    roomy = score_matrix(extractor, large)
    batches.clear()
    monkeypatch.setattr(MapScorer, "prepare", None)
    # Room for two images' largest layers, and not for one's and a prepared reference: see _Run._fitting.
    layers = [c * h * w for c, h, w in extractor.layer_shapes(120, 130).values()]
    memory = 4 * 8 * max(layers) + 1000
    assert memory < 4 * (3 * sum(layers) + 4 * max(layers))
    tight = score_matrix(extractor, large, memory=memory)
    assert batches
    assert max(batches) < 3
    torch.testing.assert_close(tight.values, roomy.values, **CLOSE)


def test_mixed_sizes_dtypes_and_memory_layouts(
    extractor: FeatureExtractor, samples: list[Sample], scores: ScoreMatrix
) -> None:
    large = make_samples(2, 1, 90, 100)
    data = [
        samples[0],
        large[0],
        replace(samples[2], distorted=samples[2].distorted / 255),  # its reference stays uint8
        replace(samples[4], reference=samples[4].reference.double() / 255),
        replace(samples[6], distorted=samples[6].distorted.permute(1, 2, 0).contiguous().permute(2, 0, 1)),
        large[1],
    ]
    mixed = score_matrix(extractor, data)
    torch.testing.assert_close(mixed.values[[0, 2, 3, 4]], scores.values[[0, 2, 4, 6]], **CLOSE)
    torch.testing.assert_close(mixed.values[[1, 5]], score_matrix(extractor, large).values, **CLOSE)


def test_two_references_under_one_id(extractor: FeatureExtractor, samples: list[Sample], scores: ScoreMatrix) -> None:
    same = [replace(s, reference_id="both") for s in samples]
    torch.testing.assert_close(score_matrix(extractor, same).values, scores.values, **CLOSE)


def test_chosen_maps_are_columns(extractor: FeatureExtractor, samples: list[Sample], scores: ScoreMatrix) -> None:
    part = score_matrix(extractor, samples, maps=FEW)
    torch.testing.assert_close(part.values, scores.columns(FEW).values, **CLOSE)
    assert [str(m) for m in part.maps] == FEW


def test_small_images_serve_for_early_layers(extractor: FeatureExtractor) -> None:
    small = make_samples(3, 1, 24, 24)
    assert score_matrix(extractor, small, maps=["conv1:0"]).values.shape == (3, 1)
    with pytest.raises(InputError, match="too small"):
        score_matrix(extractor, small)


def test_devices(extractor: FeatureExtractor, samples: list[Sample], scores: ScoreMatrix, device: torch.device) -> None:
    there = score_matrix(extractor, samples, device=device)
    assert there.values.is_cpu
    assert extractor.device.type == "cpu"
    torch.testing.assert_close(there.values, scores.values, **CLOSE)


def test_a_data_set_is_checked_first(extractor: FeatureExtractor, samples: list[Sample]) -> None:
    class Checked(Counting):
        checks = 0

        def check(self, *, progress: bool = False) -> None:
            assert self.decoded == []
            Checked.checks += 1

    score_matrix(extractor, Checked(samples), maps=FEW)
    score_matrix(extractor, Checked(samples), maps=FEW, check=False)
    assert Checked.checks == 1


def test_missing_distortions(extractor: FeatureExtractor, samples: list[Sample]) -> None:
    assert score_matrix(extractor, [replace(samples[0], distortion=None)], maps=FEW).distortions is None


# Files and resuming


def test_the_result_is_saved_and_the_parts_removed(
    extractor: FeatureExtractor, samples: list[Sample], tmp_path: Path
) -> None:
    path = tmp_path / "folder" / "scores.safetensors"
    scores = score_matrix(extractor, samples, maps=FEW, save=path)
    again = ScoreMatrix.load(path)
    assert torch.equal(again.values, scores.values)
    assert again.options == scores.options
    assert os.listdir(path.parent) == ["scores.safetensors"]


SCRIPT = """
import os, signal, sys, warnings
warnings.simplefilter("ignore")
sys.path.insert(0, sys.argv[3])
import torch
torch.set_num_threads(int(sys.argv[4]))  # another number of threads may add up otherwise
from fmiqa import FeatureExtractor, score_matrix
import test_run
from test_run import FEW, make_samples

class Counting(test_run.Counting):  # of the same name, which is the data set's
    def __getitem__(self, index):
        if len(self.decoded) == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(index)

score_matrix(FeatureExtractor("alexnet", weights=None), Counting(make_samples(80, 1)), maps=FEW, save=sys.argv[1])
"""


def test_a_killed_run_goes_on_where_it_was(extractor: FeatureExtractor, tmp_path: Path) -> None:
    path = tmp_path / "scores"
    arguments = [str(path), "70", str(Path(__file__).parent), str(torch.get_num_threads())]
    killed = subprocess.run([sys.executable, "-c", SCRIPT, *arguments], capture_output=True, text=True, timeout=300)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert os.listdir(tmp_path) == ["scores.parts"]
    data = Counting(make_samples(80, 1))
    resumed = score_matrix(extractor, data, maps=FEW, save=path)
    # 64 images were finished in two parts of 32; the data has no names, so one image of each is looked at again.
    assert data.decoded == [0, 32, *range(64, 80)]
    whole = score_matrix(extractor, Counting(make_samples(80, 1)), maps=FEW)
    assert torch.equal(ScoreMatrix.load(path).values, whole.values)
    assert torch.equal(resumed.values, whole.values)
    assert resumed.names == whole.names
    assert os.listdir(tmp_path) == ["scores"]


def test_a_finished_file_is_loaded_unless_something_has_changed(
    extractor: FeatureExtractor, samples: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "scores"
    first = score_matrix(extractor, samples, maps=FEW, save=path)
    written = path.stat().st_mtime_ns
    computed: list[int] = []
    real = BatchScorer.scores
    monkeypatch.setattr(BatchScorer, "scores", lambda self, batch: computed.append(1) or real(self, batch))
    again = score_matrix(extractor, samples, maps=FEW, save=path)
    assert not computed
    assert path.stat().st_mtime_ns == written
    assert torch.equal(again.values, first.values)
    other = [replace(samples[0], score=9.0), *samples[1:]]
    pixels = [replace(samples[0], distorted=255 - samples[0].distorted), *samples[1:]]
    for data, options in (
        (other, {}),
        (pixels, {}),
        (samples[:9], {}),
        (samples, {"maps": FEW[:2]}),
        (samples, {"measure": SSIM(data_range="pair")}),
    ):
        computed.clear()
        score_matrix(extractor, data, save=path, **{"maps": FEW, **options})
        assert computed
    path.write_bytes(b"something else")
    computed.clear()
    score_matrix(extractor, samples, maps=FEW, save=path)
    assert computed


@pytest.fixture
def stopped(extractor: FeatureExtractor, tmp_path: Path) -> tuple[Path, list[Sample]]:
    """A run that was stopped after two of three parts."""
    samples = make_samples(70, 1)
    path = tmp_path / "scores"
    with pytest.raises(KeyboardInterrupt):
        score_matrix(extractor, Named(samples, breaks_after=66), maps=["conv1:5"], save=path)
    assert sorted(os.listdir(f"{path}.parts")) == [
        "part-000000.safetensors",
        "part-000001.safetensors",
        "run.json",
    ]
    return path, samples


def test_finished_parts_are_not_computed_again(extractor: FeatureExtractor, stopped: tuple[Path, list[Sample]]) -> None:
    path, samples = stopped
    data = Named(samples)
    resumed = score_matrix(extractor, data, maps=["conv1:5"], save=path)
    assert data.decoded == list(range(64, 70))
    assert torch.equal(resumed.values, score_matrix(extractor, Named(samples), maps=["conv1:5"]).values)
    assert not Path(f"{path}.parts").exists()


@pytest.mark.parametrize("length", [0, 100, -1])
def test_a_damaged_part_is_computed_again(
    extractor: FeatureExtractor, stopped: tuple[Path, list[Sample]], length: int
) -> None:
    path, samples = stopped
    part = Path(f"{path}.parts/part-000000.safetensors")
    part.write_bytes(part.read_bytes()[:length])
    data = Named(samples)
    resumed = score_matrix(extractor, data, maps=["conv1:5"], save=path)
    assert data.decoded == [*range(32), *range(64, 70)]
    assert torch.equal(resumed.values, score_matrix(extractor, Named(samples), maps=["conv1:5"]).values)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"measure": SSIM(data_range="pair")}, "measure: then .*'data_range': 1.0.*, now .*'pair'"),
        ({"maps": ["conv1:6"]}, "images_and_maps_sha256"),
        ({"maps": ["conv1:5", "conv1:6"]}, "maps: then 1, now 2"),
        ({"batch_size": 2}, "batch_size: then 8, now 2"),
        ({"memory": 2**28}, "memory: then 1073741824, now 268435456"),
    ],
)
def test_changed_options_are_named(
    extractor: FeatureExtractor, stopped: tuple[Path, list[Sample]], changed: dict[str, Any], named: str
) -> None:
    path, samples = stopped
    with pytest.raises(ResumeError, match=f"other options .*{named}"):
        score_matrix(extractor, Named(samples), **{"maps": ["conv1:5"], "save": path, **changed})


def test_a_changed_network_or_data_set_is_named(
    extractor: FeatureExtractor, stopped: tuple[Path, list[Sample]]
) -> None:
    path, samples = stopped
    with pytest.warns(UserWarning, match="seed 1"):
        other = FeatureExtractor("alexnet", weights=None, seed=1)
    with pytest.raises(ResumeError, match="weights_sha256"):
        score_matrix(other, Named(samples), maps=["conv1:5"], save=path)
    with pytest.raises(ResumeError, match="images: then 70, now 69"):
        score_matrix(extractor, Named(samples[:-1]), maps=["conv1:5"], save=path)
    reordered = Subset(Named(samples), [1, 0, *range(2, 70)])  # type: ignore[arg-type]
    with pytest.raises(ResumeError, match="images_and_maps_sha256"):
        score_matrix(extractor, reordered, maps=["conv1:5"], save=path)


def test_other_items_without_names_are_noticed(extractor: FeatureExtractor, tmp_path: Path) -> None:
    samples = make_samples(40, 1)
    with pytest.raises(KeyboardInterrupt):
        score_matrix(extractor, Counting(samples, breaks_after=35), maps=["conv1:5"], save=tmp_path / "x")
    with pytest.raises(ResumeError, match=r"item 0 was 'image0'.*now it is 'image39'"):
        score_matrix(extractor, Counting(samples[::-1]), maps=["conv1:5"], save=tmp_path / "x")


def test_an_interrupted_write_leaves_no_half_file(
    extractor: FeatureExtractor, samples: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(source: object, target: object) -> None:
        if "part-" in str(target):
            raise KeyboardInterrupt

        real(source, target)  # type: ignore[arg-type]

    real = os.replace
    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        score_matrix(extractor, samples, maps=FEW, save=tmp_path / "x")
    assert os.listdir(tmp_path / "x.parts") == ["run.json"]


# What is refused


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (lambda s: (s.reference, s.distorted, s.score), r"item 3 .*is a tuple, expected .*Sample"),
        (lambda s: replace(s, distorted=s.distorted[:, :-1]), r"item 3 \(image3\).*\(3, 71, 80\).*never resizes"),
        (lambda s: replace(s, distorted=s.distorted.numpy()), r"item 3 \(image3\): test image .*got ndarray"),
        (lambda s: replace(s, reference=s.reference[None]), r"item 3 \(image3\): reference .*\(1, 3, 72, 80\)"),
        (
            lambda s: replace(s, reference=s.reference[:1], distorted=s.distorted[:1]),
            r"image3, or the reference r1.*\(1, 1, 72, 80\)",
        ),
        (lambda s: replace(s, distorted=s.distorted.float()), r"image3, or .*lie in \[0, 1\], got values from"),
        (lambda s: replace(s, distorted=s.distorted * float("nan")), r"image3, or .*got values from nan"),
        (lambda s: replace(s, distorted=s.distorted.int(), reference=s.reference), r"image3, or .*got torch.int32"),
    ],
)
def test_broken_samples_are_named(
    extractor: FeatureExtractor, samples: list[Sample], broken: Any, message: str
) -> None:
    data = [*samples[:3], broken(samples[3]), *samples[4:]]
    with pytest.raises(InputError, match=message):
        score_matrix(extractor, Counting(data), maps=FEW)
    if not isinstance(data[3], tuple):
        with pytest.raises(InputError, match=message):
            score_matrix(extractor, data, maps=FEW)


def test_wrong_options_are_refused(extractor: FeatureExtractor, samples: list[Sample], tmp_path: Path) -> None:
    for options, message in (
        ({"batch_size": 0}, "batch_size is at least 1"),
        ({"memory": 5}, "at least one MiB"),
        ({"measure": "lpips"}, "no measure 'lpips'"),
        ({"maps": ["conv8:1"]}, "conv8:1"),
        ({"maps": []}, "no feature maps"),
        ({"save": tmp_path}, "is a folder"),
    ):
        with pytest.raises(InputError, match=message):
            score_matrix(extractor, samples, **options)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="empty"):
        score_matrix(extractor, [])


def test_errors_in_the_data_set_come_through(extractor: FeatureExtractor, samples: list[Sample]) -> None:
    class Failing(Counting):
        def __getitem__(self, index: int) -> Sample:  # type: ignore[override]
            raise FileNotFoundError("image7.png")

    with pytest.raises(FileNotFoundError, match=r"image7\.png"):
        score_matrix(extractor, Failing(samples), maps=FEW)


def test_no_more_images_are_held_than_a_batch(extractor: FeatureExtractor, monkeypatch: pytest.MonkeyPatch) -> None:
    data = Named(make_samples(32, 1))
    ahead: list[int] = []
    real = BatchScorer.scores

    def score(self: BatchScorer, batch: Batch) -> Tensor:
        ahead.append(len(data.decoded))
        return real(self, batch)

    monkeypatch.setattr(BatchScorer, "scores", score)
    score_matrix(extractor, data, maps=["conv1:5"], batch_size=4)
    assert ahead == [5, 9, 13, 17, 21, 25, 29, 32]  # the batch, and the one that no longer went in


def test_a_data_set_of_the_library(extractor: FeatureExtractor, samples: list[Sample]) -> None:
    class Toy(IQADataset):
        def _sample(self, index: int) -> Sample:
            return samples[index]

    toy = Toy("Toy", [s.score for s in samples], reference_ids=["r0", "r1"] * 5, names=[s.name for s in samples])
    scores = score_matrix(extractor, toy, maps=FEW)
    assert torch.equal(scores.values, score_matrix(extractor, samples, maps=FEW).values)
    assert scores.options["dataset"] == "Toy"
