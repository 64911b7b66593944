"""The ready-made metrics that ship with the package."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

import fmiqa
from fmiqa import Viewing
from fmiqa.cli import main
from fmiqa.features.checkpoints import seeded_state
from fmiqa.features.networks import blank_network
from fmiqa.zoo.card import FOLDER
from fmiqa.zoo.ready import WORDS

BUNDLED = [name for name in fmiqa.list_metrics() if fmiqa.Card.load(name).bundled]


def pictures(*sigmas: float, size: tuple[int, int] = (96, 128)) -> tuple[torch.Tensor, torch.Tensor]:
    """A smooth picture with noise of some strengths, and the picture."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, 3, 6, 8, generator=generator)
    reference = torch.nn.functional.interpolate(coarse, size=size, mode="bicubic").clamp(0, 1)
    noise = torch.randn(1, 3, *size, generator=generator)
    return torch.cat([(reference + sigma * noise).clamp(0, 1) for sigma in sigmas]), reference


def viewings(iqm: fmiqa.ReadyMetric) -> dict[str, dict[str, float]]:
    """How each source of a metric sees pictures."""
    return {source: options["viewing"] for source, options in iqm.source["sources"].items()}


@pytest.mark.parametrize("name", fmiqa.list_metrics())
def test_every_card_is_whole(name: str) -> None:
    card = fmiqa.Card.load(name)
    assert card.name == name
    assert len(card.selection) > 0
    assert {row["protocol"] for row in card.figures} >= {"IN SAMPLE", "transfer", "5 folds of whole references"}
    assert "BSD-3-Clause" in card.licence
    assert (FOLDER / f"{name}.md").read_text("utf-8") == card.markdown()
    for figure in card.figures:
        assert 0 < figure["plcc"] < 1
    assert card.scale["low"] < card.scale["high"]


@pytest.mark.parametrize("name", BUNDLED)
def test_falls_as_a_distortion_grows_and_is_one_without(name: str) -> None:
    iqm = fmiqa.load_metric(name)
    test, reference = pictures(0.0, 0.02, 0.05, 0.1, 0.2)
    quality = iqm(test, reference)
    # SSIM of equal maps is 1 by construction; the weighted mean of ones rounds in float64.
    torch.testing.assert_close(quality[0], torch.ones_like(quality[0]), rtol=1e-6, atol=0)
    assert bool((quality.diff() < 0).all())
    rating = iqm.rate(test, reference)
    assert float(rating.score[0]) == pytest.approx(100, abs=1e-3)  # the slope of the scale times that rounding
    assert bool((rating.score.diff() < 0).all())
    assert bool((rating.low <= rating.score).all() and (rating.score <= rating.high).all())
    assert rating.words[0] == "imperceptible"
    assert WORDS.index(rating.words[-1]) < WORDS.index(rating.words[0])


@pytest.mark.parametrize("name", BUNDLED)
def test_works_offline_with_weights_of_a_few_hundred_kilobytes(name: str) -> None:
    iqm = fmiqa.load_metric(name)
    stored = sum(value.numel() for scorer in iqm.scorers for value in scorer.extractor.network.state_dict().values())  # type: ignore[union-attr,operator]
    assert (FOLDER / f"{name}.safetensors").stat().st_size < 1_000_000
    assert stored > 0


@pytest.mark.parametrize("name", BUNDLED)
def test_gradients_are_finite_at_the_reference_and_on_constant_images(name: str) -> None:
    iqm = fmiqa.load_metric(name)
    _, reference = pictures(0.1)
    for picture in (reference, torch.zeros_like(reference), torch.full_like(reference, 0.5)):
        test = picture.clone().requires_grad_()
        (1 - iqm(test, picture)).sum().backward()
        assert test.grad is not None
        assert bool(test.grad.isfinite().all())


def test_pictures_of_any_size_are_seen_at_one_size() -> None:
    iqm = fmiqa.load_metric("fast")
    test, reference = pictures(0.1, size=(384, 512))
    larger = [torch.nn.functional.interpolate(v, scale_factor=2, mode="nearest") for v in (test, reference)]
    # Halving the doubled picture averages equal pixels but for the antialiasing filter's reach into neighbours.
    assert float(iqm(*larger)) == pytest.approx(float(iqm(test, reference)), abs=0.05)
    assert "short side 384" in iqm.signature


