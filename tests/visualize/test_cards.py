"""Cards of chosen maps, and the page that holds them."""

from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch

import fmiqa
from fmiqa import FeatureExtractor, InputError, MapIndex, ResumeError, ScoreMatrix, SelectedFeatureIQM, Selection
from fmiqa.datasets import Demo
from fmiqa.report import write_report
from fmiqa.visualize import Cards, PlantedConcepts, map_cards

pytestmark = pytest.mark.filterwarnings("ignore:.*random weights")
FAST: dict[str, Any] = {"stride": 10, "samples": 1, "steps": 2, "patches": 2}


@pytest.fixture(scope="module")
def demo() -> Demo:
    return Demo(references=4, size=96, levels=2)


@pytest.fixture(scope="module")
def extractor() -> FeatureExtractor:
    return FeatureExtractor("alexnet", weights=None, layers=["conv1", "conv2"])


@pytest.fixture(scope="module")
def scores(demo: Demo, extractor: FeatureExtractor) -> ScoreMatrix:
    return fmiqa.score_matrix(extractor, demo, maps=[f"conv1:{c}" for c in range(12)] + ["conv2:142"])


@pytest.fixture(scope="module")
def selection(scores: ScoreMatrix) -> Selection:
    return fmiqa.forward_select(scores, max_maps=3)


@pytest.fixture(scope="module")
def cards(selection: Selection, extractor: FeatureExtractor, demo: Demo) -> Cards:
    return map_cards(selection, extractor, demo, concepts=PlantedConcepts(count=6, size=64), **FAST)


