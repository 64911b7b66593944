"""Several processes: the bits of one process, each doing its share, and a clear end when one of them dies."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from PIL import Image
from torch import Tensor

from fmiqa import FeatureExtractor, InputError, ScoreMatrix, WorkerError, score_matrix
from fmiqa._runtime.distributed import alone, from_first, gather, is_first, largest, processes, rank, share
from fmiqa.cli import main
from fmiqa.datasets import Sample
from fmiqa.selection import (
    beam_select,
    cross_validate,
    engine,
    forward_select,
    permutation_null,
    stability_selection,
)
from fmiqa.selection.criteria import Objective

MAPS = ["conv1:5", "conv3:100", "conv2:17"]
PATIENCE = 100  # seconds; far above what anything here takes
# Points: 40 rows of the 60 images below, so that a step has several portions.
PORTION = {"eager": 2400, "compiled": 2400, "gpu": 2400}


# What the processes do: called by name in each of them, and `everything` here as well


def make_samples(count: int, references: int = 1) -> list[Sample]:
    generator = torch.Generator().manual_seed(0)
    pictures = torch.randint(0, 256, (references, 3, 64, 72), generator=generator)
    samples = []
    for i in range(count):
        noisy = pictures[i % references] + torch.randn(3, 64, 72, generator=generator) * (5 + i)
        test = noisy.clamp(0, 255).to(torch.uint8)
        reference = pictures[i % references].to(torch.uint8)
        samples.append(Sample(reference, test, float(-i), f"r{i % references}", f"image{i}", distortion="noise"))
    return samples


class Named(Sequence[Sample]):
    """A data set that notes what is decoded; `dies_after` so many, the process kills itself."""

    name = "Toy"

    def __init__(self, samples: list[Sample], dies_after: int | None = None) -> None:
        self.samples, self.dies_after = samples, dies_after
        self.decoded: list[int] = []
        self.checks = 0
        self.names = [s.name for s in samples]
        self.reference_ids = [s.reference_id for s in samples]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]
        if len(self.decoded) == self.dies_after:
            os.kill(os.getpid(), signal.SIGKILL)
        self.decoded.append(index)
        return self.samples[index]

    def check(self, *, progress: bool = False) -> None:
        self.checks += 1


def network() -> FeatureExtractor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return FeatureExtractor("alexnet", weights=None)


def columns(scores: ScoreMatrix) -> dict[str, Any]:
    return {key: getattr(scores, key) for key in ("values", "targets", "groups", "names", "distortions", "options")}


def problem() -> tuple[Tensor, Tensor, list[str]]:
    generator = torch.Generator().manual_seed(1)
    targets = torch.rand(60, generator=generator)
    values = torch.rand(60, 100, generator=generator) + targets[:, None] * torch.rand(100, generator=generator)
    return values, targets, [f"r{i % 12}" for i in range(60)]


def everything(save: Path) -> dict[str, Any]:
    data = Named(make_samples(20, 4))
    out: dict[str, Any] = {"kept in memory": columns(score_matrix(network(), data, maps=MAPS))}
    out["decoded"], out["checks"] = list(data.decoded), data.checks
    out["saved"] = columns(score_matrix(network(), data, maps=MAPS, save=save))
    out["file"] = columns(ScoreMatrix.load(save))

    values, targets, groups = problem()
    real, rows = Objective.quick, []
    with (
        mock.patch.object(engine, "_POINTS", PORTION),
        mock.patch.object(Objective, "quick", lambda self, x, *others: rows.append(len(x)) or real(self, x, *others)),
    ):
        selection = forward_select(values, targets, max_maps=3)
        out["rows"] = sum(rows)
        out["selection"] = selection.maps, selection.curve, selection.value
        out["ranks"] = beam_select(values, targets, criterion="srocc", width=3, max_maps=2).curve
        null = permutation_null(values, targets, groups=groups, permutations=5, max_maps=2)
        out["null"] = null.maps, null.observed, null.null
        stable = stability_selection(values, targets, groups=groups, subsamples=4, max_maps=2, pool="layer")
        out["stability"] = stable.selected, stable.frequency
        validation = cross_validate(values, targets, groups=groups, folds=3, max_maps=2)
        out["validation"] = validation.selected, validation.plcc, validation.all_srocc
    return out


def job_everything(folder: str) -> None:
    torch.save(everything(Path(folder) / "scores"), Path(folder) / f"rank{rank()}.pt")


def job_matrix(folder: str, dying: str) -> None:
    """Four references of six images, two for each process."""
    data = Named(make_samples(24, 4), dies_after=8 if str(rank()) == dying else None)
    scores = score_matrix(network(), data, maps=MAPS, save=Path(folder) / "scores")
    torch.save((columns(scores), data.decoded), Path(folder) / f"rank{rank()}.pt")


def job_meetings(folder: str, absent: str, how: str) -> None:
    """One stays away from the second meeting."""
    assert gather(rank() * 10) == [10 * r for r in range(processes())]
    assert from_first(rank) == 0
    if rank() == 0:
        with alone():
            assert (rank(), processes(), gather("mine")) == (0, 1, ["mine"])
    with pytest.raises(InputError, match="in the first"):
        from_first(lambda: fails())
    mine = torch.full((4,), -torch.inf, dtype=torch.float64)
    mine[rank()] = -0.0 if rank() == 0 else rank() / 3
    together = largest(mine)
    assert together.tolist() == [0.0, 1 / 3, 2 / 3, -torch.inf]
    assert together[0].signbit()
    if str(rank()) == absent:
        if how == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(9)
        return
    time.sleep(rank())  # nobody is taken for dead who is only later
    try:
        largest(mine)
    except WorkerError as error:
        (Path(folder) / f"rank{rank()}.txt").write_text(str(error))
        raise


def fails() -> None:
    assert is_first()
    raise InputError("in the first")


def run(job: str, size: int, *arguments: object, patience: float = PATIENCE) -> list[int]:
    """The job in so many processes; their exit codes."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    group = {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(Path(__file__).parent), str(patience), job, *map(str, arguments)],
        env={**os.environ, **group},
        stdout=subprocess.PIPE,
        text=True,
        timeout=300,
    )
    return [int(code) for code in done.stdout.split()]


