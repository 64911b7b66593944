"""Full float32 inside, whatever the caller's settings; these are as they were afterwards."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fmiqa import FeatureExtractor, InputError, SelectedFeatureIQM
from fmiqa._runtime.precision import at_least_float32, reduced, strict_float32
from fmiqa.features.checkpoints import seeded_state
from fmiqa.features.networks import blank_network
from fmiqa.scoring.scorer import MapScorer

BACKENDS: Any = torch.backends  # typed differently from torch to torch
needs_backend_settings = pytest.mark.skipif(
    not hasattr(BACKENDS.cudnn, "conv"), reason="before torch 2.9 backends have no precision of their own"
)


@pytest.fixture(autouse=True)
def own_settings() -> Iterator[None]:
    """Every test may set what it likes; torch's defaults before and afterwards."""

    def default() -> None:
        if hasattr(BACKENDS.cudnn, "conv"):
            BACKENDS.fp32_precision = "none"
            BACKENDS.cudnn.fp32_precision = "none"
            BACKENDS.mkldnn.conv.fp32_precision = "none"
        torch.set_float32_matmul_precision("highest")
        BACKENDS.cudnn.allow_tf32 = True

    default()
    yield
    default()


@pytest.fixture(params=["cpu", "cuda"])
def kind(request: pytest.FixtureRequest) -> str:
    """The settings of CUDA can be watched without a GPU."""
    warnings.filterwarnings("ignore", "User provided device_type of 'cuda'")
    return str(request.param)


def older() -> dict[str, object]:
    """What the switches say that every torch has; reading them raises where they contradict the newer ones."""
    with BACKENDS.cudnn.flags(enabled=True, allow_tf32=BACKENDS.cudnn.allow_tf32):
        pass
    return {
        "convolutions": BACKENDS.cudnn.allow_tf32,
        "products": BACKENDS.cuda.matmul.allow_tf32,
        "matmul": torch.get_float32_matmul_precision(),
    }


def newer() -> dict[str, object]:
    if not hasattr(BACKENDS.cudnn, "conv"):
        return {}
    owners = {
        "all": BACKENDS,
        "cudnn": BACKENDS.cudnn,
        "cudnn.conv": BACKENDS.cudnn.conv,
        "cudnn.rnn": BACKENDS.cudnn.rnn,
        "cuda.matmul": BACKENDS.cuda.matmul,
        "mkldnn.conv": BACKENDS.mkldnn.conv,
        "mkldnn.matmul": BACKENDS.mkldnn.matmul,
    }
    return {name: owner.fp32_precision for name, owner in owners.items()}


def settings() -> dict[str, object]:
    return {**older(), **newer()}


def is_strict(kind: str) -> bool:
    if not hasattr(BACKENDS.cudnn, "conv"):
        strict = torch.get_float32_matmul_precision() == "highest"
        return strict and (kind == "cpu" or not BACKENDS.cudnn.allow_tf32)
    names = ("mkldnn.conv", "mkldnn.matmul") if kind == "cpu" else ("cudnn.conv", "cudnn.rnn", "cuda.matmul")
    return all(newer()[name] in ("ieee", "none") for name in names)


def in_thread(work: Callable[[], object]) -> None:
    with ThreadPoolExecutor(1) as pool:
        pool.submit(work).result(timeout=60)


def test_autocast_is_off_inside(device: torch.device) -> None:
    a = torch.ones(4, 4, device=device)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        assert (a @ a).dtype == torch.bfloat16
        with strict_float32(device):
            assert (a @ a).dtype == torch.float32
        assert (a @ a).dtype == torch.bfloat16


@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
@pytest.mark.parametrize("convolutions", [True, False])
def test_settings_come_back_after_an_error(kind: str, precision: str, convolutions: bool) -> None:
    torch.set_float32_matmul_precision(precision)
    BACKENDS.cudnn.allow_tf32 = convolutions
    outside = settings()
    inside: list[bool] = []

    def fail() -> None:
        with strict_float32(kind):
            inside.append(is_strict(kind))
            older()  # can be read
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert inside == [True]
    assert settings() == outside


