"""The page of an explanation in a browser."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import fmiqa

Open = Callable[..., Any]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("explanation") / "page.html"
    generator = torch.Generator().manual_seed(0)
    reference = torch.rand(3, 96, 128, generator=generator)
    test = reference.clone()
    test[:, 40:, 60:] = 0.5
    fmiqa.explain(test, reference, maps=4, names=("a-name-that-is-long-" * 6, "reference.png")).write(path)
    return path


def left_of_test(page: Any) -> str:
    """What is cut off at the left of the test image."""
    return str(page.evaluate("getComputedStyle(document.querySelector('.test')).clipPath"))


@pytest.mark.parametrize(("width", "height"), [(1280, 900), (390, 844), (360, 640)])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_and_can_be_touched(written: Path, open_page: Open, width: int, height: int, scheme: str) -> None:
    page = open_page(written, width, height, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("[...document.images].filter(i => !i.complete || !i.naturalWidth).length") == 0
    sizes = page.evaluate("[...document.querySelectorAll('button, input[type=range], summary, .controls label')]"
                          ".map(e => e.getBoundingClientRect()).map(box => [box.width, box.height])")  # fmt: skip
    assert len(sizes) == 5 + 2 + 1 + 2
    assert min(min(size) for size in sizes) >= 44
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"
    assert dark == (scheme == "dark")


def test_the_slider_moves_by_keys_and_by_dragging(written: Path, open_page: Open) -> None:
    page = open_page(written, 1280, 900)
    assert left_of_test(page) == "inset(0px 0px 0px 50%)"
    page.locator("#divide").focus()
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"  # it is seen where one is
    page.keyboard.press("ArrowRight")
    assert left_of_test(page) == "inset(0px 0px 0px 51%)"
    page.keyboard.press("Home")
    assert left_of_test(page) == "inset(0px 0px 0px 0%)"
    box = page.locator("#stage").bounding_box()
    page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.75 * box["width"], box["y"] + 40)
    page.mouse.up()
    page.mouse.move(box["x"] + 0.1 * box["width"], box["y"] + 40)  # no longer dragged
    assert left_of_test(page) == "inset(0px 0px 0px 75%)"
    assert page.locator("#divide").input_value() == "75"


def test_the_slider_moves_by_touch(written: Path, open_page: Open) -> None:
    page = open_page(written, 390, 844, has_touch=True)
    box = page.locator("#stage").bounding_box()
    page.touchscreen.tap(box["x"] + 0.25 * box["width"], box["y"] + 40)
    assert left_of_test(page) == "inset(0px 0px 0px 25%)"


def test_a_map_is_picked_and_its_overlay_shown(written: Path, open_page: Open) -> None:
    page = open_page(written, 1280, 900)
    shown = "document.querySelector('#stage .heat').src"
    buttons = page.locator(".maps button")
    assert page.evaluate(shown) == page.locator(".all img").get_attribute("src")
    buttons.nth(2).focus()
    page.keyboard.press("Enter")
    assert page.evaluate(shown) == page.locator("li img").nth(1).get_attribute("src")
    pressed = [buttons.nth(i).get_attribute("aria-pressed") for i in range(5)]
    assert pressed == ["false", "false", "true", "false", "false"]
    words = page.locator("li .detects").nth(1).inner_text()
    assert words[1:] in page.locator("#said").inner_text()
    assert page.locator("#limit").inner_text() == buttons.nth(2).get_attribute("data-limit")
    buttons.nth(0).click()
    assert page.evaluate(shown) == page.locator(".all img").get_attribute("src")


def test_the_overlay_is_taken_off_and_made_fainter(written: Path, open_page: Open) -> None:
    page = open_page(written, 1280, 900)
    heat = page.locator("#stage .heat")
    assert heat.is_visible()
    page.get_by_label("Colour where quality is lost").uncheck()
    assert not heat.is_visible()
    page.locator(".maps button").nth(1).click()  # who picks a map wants to see it
    assert heat.is_visible()
    assert page.get_by_label("Colour where quality is lost").is_checked()
    page.get_by_label("Strength").fill("20")
    assert heat.evaluate("e => getComputedStyle(e).opacity") == "0.2"


def test_it_can_be_read_without_scripts(written: Path, open_page: Open) -> None:
    page = open_page(written, 390, 844, java_script_enabled=False)
    assert page.locator("#stage figcaption").all_inner_texts()[0] == "Reference: reference.png"
    assert page.locator("li").count() == 4
    assert page.locator("#stage .heat").is_visible()
    assert page.locator("li img").nth(3).is_visible()
    assert not page.locator(".maps button").first.is_visible()  # what would do nothing is not there
    assert not page.locator("#divide").is_visible()
    both = [page.locator(f".{side}").bounding_box() for side in ("reference", "test")]
    assert both[0]["y"] + both[0]["height"] <= both[1]["y"]
