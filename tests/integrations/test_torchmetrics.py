"""Mean quality as a metric of torchmetrics: one process or several, alone or in a collection."""

from __future__ import annotations

import copy
import os
import pickle
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pytest
import torch
from torch import Tensor, nn

import fmiqa
from fmiqa import FeatureExtractor, InputError, SelectedFeatureIQM

torchmetrics = pytest.importorskip("torchmetrics")
from fmiqa.integrations.torchmetrics import QualityMetric  # noqa: E402


def tiny(channel: int = 0) -> SelectedFeatureIQM:
    torch.manual_seed(0)
    return SelectedFeatureIQM(FeatureExtractor(nn.Sequential(nn.Conv2d(3, 4, 5, 2), nn.ReLU())), [f"0:{channel}"])


def batches() -> list[tuple[Tensor, Tensor]]:
    """Of 4, 1, 3 and 2 images."""
    generator = torch.Generator().manual_seed(0)
    made = []
    for count in (4, 1, 3, 2):
        reference = torch.rand(count, 3, 40, 48, generator=generator)
        made.append(((reference + 0.2 * torch.randn(reference.shape, generator=generator)).clamp(0, 1), reference))
    return made


def mean_of(numbers: list[int], metric: QualityMetric) -> Tensor:
    given = batches()
    for number in numbers:
        metric.update(*given[number])
    return metric.compute()


def test_every_image_counts_the_same() -> None:
    iqm = tiny()
    qualities = torch.cat([iqm(*batch) for batch in batches()])
    # Both sum float32 numbers in float64, which is exact here, and round once.
    assert torch.equal(mean_of([0, 1, 2, 3], QualityMetric(iqm)), qualities.double().mean().float())
    metric = QualityMetric(iqm)
    for batch in batches():
        assert torch.equal(metric(*batch), iqm(*batch).double().mean().float())  # of the batch
    assert torch.equal(metric.compute(), qualities.double().mean().float())
    metric.reset()
    with pytest.raises(InputError, match=r"call update\(test, reference\) first"), pytest.warns(match="before"):
        metric.compute()


def test_it_behaves_as_other_metrics_do() -> None:
    metric = QualityMetric()
    assert (metric.higher_is_better, metric.is_differentiable, metric.full_state_update) == (True, True, False)
    assert isinstance(metric.iqm, fmiqa.ReadyMetric)
    test, reference = batches()[0]
    leaf = test.clone().requires_grad_()
    metric(leaf, reference).backward()
    assert leaf.grad is not None
    assert not metric.total.requires_grad  # no graph is kept over steps
    with pytest.raises(InputError, match="name of one, got Linear"):
        QualityMetric(nn.Linear(2, 2))  # type: ignore[arg-type]


@pytest.mark.parametrize("again", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["copy", "pickle"])
def test_copies_go_on_where_it_was(again: Any) -> None:
    metric = QualityMetric(tiny())
    metric.update(*batches()[0])
    other = again(metric)
    for one in (metric, other):
        one.update(*batches()[1])
    assert torch.equal(metric.compute(), other.compute())


def test_devices_dtypes_and_state_dict() -> None:
    metric = QualityMetric(tiny())
    metric.update(*batches()[0])
    value = metric.compute()
    assert metric.to("cpu").half().total.dtype == torch.float64
    assert torch.equal(metric.compute(), value)
    assert metric.to("meta").total.is_meta
    # The network's weights, and no sums unless asked for.
    state = QualityMetric(tiny()).state_dict()
    assert all(name.startswith("iqm.") for name in state)
    metric = QualityMetric(tiny())
    metric.load_state_dict(state)
    metric.persistent(True)
    assert {"total", "count"} <= metric.state_dict().keys()


@pytest.mark.gpu
def test_on_a_device(device: torch.device) -> None:
    metric = QualityMetric(tiny()).to(device)
    for test, reference in batches():
        metric.update(test.to(device), reference.to(device))
    # A device rounds convolutions otherwise.
    torch.testing.assert_close(metric.compute().cpu(), mean_of([0, 1, 2, 3], QualityMetric(tiny())), rtol=0, atol=1e-5)


def test_a_collection_never_takes_one_metric_for_another() -> None:
    """Compute groups are found by equal states, which different metrics have after a batch of equal images."""
    collection = torchmetrics.MetricCollection({"a": QualityMetric(tiny(0)), "b": QualityMetric(tiny(1))})
    collection.update(batches()[0][1], batches()[0][1])
    for batch in batches():
        collection.update(*batch)
    assert len(collection.compute_groups) == 2
    values = collection.compute()
    assert values["a"] != values["b"]
    same = torchmetrics.MetricCollection({"a": QualityMetric(tiny(0)), "b": QualityMetric(tiny(0))})
    same.update(*batches()[0])
    assert len(same.compute_groups) == 1


def test_plot() -> None:
    mpl.use("agg")
    metric = QualityMetric(tiny())
    figure, axes = metric.plot([metric(*batch) for batch in batches()])
    assert len(axes.get_lines()) == 1
    mpl.pyplot.close(figure)


SHARES = [[0, 1], [2, 3]]  # 5 images each, in batches of 4, 1 and 3, 2
UNEVEN = [[0, 1, 2], [3]]  # 8 images and 2


SCRIPT = """
import sys
folder, rank, out = sys.argv[1:]
sys.path.insert(0, folder)
import test_torchmetrics
test_torchmetrics.member(int(rank), out)
"""


def member(rank: int, folder: str) -> None:
    """A process of a group of two."""
    torch.distributed.init_process_group("gloo", rank=rank, world_size=2)
    found = [mean_of(shares[rank], QualityMetric(tiny())) for shares in (SHARES, UNEVEN)]
    model = nn.parallel.DistributedDataParallel(trained())
    step(model, batches()[2 * rank])
    torch.save((found, [p.grad for p in model.parameters() if p.requires_grad]), Path(folder) / f"{rank}.pt")
    torch.distributed.destroy_process_group()


class Denoiser(nn.Module):
    """A model that holds its loss: frozen weights beside its own."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.loss = fmiqa.load_metric().as_loss()

    def forward(self, test: Tensor, reference: Tensor) -> Tensor:
        return self.loss(self.conv(test).sigmoid(), reference)  # type: ignore[no-any-return]


def trained() -> Denoiser:
    torch.manual_seed(1)
    return Denoiser()


def step(model: nn.Module, batch: tuple[Tensor, Tensor]) -> None:
    model(*batch).backward()


def test_two_processes_give_what_one_gives(tmp_path: Path) -> None:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    environment = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    arguments = [
        [sys.executable, "-c", SCRIPT, str(Path(__file__).parent), str(rank), str(tmp_path)] for rank in (0, 1)
    ]
    running = [subprocess.Popen(line, env=environment) for line in arguments]
    assert [process.wait(120) for process in running] == [0, 0]
    one = mean_of([0, 1, 2, 3], QualityMetric(tiny()))
    alone = trained()
    for batch in (batches()[0], batches()[2]):
        step(alone, batch)
    expected = [p.grad / 2 for p in alone.parameters() if p.grad is not None]
    for rank in (0, 1):
        means, gradients = torch.load(tmp_path / f"{rank}.pt")
        for mean in means:
            # The same float32 qualities, summed exactly in float64; other threads may round a convolution otherwise.
            torch.testing.assert_close(mean, one, rtol=0, atol=1e-6)
        # Gradients of two batches, averaged in another order and on other threads.
        torch.testing.assert_close(gradients, expected, rtol=1e-4, atol=1e-7)