class Page(HTMLParser):
    """What a page holds: its images' alternative texts, and all that it refers to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.alts: list[str | None] = []
        self.links: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if tag == "img":
            self.alts.append(found.get("alt"))
        self.links += [v for k in ("src", "href") if (v := found.get(k))]
        if tag not in ("img", "meta", "link", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_a_card_says_and_shows_everything(cards: Cards, selection: Selection) -> None:
    assert [card.map for card in cards] == list(selection.maps)
    for number, card in enumerate(cards, 1):
        facts = dict(card.facts)
        assert facts["selected"].startswith(f"in step {number} of {len(selection)}")
        assert "in sample" in facts["selected"]
        assert set(facts) == {"selected", "concept", "mean activation"}
        # Its own picture, two exemplars, relevance and lost quality on two images each.
        assert len(card.pictures) == 1 + 2 + 2 + 2
        assert all(p.alt and p.caption and p.image.shape[0] == 3 for p in card.pictures)


def test_cards_show_in_notebooks(cards: Cards) -> None:
    page = Page(cards._repr_html_())
    assert not page.open
    assert len(page.alts) == 7 * len(cards)
    assert Page(cards[0]._repr_html_()).alts == page.alts[:7]


def test_the_page_is_whole_and_asks_nothing(
    cards: Cards, selection: Selection, scores: ScoreMatrix, tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    validation = fmiqa.cross_validate(scores, folds=2, max_maps=3)
    qualities = {"chosen": selection.combine(scores), "all maps": scores.pool()}
    comparison = fmiqa.compare(qualities, scores.targets, scores.groups, resamples=20)
    write_report(tmp_path / "report.html", selection, scores, cards, validation=validation, comparison=comparison)
    text = (tmp_path / "report.html").read_text()
    page = Page(text)
    assert not page.open
    assert all(page.alts)
    assert len(page.alts) == 4 + 7 * len(cards)
    assert all(link.startswith("data:") for link in page.links)
    assert "http" not in re.sub(r"base64,[A-Za-z0-9+/=]+", "", text)
    for words in ("in sample", "Held out", "all maps", f"PLCC {selection.value:.4f}", str(selection.maps[0])):
        assert words in text
    assert f"{float(validation.all_plcc.mean()):.4f}" in text


def test_the_page_refuses_other_images_and_other_searches(
    cards: Cards, selection: Selection, scores: ScoreMatrix, tmp_path: Path
) -> None:
    page = tmp_path / "report.html"
    with pytest.raises(InputError, match=r"made on 48 images of .*, the score matrix is of 20"):
        write_report(page, selection, scores.rows(range(20)), cards)
    ranks = fmiqa.cross_validate(scores, folds=2, max_maps=2, criterion="srocc")
    with pytest.raises(InputError, match="criterion: plcc here, srocc in the validation"):
        write_report(page, selection, scores, cards, validation=ranks)
    weighted = fmiqa.weighted_select(scores, folds=2)
    folds = fmiqa.cross_validate(scores, folds=2, max_maps=2)
    with pytest.raises(InputError, match="search: weighted here, forward"):
        write_report(page, weighted, scores, cards, validation=folds)
    assert not page.exists()


def test_a_weighted_selection_has_shares_instead_of_steps(
    extractor: FeatureExtractor, demo: Demo, scores: ScoreMatrix, tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    weighted = fmiqa.weighted_select(scores, folds=2)
    found = map_cards(weighted, extractor, demo, concepts=PlantedConcepts(count=2, size=64), **FAST)
    assert all("of all" in dict(card.facts)["weight"] for card in found)
    write_report(tmp_path / "report.html", weighted, scores, found)
    assert "<h2>Weights</h2>" in (tmp_path / "report.html").read_text()


def test_joined_sources_are_looked_at_with_their_own_networks(demo: Demo, extractor: FeatureExtractor) -> None:
    half = FeatureExtractor("alexnet", weights=None, layers=["conv1"], viewing=fmiqa.Viewing(factor=0.75))
    matrices = {
        "full": fmiqa.score_matrix(extractor, demo, maps=["conv1:1", "conv1:2", "conv1:44"]),
        "half": fmiqa.score_matrix(half, demo, maps=["conv1:1", "conv1:44"]),
    }
    joined = ScoreMatrix.concat(matrices)
    selection = fmiqa.forward_select(joined, max_maps=1, start=["half/conv1:1", "full/conv1:2"])
    networks = {"full": extractor, "half": half}
    found = map_cards(selection, networks, demo, concepts=PlantedConcepts(count=2, size=64), **FAST)
    assert [str(c.map) for c in found] == [str(m) for m in selection.maps]
    assert [p.image.shape[1] for p in found[0].pictures[-4:]] == [72] * 4  # of 96 pixels, seen at .75
    with pytest.raises(InputError, match="missing: half"):
        map_cards(selection, {"full": extractor}, demo)


def test_finished_steps_are_taken_up(
    selection: Selection, extractor: FeatureExtractor, demo: Demo, cards: Cards, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    concepts = PlantedConcepts(count=6, size=64)
    options = {**FAST, "concepts": concepts, "work": tmp_path / "work"}
    first = map_cards(selection, extractor, demo, **options)
    for name in ("maximize_activation", "dissect"):
        monkeypatch.setattr(f"fmiqa.visualize.cards.{name}", lambda *_, **__: pytest.fail("ran again"))
    monkeypatch.setattr("fmiqa.visualize.difference.Replay", lambda *_, **__: pytest.fail("ran again"))
    again = map_cards(selection, extractor, demo, **options)
    for a, b, c in zip(first, again, cards, strict=True):
        assert a.facts == b.facts == c.facts
        assert all(torch.equal(x.image, y.image) for x, y in zip(a.pictures, b.pictures, strict=True))
    with pytest.raises(ResumeError, match="other images"):
        map_cards(selection, extractor, Demo(references=3, size=96, levels=2), **options)
    with pytest.raises(ResumeError, match="other concepts"):
        map_cards(selection, extractor, demo, **{**options, "concepts": PlantedConcepts(count=6, size=64, seed=1)})
    with pytest.raises(ResumeError, match="other seed"):
        map_cards(selection, extractor, demo, **{**options, "seed": 1})


def test_the_metric_and_the_cards_agree_on_the_maps(cards: Cards, selection: Selection) -> None:
    metric = SelectedFeatureIQM(FeatureExtractor("alexnet", weights=None), selection.maps)
    assert MapIndex(card.map for card in cards) == metric.maps


@pytest.mark.parametrize(("width", "height"), [(1280, 900), (390, 844)])
def test_the_page_in_a_browser(
    cards: Cards, selection: Selection, scores: ScoreMatrix, tmp_path: Path, width: int, height: int,
    open_page: Callable[..., Any],
) -> None:  # fmt: skip
    pytest.importorskip("matplotlib")
    write_report(tmp_path / "report.html", selection, scores, cards)
    page = open_page(tmp_path / "report.html", width, height)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("document.images.length") == 4 + 7 * len(cards)
    assert page.evaluate("[...document.images].filter(i => !i.complete || !i.naturalWidth).length") == 0