def test_on_cpus_the_settings_of_gpus_are_left_alone() -> None:
    torch.set_float32_matmul_precision("high")
    before = {name: value for name, value in settings().items() if "cud" in name or name == "convolutions"}
    with strict_float32("cpu"):
        inside = settings()
    assert {name: inside[name] for name in before} == before


def test_a_thread_stays_strict_when_another_one_is_done(kind: str) -> None:
    torch.set_float32_matmul_precision("medium")
    outside = settings()
    first_in, second_in, first_out = (threading.Event() for _ in range(3))
    strict: list[bool] = []

    def first() -> None:
        with strict_float32(kind):
            first_in.set()
            assert second_in.wait(60)
        first_out.set()

    def second() -> None:
        assert first_in.wait(60)
        with strict_float32(kind):
            second_in.set()
            assert first_out.wait(60)
            strict.append(is_strict(kind))

    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(first), pool.submit(second)]:
            done.result(timeout=60)
    assert strict == [True]
    assert settings() == outside


class Watching(nn.Conv2d):
    """A convolution that notes what the switches are while it runs."""

    seen: list[tuple[bool, dict[str, object]]]

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append((is_strict("cpu"), older()))
        return super().forward(x)


def test_metrics_in_many_threads_compute_strictly_and_lose_nothing() -> None:
    layer = Watching(3, 4, 3)
    layer.seen = []
    iqm = SelectedFeatureIQM(FeatureExtractor(nn.Sequential(layer, nn.ReLU())), ["0:1", "0:3"])
    seen = next(module for module in iqm.modules() if isinstance(module, Watching)).seen
    test, reference = torch.rand(2, 1, 3, 24, 24)
    expected = iqm(test, reference)
    torch.set_float32_matmul_precision("medium")
    outside = settings()
    seen.clear()
    with ThreadPoolExecutor(8) as pool:
        scores = list(pool.map(lambda _: iqm(test, reference), range(64)))
    assert all(torch.equal(score, expected) for score in scores)
    assert len(seen) == 2 * 64
    assert all(strict for strict, _ in seen)
    assert settings() == outside


@needs_backend_settings
@pytest.mark.parametrize("above", ["all", "cudnn"])
def test_a_setting_that_follows_another_one_goes_on_following_it(above: str) -> None:
    owner = {"all": BACKENDS, "cudnn": BACKENDS.cudnn}[above]
    for own in (BACKENDS.cudnn.conv, BACKENDS.cudnn.rnn, BACKENDS.cuda.matmul, BACKENDS.mkldnn.conv):
        own.fp32_precision = "none"
    owner.fp32_precision = "tf32"
    outside = newer()
    for kind in ("cpu", "cuda"):
        with strict_float32(kind):
            assert is_strict(kind)
        assert newer() == outside
    owner.fp32_precision = "ieee"
    assert is_strict("cuda")
    owner.fp32_precision = "tf32"
    BACKENDS.cudnn.conv.fp32_precision = "tf32"  # of its own, and so not followed by what is above
    with strict_float32("cuda"):
        pass
    owner.fp32_precision = "ieee"
    assert newer()["cudnn.conv"] == "tf32"


def test_what_the_caller_sets_inside_stays() -> None:
    BACKENDS.cudnn.allow_tf32 = False
    with strict_float32("cuda"):
        torch.set_float32_matmul_precision("high")
        with strict_float32("cuda"), strict_float32("cpu"):
            pass
    assert torch.get_float32_matmul_precision() == "high"
    torch.set_float32_matmul_precision("medium")
    with strict_float32("cuda"), BACKENDS.cudnn.flags(enabled=True, allow_tf32=False):
        assert is_strict("cuda")
    assert torch.get_float32_matmul_precision() == "medium"


def test_tf32_is_for_convolutions_and_only_while_no_other_thread_is_strict() -> None:
    torch.set_float32_matmul_precision("high")
    outside = settings()

    def strictly() -> None:
        with strict_float32("cuda"):
            assert is_strict("cuda")

    with strict_float32("cuda"):
        with reduced("cuda", "tf32"):
            inside = older()
            assert inside["convolutions"] is True
            assert inside["products"] is False
            in_thread(strictly)
            assert older() == inside
            with strict_float32("cuda"):
                assert is_strict("cuda")
            assert older() == inside
        assert is_strict("cuda")
    assert settings() == outside