def test_another_viewing_keeps_the_proportion_of_scales() -> None:
    own = fmiqa.load_metric("fast").signature
    asked = fmiqa.load_metric("fast", viewing=Viewing(short_side=256))
    sides = {source: view["short_side"] for source, view in viewings(asked).items()}
    base = {source: view["short_side"] for source, view in viewings(fmiqa.load_metric("fast")).items()}
    assert {source: round(256 * side / 384) for source, side in base.items()} == sides
    angular = fmiqa.load_metric("fast", viewing=Viewing(pixels_per_degree=20, native_pixels_per_degree=40))
    for source, view in viewings(angular).items():
        assert view["pixels_per_degree"] == pytest.approx(20 * base[source] / 384)
    assert asked.signature != own


def test_a_ready_metric_is_saved_as_any_metric(tmp_path: Path) -> None:
    iqm = fmiqa.load_metric("fast")
    iqm.save(tmp_path / "metric.safetensors")
    loaded = fmiqa.SelectedFeatureIQM.load(tmp_path / "metric.safetensors")
    test, reference = pictures(0.1)
    assert torch.equal(iqm(test, reference), loaded(test, reference))


def test_errors_say_what_to_do() -> None:
    with pytest.raises(fmiqa.InputError, match="no ready-made metric 'best': there are accurate, fast, paper"):
        fmiqa.load_metric("best")
    with pytest.raises(fmiqa.InputError, match="'fast' brings its weights"):
        fmiqa.load_metric("fast", weights={"alexnet": "alexnet.pth"})
    with pytest.raises(fmiqa.InputError, match="needs weights of"):
        fmiqa.load_metric("accurate", weights="alexnet.pth")
    state = seeded_state(blank_network("alexnet"), 0)
    with pytest.raises(fmiqa.WeightsError, match="selected with other weights of alexnet"):
        fmiqa.load_metric("paper", weights={"alexnet": state})


def test_the_command_line_lists_and_prints_cards(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["metrics"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in fmiqa.list_metrics())
    assert main(["metrics", "fast"]) == 0
    assert capsys.readouterr().out.strip() == fmiqa.Card.load("fast").markdown().strip()


@pytest.mark.slow
def test_the_script_gives_what_ships() -> None:
    """Needs the folders of the data, as `benchmarks/zoo.py` takes them, in FMIQA_ZOO_ARGUMENTS."""
    arguments = os.environ.get("FMIQA_ZOO_ARGUMENTS")
    if not arguments:
        pytest.skip("FMIQA_ZOO_ARGUMENTS does not name the data")
    script = Path(__file__).parent.parent / "benchmarks" / "zoo.py"
    subprocess.run([sys.executable, str(script), *arguments.split(), "--check"], check=True)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A reference and two test images, the second worse, as files."""
    test, reference = pictures(0.05, 0.2)
    monkeypatch.chdir(tmp_path)
    names = ["reference.png", "good.png", "bad.png"]
    for name, image in zip(names, (*reference, *test), strict=True):
        Image.fromarray((255 * image).round().byte().permute(1, 2, 0).numpy()).save(name)
    return names


def test_score_needs_no_metric_and_rates(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["score", "--reference", *files, "--csv", "scores.csv"]) == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [cells[0] for cells in lines] == files[1:]
    iqm = fmiqa.load_metric()
    reference, *tests = (fmiqa.datasets.read_image(name)[None] for name in files)
    table = list(csv.DictReader(Path("scores.csv").read_text().splitlines()))
    for cells, row, image in zip(lines, table, tests, strict=True):
        rating = iqm.rate(image, reference)
        assert float(cells[1]) == pytest.approx(float(iqm(image, reference)), abs=1e-5)  # six digits are printed
        assert cells[2] == f"{float(rating.score):.0f}"
        assert cells[4] == row["words"] == rating.words[0]
        assert float(row["low"]) <= float(row["rating"]) <= float(row["high"])
    assert float(table[0]["rating"]) > float(table[1]["rating"])


def test_score_says_which_metric_it_used(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["score", "--reference", *files, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["metric"] == fmiqa.load_metric().signature


def test_a_metric_that_is_neither_a_file_nor_a_name_is_explained(
    files: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["score", "--metric", "fastest", "--reference", *files]) == 1
    assert (
        "fastest is neither a file nor a ready-made metric: there are accurate, fast, paper" in capsys.readouterr().err
    )
    assert main(["score", "--metric", "paper", "--weights", "missing.pth", "--reference", *files]) == 1
    assert "missing.pth" in capsys.readouterr().err