SCRIPT = """
import datetime, multiprocessing, os, sys
folder, patience, job, *arguments = sys.argv[1:]
sys.path.insert(0, folder)
import torch, test_distributed  # once; the processes of the group are forks of this one
if job != "job_meetings":
    import torchvision.models
torch.set_num_threads(1)

def member(rank):
    os.environ["RANK"] = str(rank)
    torch.distributed.init_process_group("gloo", timeout=datetime.timedelta(seconds=float(patience)))
    getattr(test_distributed, job)(*arguments)
    torch.distributed.destroy_process_group()

size = int(os.environ["WORLD_SIZE"])
members = [multiprocessing.get_context("fork").Process(target=member, args=[rank]) for rank in range(size)]
for process in members:
    process.start()
for process in members:
    process.join()
print(*(process.exitcode for process in members))
"""


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """As in the processes: another number of threads may add up otherwise."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def same(a: Any, b: Any) -> bool:
    """Equal to the bit."""
    if isinstance(a, Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, tuple | list):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)


# The same bits


@pytest.mark.slow
def test_two_processes_give_the_bits_of_one_and_each_does_its_share(tmp_path: Path) -> None:
    assert run("job_everything", 2, tmp_path) == [0, 0]
    assert sorted(os.listdir(tmp_path)) == ["rank0.pt", "rank1.pt", "scores"]
    one = everything(tmp_path / "one")
    two = [torch.load(tmp_path / f"rank{r}.pt", weights_only=False) for r in range(2)]
    for key in one.keys() - {"decoded", "checks", "rows"}:
        assert same(two[0][key], one[key]), key
        assert same(two[1][key], one[key]), key
    # Twenty images of four references, in turn; each reference is a part.
    assert [each["decoded"] for each in two] == [
        [*range(0, 20, 4), *range(1, 20, 4)],
        [*range(2, 20, 4), *range(3, 20, 4)],
    ]
    assert [each["checks"] for each in two] == [1, 0]
    assert sum(each["rows"] for each in two) == one["rows"]
    assert min(each["rows"] for each in two) > 0.3 * one["rows"]  # 100 candidates in portions of 40


def test_a_group_on_a_device(device: torch.device, tmp_path: Path) -> None:
    """All that one process can show of NCCL; gloo says here that it is NCCL where it waits."""
    values, targets, _ = problem()
    values, targets = values.to(device), targets.to(device)
    before = forward_select(values, targets, max_maps=2)
    torch.distributed.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        init_method=f"file://{tmp_path}/store",
        rank=0,
        world_size=1,
        timeout=timedelta(seconds=1),
    )
    try:
        assert forward_select(values, targets, max_maps=2).curve == before.curve
        with mock.patch("fmiqa._runtime.distributed.processes", return_value=2):
            with mock.patch("fmiqa._runtime.distributed._meet"):
                for tensor in (values, values.cpu()):
                    assert torch.equal(largest(tensor), tensor)
                    assert largest(tensor).device == tensor.device
                assert from_first(lambda: {"a": 1}) == {"a": 1}
            with (
                mock.patch("torch.distributed.get_backend_config", return_value="cuda:nccl"),
                pytest.raises(WorkerError, match="process 1 of 2 did not answer process 0"),
            ):
                gather("mine")
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize("count", [0, 1, 2, 7, 100])
@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_shares_are_consecutive_even_and_all(count: int, size: int) -> None:
    shares = []
    for number in range(size):
        with (
            mock.patch("fmiqa._runtime.distributed.processes", return_value=size),
            mock.patch("fmiqa._runtime.distributed.rank", return_value=number),
        ):
            shares.append(share(range(count)))
    assert [item for one in shares for item in one] == list(range(count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


# A worker that dies


@pytest.mark.slow
def test_a_dead_worker_is_named_and_the_finished_parts_are_kept(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folders = [tmp_path / name for name in ("killed", "one", "two")]
    folders[0].mkdir()
    start = time.monotonic()
    codes = run("job_matrix", 2, folders[0], "1")
    assert time.monotonic() - start < PATIENCE / 2  # it did not wait for the timeout
    assert codes == [1, -signal.SIGKILL]
    assert "WorkerError: process 1 of 2 did not answer process 0" in capfd.readouterr().err
    parts = folders[0] / "scores.parts"
    assert sorted(p.name for p in parts.glob("*")) == [*(f"part-00000{k}.safetensors" for k in (0, 1, 2)), "run.json"]
    for folder in folders[1:]:
        shutil.copytree(folders[0], folder)

    whole = columns(score_matrix(network(), Named(make_samples(24, 4)), maps=MAPS))
    data = Named(make_samples(24, 4))
    assert same(columns(score_matrix(network(), data, maps=MAPS, save=folders[1] / "scores")), whole)
    assert data.decoded == list(range(3, 24, 4))
    assert os.listdir(folders[1]) == ["scores"]

    assert run("job_matrix", 2, folders[2], "nobody") == [0, 0]
    two = [torch.load(folders[2] / f"rank{r}.pt", weights_only=False) for r in range(2)]
    assert sorted(row for _, decoded in two for row in decoded) == list(range(3, 24, 4))
    assert all(same(scores, whole) for scores, _ in two)
    assert same(columns(ScoreMatrix.load(folders[2] / "scores")), whole)
    assert not (folders[2] / "scores.parts").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("absent", "how", "patience"), [(1, "dies", PATIENCE), (0, "dies", PATIENCE), (1, "hangs", 6)])
def test_who_is_absent_is_named_by_all(tmp_path: Path, absent: int, how: str, patience: float) -> None:
    start = time.monotonic()
    codes = run("job_meetings", 3, tmp_path, absent, how, patience=patience)
    assert time.monotonic() - start < PATIENCE / 2
    assert codes[absent] == (-signal.SIGKILL if how == "dies" else 0)
    for other in {0, 1, 2} - {absent}:
        assert codes[other] == 1
        said = (tmp_path / f"rank{other}.txt").read_text()
        assert said.startswith(f"process {absent} of 3 did not answer process {other}")


# The command line


@pytest.mark.slow
def test_torchrun_of_the_command_line_writes_one_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sheet = tmp_path / "study.csv"
    lines = ["distorted,reference,score"]
    for number, sample in enumerate(make_samples(12, 4)):
        for kind, image in (("test", sample.distorted), ("reference", sample.reference)):
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(tmp_path / f"{kind}{number}.png")
        lines.append(f"test{number}.png,reference{number % 4}.png,{sample.score}")
    sheet.write_text("\n".join(lines))
    matrix = ["matrix", "--csv", str(sheet), "--weights", "random", "--device", "cpu", "--maps", *MAPS]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "fmiqa"]
    two, one = tmp_path / "two", tmp_path / "one"
    for arguments, name in ((matrix, "scores"), (["validate", str(two / "scores"), "--folds", "2"], "figures")):
        done = subprocess.run(
            [*torchrun, *arguments, "--out", str(two / name)], capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("written to") == 1
        assert main([*arguments, "--out", str(one / name)]) == 0
    assert sorted(os.listdir(two)) == ["figures", "scores"]
    assert same(columns(ScoreMatrix.load(two / "scores")), columns(ScoreMatrix.load(one / "scores")))
    assert (two / "figures").read_text() == (one / "figures").read_text()
