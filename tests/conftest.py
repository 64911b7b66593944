"""Fixtures shared by all tests: devices, and the folder of real data where it is at hand."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from pretended_cuda.device import current

pytest_plugins = ["pretended_cuda.plugin"]

with contextlib.suppress(ImportError):
    import matplotlib as mpl

    mpl.use("Agg")

settings.register_profile("fmiqa", deadline=None, derandomize=True, max_examples=40)
settings.load_profile("fmiqa")


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> torch.device:
    """Every device at hand."""
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device here")
    pretended = current()
    return torch.device(request.param) if pretended is None else torch.device(pretended.device.type)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real images, scores and weights: $FMIQA_SHARED, or `shared` beside the checkout."""
    folder = Path(os.environ.get("FMIQA_SHARED", Path(__file__).parents[2] / "shared"))
    if not (folder / "weights" / "alexnet_features.pth").exists():
        pytest.skip(f"no real data and weights in {folder} (set FMIQA_SHARED)")
    return folder
