"""Fixtures shared by all tests: devices, and the folder of real data where it is at hand."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

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


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """A browser of Playwright. Where there is none, tests are skipped, or fail if $FMIQA_REQUIRE_BROWSER is 1."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        _without_browser("the package playwright is not installed")
    program = next((p for n in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(n))), None)
    if program is None:
        _without_browser("there is no Chromium here to open pages in")
    quiet = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=program, args=quiet)
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium: Any) -> Iterator[Callable[..., Any]]:
    """Open an HTML file in a window of its own. In the end, it must have made no request and no complaint."""
    contexts: list[Any] = []
    asked: list[str] = []
    said: list[str] = []

    def open_file(path: Path, width: int, height: int, **options: Any) -> Any:
        context = chromium.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(path.as_uri())
        page.wait_for_load_state("load")
        assert asked[0] == path.as_uri()
        return page

    yield open_file
    for context in contexts:
        context.close()
    assert [url for url in asked[1:] if not url.startswith("data:")] == []
    assert said == []


def _without_browser(why: str) -> NoReturn:
    if os.environ.get("FMIQA_REQUIRE_BROWSER") == "1":
        pytest.fail(f"{why}, and FMIQA_REQUIRE_BROWSER=1")
    pytest.skip(why)