def test_blocks_may_end_in_any_order() -> None:
    torch.set_float32_matmul_precision("high")
    outside = settings()
    first, second = strict_float32("cuda"), reduced("cuda", "tf32")
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    in_thread(lambda: second.__exit__(None, None, None))  # as a generator that another thread closes
    assert settings() == outside


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork")
def test_a_forked_process_has_nothing_of_other_threads() -> None:
    torch.set_float32_matmul_precision("high")
    inside, over = threading.Event(), threading.Event()

    def strictly() -> None:
        with strict_float32("cuda"):
            inside.set()
            assert over.wait(60)

    thread = threading.Thread(target=strictly)
    thread.start()
    assert inside.wait(60)
    child = os.fork()
    if child == 0:  # pytest must not see what happens here
        os._exit(0 if torch.get_float32_matmul_precision() == "high" else 1)
    _, status = os.waitpid(child, 0)
    over.set()
    thread.join(60)
    assert os.waitstatus_to_exitcode(status) == 0
    assert torch.get_float32_matmul_precision() == "high"


def test_half_precision_is_widened() -> None:
    for dtype in (torch.float16, torch.bfloat16):
        assert at_least_float32(torch.ones(1, dtype=dtype)).dtype == torch.float32
    for dtype in (torch.float32, torch.float64, torch.uint8):
        assert at_least_float32(torch.ones(1, dtype=dtype)).dtype == dtype


@pytest.mark.gpu
def test_tf32_is_off_inside() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device here")
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(256, 256, generator=generator)
    exact = a.double() @ a.double()
    torch.set_float32_matmul_precision("high")
    with strict_float32("cuda"):
        product = (a.cuda() @ a.cuda()).cpu()
    # float32 sums of 256 products of size 1 round at about 1e-5; TF32 is off by 1e-2.
    assert (product.double() - exact).abs().max() < 2e-4


def test_reduced_precision_is_near_recorded_and_refused_by_others() -> None:
    state = seeded_state(blank_network("alexnet"), seed=0)
    layers = ["conv1", "conv2"]
    full = FeatureExtractor("alexnet", weights=state, layers=layers)
    coarse = FeatureExtractor("alexnet", weights=state, layers=layers, precision="bfloat16")
    images = torch.rand(1, 3, 96, 112, generator=torch.Generator().manual_seed(0))
    for layer, maps in coarse(images).items():
        reference = full(images)[layer]
        assert maps.dtype == torch.float32
        error = float((maps - reference).norm() / reference.norm())
        assert 1e-4 < error < 2e-2  # 8 bits of mantissa, and sums of hundreds of products
    scorer = MapScorer(coarse)
    assert scorer.options()["precision"] == "bfloat16"
    metric = SelectedFeatureIQM(coarse, ["conv1:3"])
    assert metric.source["precision"] == "bfloat16"
    with pytest.raises(InputError, match="precision must be one of float32, tf32, bfloat16, got 'half'"):
        FeatureExtractor("alexnet", weights=state, precision="half")  # type: ignore[arg-type]


@pytest.mark.parametrize("precision", ["tf32", "bfloat16"])
def test_maps_of_reduced_precision_come_in_rows_on_gpus(device: torch.device, precision: Any) -> None:
    state = seeded_state(blank_network("alexnet"), seed=0)
    extractor = FeatureExtractor("alexnet", weights=state, layers=["conv1", "conv2"], precision=precision).to(device)
    images = torch.rand(2, 3, 96, 112, generator=torch.Generator().manual_seed(0)).to(device)
    if device.type == "cuda":
        assert extractor.normalize(images).is_contiguous(memory_format=torch.channels_last)
        assert all(maps.is_contiguous() for maps in extractor(images).values())
    full = FeatureExtractor("alexnet", weights=state, layers=["conv1", "conv2"]).to(device)
    for layer, maps in extractor(images).items():
        reference = full(images)[layer]
        assert (maps - reference).norm() < 2e-2 * reference.norm()  # see above
