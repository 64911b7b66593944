"""`pytest --pretend-cuda -m gpu`: tests that need a CUDA device run on a pretended one, where there is none.

Every such test gets a device of its own, and its log by the fixture `log`. What cannot be pretended is listed below.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pytest
import torch

from .device import compiled_as_one_kernel, current, device_type, pretended_cuda
from .log import Log


class NotPretended(NamedTuple):
    """Why a test cannot pass on a pretended device, and how it fails there."""

    reason: str
    error: type[Exception]


NOT_PRETENDED = {
    "tests/runtime/test_distributed.py::test_a_group_on_a_device": NotPretended("NCCL asks the driver", ValueError),
}
"""A listed test that passes fails, so that it is taken off the list."""

WITH_GRADIENTS = {
    "tests/test_metrics.py::test_a_fit_puts_scores_on_the_subjective_scale",
    "tests/test_metrics.py::test_gradients_are_finite",
    "tests/visualize/test_activation_maximization.py::test_pictures_excite_more_than_noise_and_are_the_same_each_time",
}
"""Tests with backward passes, whose device is not called cuda, see `pretended_cuda`."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--pretend-cuda", action="store_true", help="run tests marked gpu on a pretended CUDA device if there is none"
    )


def pytest_configure(config: pytest.Config) -> None:
    if _is_pretending(config):
        device_type(gradients=True)


def pytest_report_header(config: pytest.Config) -> str | None:
    if not config.getoption("pretend_cuda"):
        return None
    return "CUDA: pretended" if _is_pretending(config) else "CUDA: there is a device, so none is pretended"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items if _is_pretending(config) else ():
        listed = NOT_PRETENDED.get(_name(item))
        if listed is not None and _needs_cuda(item):
            item.add_marker(pytest.mark.xfail(reason=listed.reason, raises=listed.error, strict=True))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    if not (_is_pretending(item.config) and _needs_cuda(item)):
        return (yield)
    with pretended_cuda(gradients=_name(item) in WITH_GRADIENTS), compiled_as_one_kernel():
        return (yield)


@pytest.fixture
def log() -> Log:
    """What the pretended device of this test does."""
    found = current()
    if found is None:
        pytest.skip("runs on a pretended device alone: make test-pretended-cuda")
    return found


def _is_pretending(config: pytest.Config) -> bool:
    return bool(config.getoption("pretend_cuda")) and (current() is not None or not torch.cuda.is_available())


def _needs_cuda(item: pytest.Item) -> bool:
    return item.get_closest_marker("gpu") is not None


def _name(item: pytest.Item) -> str:
    """Its node id without parameters."""
    return item.nodeid.split("[")[0]
