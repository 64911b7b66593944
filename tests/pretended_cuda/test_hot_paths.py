"""On a GPU, loops over steps, candidates and batches wait for nothing and upload nothing but what the table allows.

Each path runs with k rounds of its loop, and with 2 k: what the second run has more of is what a round costs.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from pretended_cuda.log import Counts, Log
from torch import Tensor

import fmiqa
from fmiqa.correlation.bootstrap import bootstrap
from fmiqa.datasets import Sample

pytestmark = pytest.mark.gpu
CUDA = "cuda"


class ARound(NamedTuple):
    """What each round of a loop adds: how often the host waits, and how often it copies something to the device."""

    waits: int
    uploads: int


def a_round(log: Log, run: Callable[[int], object], rounds: int) -> tuple[ARound, str]:
    """What each further round costs of work that runs so many of them, rounded down, and the lines it comes from."""
    run(rounds)  # plans and constants are made once
    start = Counter(log.lines)
    few, lines = log.of(lambda: run(rounds)), Counter(log.lines)
    many = log.of(lambda: run(2 * rounds))
    more = {event: n - 2 * lines[event] + start[event] for event, n in log.lines.items() if event[0] != "launch"}
    told = [f"{n} {' '.join(event)}" for event, n in more.items() if n]
    cost = [many[i] - few[i] for i in (Counts._fields.index("waits"), Counts._fields.index("uploads"))]
    return ARound(*(n // rounds for n in cost)), f"in {rounds} rounds more: {'; '.join(told)}"


def scores(images: int = 60, maps: int = 16) -> tuple[Tensor, Tensor]:
    """Map scores of which each follows quality with noise of its own, so that every further map helps."""
    generator = torch.Generator().manual_seed(0)
    targets = torch.rand(images, generator=generator, dtype=torch.float64)
    noise = torch.randn(images, maps, generator=generator)
    return (targets[:, None].float() + noise).to(CUDA), targets.to(CUDA)


def selection_steps(steps: int) -> object:
    return fmiqa.forward_select(*scores(), max_maps=steps)


def selection_candidates(maps: int) -> object:
    return fmiqa.forward_select(*scores(maps=maps), max_maps=1)


def weighted_candidates(maps: int) -> object:
    values, targets = scores()
    falling = scores(maps=maps)[0] - 2 * targets[:, None].float()  # with non-negative weights, they are never chosen
    return fmiqa.weighted_select(torch.cat([values, falling], 1), targets, groups=GROUPS, prior=None)


def weighted_strengths(strengths: int) -> object:
    return fmiqa.weighted_select(*scores(), groups=GROUPS, strengths=[0.3 * 0.99**i for i in range(strengths)])


def plcc_of_problems(problems: int) -> object:
    values, targets = scores(maps=problems)
    return fmiqa.plcc(values.T, targets)


def fits_of_problems(problems: int) -> object:
    values, targets = scores(maps=problems)
    return fmiqa.fit_logistic(values.T, targets)


def resamples(count: int) -> object:
    values, targets = scores(maps=2)
    return bootstrap(values.T, targets, GROUPS, resamples=count)


GROUPS = [f"r{i // 5}" for i in range(60)]


def extractor() -> fmiqa.FeatureExtractor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return fmiqa.FeatureExtractor("alexnet", weights=None, layers=["conv1", "conv2"])


def score_batches(batches: int) -> object:
    images = torch.randint(0, 256, (1 + 2 * batches, 3, 64, 64), generator=torch.Generator().manual_seed(0))
    images = images.to(torch.uint8)
    data = [Sample(images[0], test, float(i), "r", str(i)) for i, test in enumerate(images[1:])]
    return fmiqa.score_matrix(extractor(), data, device=CUDA, batch_size=2, workers=0)


def metric_calls(calls: int) -> object:
    metric = fmiqa.SelectedFeatureIQM(extractor(), ["conv1:3", "conv2:5"]).to(CUDA)
    test, reference = torch.rand(2, 1, 3, 64, 64, device=CUDA)
    return [metric(test, reference) for _ in range(calls)]


ALLOWED = {
    selection_steps: (2, ARound(1, 1)),
    selection_candidates: (20, ARound(0, 0)),
    weighted_candidates: (20, ARound(0, 0)),
    weighted_strengths: (4, ARound(4, 4)),
    plcc_of_problems: (20, ARound(0, 0)),
    fits_of_problems: (20, ARound(0, 0)),
    resamples: (50, ARound(0, 0)),
    score_batches: (4, ARound(0, 1)),
    metric_calls: (2, ARound(2, 6)),
}
"""Path -> (k, what a round costs). A figure above what is seen fails as well: lower it."""


@pytest.mark.parametrize("path", ALLOWED, ids=lambda path: path.__name__)
def test_a_round_costs_what_is_allowed(path: Callable[[int], object], log: Log) -> None:
    rounds, allowed = ALLOWED[path]
    seen, lines = a_round(log, path, rounds)
    assert seen == allowed, lines


PLANTED: dict[str, tuple[Callable[[Tensor], object], ARound]] = {
    "a number read back": (lambda x: x.sum().item(), ARound(1, 0)),
    "a branch on a value": (lambda x: bool(x.sum() > 0), ARound(1, 0)),
    "a mask": (lambda x: x[x > 0], ARound(1, 0)),
    "nonzero": (lambda x: x.nonzero(), ARound(1, 0)),
    "a result fetched": (lambda x: x.cpu(), ARound(1, 0)),
    "a constant made on the host": (lambda x: x + torch.tensor([1.0, 2.0]).to(x.device), ARound(0, 1)),
    "a constant made of a list": (lambda x: x + torch.tensor([1.0, 2.0], device=x.device), ARound(0, 1)),
    "an index on the host": (lambda x: x[torch.tensor([1, 0])], ARound(0, 1)),
    "an index of a list": (lambda x: x[[1, 0]], ARound(0, 1)),
    "nothing": (lambda x: x * 2 + torch.arange(2, device=x.device), ARound(0, 0)),
}


@pytest.mark.parametrize("name", PLANTED)
def test_faults_planted_in_a_loop_are_counted(name: str, log: Log) -> None:
    step, expected = PLANTED[name]
    x = torch.ones(2, device=CUDA)

    def loop(steps: int) -> None:
        for _ in range(steps):
            step(x)
        x.sum().item()  # once, whatever the number of steps

    assert a_round(log, loop, 3)[0] == expected
