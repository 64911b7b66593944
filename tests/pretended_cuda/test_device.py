"""The pretended CUDA device: computes what a CPU does, refuses what CUDA refuses, and counts what it does."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from pretended_cuda.device import PretendedTensor, compiled_as_one_kernel, pretended_cuda
from pretended_cuda.log import H100, OUTSIDE, Log
from pretended_cuda.plugin import NOT_PRETENDED, WITH_GRADIENTS
from torch import Tensor, nn

from fmiqa import plcc
from fmiqa._runtime.compiled import Fused, compiling
from fmiqa.measures import get_measure

pytestmark = pytest.mark.gpu


@pytest.fixture
def x(log: Log) -> Tensor:
    return torch.arange(6.0).reshape(2, 3).to(log.device)


def test_tensors_say_where_they_are_and_compute(x: Tensor) -> None:
    assert isinstance(x, PretendedTensor)
    assert x.is_cuda
    assert x.device == torch.device("cuda:0")
    made = [torch.zeros(2, device="cuda"), x.new_ones(2), torch.tensor([1, 2], device=x.device), (x + 1).mT, x[:, 1:]]
    assert {t.device for t in made} == {x.device}
    assert torch.cuda.is_available()
    assert (x @ x.T).cpu().tolist() == [[5.0, 14.0], [14.0, 50.0]]
    assert x.tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
    assert f"{x[1, 1]:.1f}" == "4.0"
    assert torch.empty_like(x, device="cpu").device.type == x.to("cpu").device.type == "cpu"


def test_views_and_writes_in_place_reach_the_same_values(x: Tensor) -> None:
    x[:, 1].mul_(10)
    assert x.add_(1) is x
    x[0, 0] = torch.tensor(7.0)
    assert x.tolist() == [[7.0, 11.0, 3.0], [4.0, 41.0, 6.0]]


def test_inference_mode_is_as_with_other_tensors(x: Tensor) -> None:
    with torch.inference_mode():
        kept, view = x * 2, x[0]
        assert kept.is_inference()
        assert not view.is_inference()
        assert kept[0].detach().sum().item() == 6.0
    assert kept[1].cpu().tolist() == [6.0, 8.0, 10.0]


def test_modules_move_and_are_copied(log: Log) -> None:
    layer = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)).eval().to("cuda")
    again = copy.deepcopy(layer)
    images = torch.rand(1, 1, 5, 5).cuda()
    assert all(parameter.is_cuda and isinstance(parameter, nn.Parameter) for parameter in again.parameters())
    with torch.inference_mode():
        expected = copy.deepcopy(layer).cpu()(images.cpu())
        torch.testing.assert_close(again(images).cpu(), expected)


def test_threads_see_the_device(log: Log) -> None:
    found = []
    thread = threading.Thread(target=lambda: found.append(torch.ones(2).to("cuda").sum().item()))
    thread.start()
    thread.join()
    assert found == [2.0]
    assert log.counts.uploads == 1


def test_backward_passes(pytestconfig: pytest.Config) -> None:
    if not pytestconfig.getoption("pretend_cuda"):
        pytest.skip("other tests have begun the process's backward passes: make test-pretended-cuda")
    with pretended_cuda(gradients=True) as log:
        x = torch.rand(1, 1, 4, 4).to(log.device).requires_grad_()
        weight = torch.ones(1, 1, 2, 2).to(log.device)
        (nn.functional.conv2d(x, weight).square().sum() / 2).backward()
        assert x.grad is not None
        assert x.grad.device == log.device
        here = x.detach().cpu().requires_grad_()
        (nn.functional.conv2d(here, weight.cpu()).square().sum() / 2).backward()
        torch.testing.assert_close(x.grad.cpu(), here.grad)


REFUSED: dict[str, tuple[Callable[[Tensor], object], type[Exception], str]] = {
    "a CPU tensor beside one of CUDA": (lambda x: x + torch.ones(3), RuntimeError, "two devices, cuda:0 and cpu"),
    "a CPU tensor written in place": (lambda x: torch.ones(2, 3).add_(x), RuntimeError, "two devices"),
    "a CPU tensor in a product": (lambda x: torch.ones(1, 2) @ x, RuntimeError, "two devices"),
    "a CPU scalar in a reduction": (lambda x: torch.cat([x[0], torch.ones(1)]), RuntimeError, "two devices"),
    "a CUDA index of a CPU tensor": (lambda x: torch.ones(9)[x[0].long()], RuntimeError, "two devices"),
    "values on the CPU at an index": (lambda x: x.index_put_((x[:, 0].int(),), torch.ones(2, 3)), RuntimeError, "tw"),
    "numpy": (lambda x: x.numpy(), TypeError, r"Use Tensor.cpu\(\)"),
    "an array": (lambda x: np.asarray(x), TypeError, "to numpy"),
    "a CPU generator": (lambda x: x.normal_(generator=torch.Generator()), RuntimeError, "generator but found 'cpu'"),
    "random numbers of a CPU generator": (
        lambda x: torch.rand(2, device=x.device, generator=torch.Generator()), RuntimeError, "generator but found 'cpu'"
    ),
    "another GPU": (lambda x: x.to("cuda:1"), RuntimeError, "invalid device ordinal"),
    "a pickle": (lambda x: x.__reduce_ex__(2), TypeError, "not pickled"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cuda_refuses_is_refused(name: str, x: Tensor) -> None:
    fault, error, message = REFUSED[name]
    with pytest.raises(error, match=message):
        fault(x)


@pytest.mark.skipif(not torch.backends.cuda.is_built(), reason="this torch knows no CUDA kernels")
def test_operations_without_a_cuda_kernel_are_refused(x: Tensor) -> None:
    with pytest.raises(NotImplementedError, match=r"aten\.histogram\.bin_ct.*no kernel"):
        torch.histogram(x)


def test_numbers_on_the_cpu_go_into_kernels_as_with_cuda(x: Tensor, log: Log) -> None:
    number = torch.tensor(2.0)
    used = log.of(lambda: (x * number, torch.where(x > 1, x, number), x.masked_fill(x > 1, number), x.fill_(number)))
    assert (used.uploads, used.waits) == (0, 0)


def test_kernels_bytes_copies_and_waits_are_counted(x: Tensor, log: Log) -> None:
    y = x.double()
    assert log.of(lambda: x + y)[:6] == (1, 0, 0, 0, 24 + 48 + 48, 0)
    assert log.of(lambda: x[0].expand(9, 3) + x[0].expand(9, 3)).bytes == 12 + 12 + 9 * 12  # broadcasts are read once
    assert log.of(lambda: x.add_(1)).bytes == 24 + 24
    assert log.of(lambda: x.zero_()).bytes == 24
    assert log.of(lambda: torch.mul(x, 2, out=torch.empty_like(x))).bytes == 24 + 24
    assert log.of(lambda: x[:, None].transpose(0, 1).reshape(-1).view(3, 2)).launches == 0
    assert log.of(lambda: x.index_select(0, torch.zeros(1, dtype=torch.long, device="cuda"))).bytes == 8 + 8 + 12 + 12
    assert log.of(lambda: x.cpu())[:6] == (0, 1, 0, 1, 0, 24)
    assert log.of(lambda: torch.ones(4).to("cuda"))[:6] == (0, 0, 1, 0, 0, 16)
    assert log.of(lambda: float(x.sum())).waits == 1
    assert log.of(lambda: torch.cuda.synchronize()).waits == 1


def test_means_and_quotients_round_as_on_cuda(log: Log) -> None:
    # 1 / 41 is rounded down, and so is 41 times that.
    ones = torch.ones(2, 41, device="cuda")
    assert ones.mean(1).tolist() == ones.mean((0, 1)).expand(2).tolist() == (ones * 41 / 41).mT[0].tolist()
    assert ones.mean().item() == 1 - 2**-24
    assert (ones * 41 / torch.full_like(ones, 41)).min().item() == 1


def test_asynchronous_copies_hold_nobody_up(x: Tensor, log: Log) -> None:
    pinned, pageable = torch.empty(2, 3, pin_memory=True), torch.empty(2, 3)
    assert pinned.is_pinned()
    assert torch.ones(2).pin_memory().is_pinned()
    assert not pageable.is_pinned()
    assert log.of(lambda: pinned.copy_(x, non_blocking=True)).waits == 0
    assert log.of(lambda: pageable.copy_(x, non_blocking=True)).waits == 1
    assert log.of(lambda: pinned.copy_(x)).waits == 1
    blocking, other = (log.of(lambda own=own: x.copy_(pinned, non_blocking=own)) for own in (False, True))
    assert blocking.uploads == other.uploads == 1
    assert (blocking.seconds, other.seconds) == pytest.approx((H100.wait, H100.launch))


def test_events_are_kept_by_the_line_of_the_library(x: Tensor, log: Log) -> None:
    log.lines.clear()
    plcc(torch.rand(3, 40, dtype=torch.float64).to("cuda"), torch.rand(40, dtype=torch.float64).to("cuda"), fit=None)
    own = [line for kind, _, line in log.lines if kind == "launch"]
    assert own
    assert all(line.startswith("fmiqa/correlation/") for line in own)
    file, number = own[0].split()[0].split(":")
    assert int(number) <= len((Path(__file__).parents[2] / file).read_text().splitlines())
    assert OUTSIDE in log.lines_of("upload")


def test_time_is_the_longest_of_launch_traffic_and_arithmetic() -> None:
    with pretended_cuda(data="meta") as log:
        small, large = torch.empty(10, device="cuda"), torch.empty(2**24, device="cuda")
        square = torch.empty(2**13, 2**13, device="cuda")
        assert log.of(lambda: small + 1).seconds == H100.launch
        assert log.of(lambda: large + 1).seconds == pytest.approx(2 * 4 * 2**24 / H100.bandwidth)
        assert log.of(lambda: square @ square).seconds == pytest.approx(2 * 2**39 / H100.arithmetic)
        assert float(large.sum()) == 0.0  # nothing is computed
        assert large.cpu().shape == large.shape


def test_counting_alone_counts_the_same(log: Log) -> None:
    def score(kind: str) -> object:
        generator = torch.Generator().manual_seed(0)
        test, reference = (torch.rand(2, 4, 40, 50, generator=generator).to(kind) for _ in range(2))
        return get_measure("correlation")(test, reference)

    with pretended_cuda(data="meta") as counted:
        score("cuda")
    score("cuda")
    assert counted.counts == log.counts
    assert counted.lines == log.lines


def test_a_compiled_function_counts_as_one_kernel(x: Tensor, log: Log) -> None:
    function = Fused(lambda a, b: (a * b + 1).square().sum(1))
    y = x.double()
    with compiled_as_one_kernel():
        eager = log.of(lambda: function(x, y))
        with compiling(True):
            fused = log.of(lambda: function(x, y))
            assert torch.equal(function(x, y), function.eager(x, y))
    assert eager.launches == 4
    assert (fused.launches, fused.bytes) == (1, 24 + 48 + 16)


def test_listed_tests_exist() -> None:
    root = Path(__file__).parents[2]
    for listed in (*NOT_PRETENDED, *WITH_GRADIENTS):
        file, name = listed.split("::")
        assert f"def {name}(" in (root / file).read_text(), f"{listed} is listed in plugin.py and does not exist"
