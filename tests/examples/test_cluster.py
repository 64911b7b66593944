"""The examples for clusters: shards that are preempted or killed go on, and are one run when merged."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from fmiqa import FeatureExtractor, ScoreMatrix, score_matrix
from fmiqa.datasets import CSVDataset, Demo

EXAMPLES = Path(__file__).parents[2] / "examples"
PATIENCE = 300  # seconds; far above what anything here takes

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds processes by Linux's /proc"),
]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of 12 references with 30 images each: four parts for each of three shards."""
    return Demo(references=12, levels=5, planted=["conv1:0"]).write(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def one_run(study: Path) -> ScoreMatrix:
    """Its score matrix by one process with one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scores = score_matrix(FeatureExtractor("alexnet", weights=None), CSVDataset(study))
    torch.set_num_threads(before)
    return scores


def run(example: str, study: Path, out: Path, *options: str, interrupt: Callable[[int], None]) -> str:
    """Run an example, interrupt it when each shard at work has finished a part, and see that no part is computed twice.

    Args:
        interrupt: Interrupts one shard, from the id of the example's process.

    Returns:
        What the example printed.
    """
    command = [sys.executable, str(EXAMPLES / example), "--csv", str(study), "--out", str(out), *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    printed = out.with_name("printed.txt")
    with printed.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=environment)
    deadline = time.monotonic() + PATIENCE
    try:
        finished: dict[Path, int] = {}
        while process.poll() is None and time.monotonic() < deadline:
            if not finished:
                begun = list(out.parent.glob("*.parts"))
                if len(begun) > 1 and all(any(folder.glob("part-*")) for folder in begun):
                    finished = {part: part.stat().st_mtime_ns for part in out.parent.glob("*.parts/part-*")}
                    interrupt(process.pid)
            for part, written in finished.items():
                with contextlib.suppress(FileNotFoundError):  # a shard that is finished removes its parts
                    assert part.stat().st_mtime_ns == written
            time.sleep(0.02)
    finally:
        for pid in [process.pid, *descendants(process.pid)] if process.poll() is None else ():
            os.kill(pid, signal.SIGKILL)
        text = printed.read_text()
    assert finished, text
    assert process.wait() == 0, text
    return text


def children(pid: int) -> list[int]:
    """The processes that a process has started, in order."""
    return [
        int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()
    ]


def descendants(pid: int) -> list[int]:
    return [found for child in children(pid) for found in (child, *descendants(child))]


def same(one: ScoreMatrix, other: ScoreMatrix) -> bool:
    return torch.equal(one.values, other.values) and one.to_dict() == other.to_dict()


def test_a_preempted_task_of_a_slurm_array_goes_on(study: Path, one_run: ScoreMatrix, tmp_path: Path) -> None:
    pytest.importorskip("submitit", reason="needs submitit: pip install 'fmiqa[submitit]'")
    out = tmp_path / "scores.safetensors"

    def preempt(example: int) -> None:
        job = children(example)[1]  # as SLURM does, for the second of the three jobs
        os.kill(children(job)[0], signal.SIGUSR2)

    options = ["--cluster", "local", "--shards", "3"]
    printed = run("submitit_array.py", study, out, *options, interrupt=preempt)
    logs = "".join(file.read_text() for file in (tmp_path / "logs").glob("*_log.out"))
    assert logs.count("Requeued job") == 1, logs
    assert "shards of [120, 120, 120] images merged: ScoreMatrix(360 images of 12 references" in printed
    assert same(ScoreMatrix.load(out), one_run)


def test_a_killed_worker_of_ray_goes_on(study: Path, one_run: ScoreMatrix, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="needs ray: pip install 'fmiqa[ray]'")
    out = tmp_path / "scores.safetensors"

    def kill(example: int) -> None:
        names = {pid: Path(f"/proc/{pid}/cmdline").read_text() for pid in descendants(example)}
        workers = [pid for pid, name in names.items() if name.startswith("ray::score_shard")]
        os.kill(workers[0], signal.SIGKILL)

    printed = run("ray_shards.py", study, out, "--shards", "3", interrupt=kill)
    assert "shards of [120, 120, 120] images merged: ScoreMatrix(360 images of 12 references" in printed
    assert same(ScoreMatrix.load(out), one_run)
