"""`fmiqa visualize` and `fmiqa report`: pictures of chosen maps."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from fmiqa import Selection, cli
from fmiqa.visualize import Dissection, MaximalImages, PlantedConcepts, PredictionDifference

pytest.importorskip("matplotlib")


@pytest.fixture
def pictures(study: Path) -> list[str]:
    """Two references."""
    return [str(study / "references" / f"scene0{k}.png") for k in (1, 2)]


@pytest.fixture(autouse=True)
def few_concepts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The embedded set in small."""
    small = PlantedConcepts(count=4, size=64)
    monkeypatch.setattr("fmiqa.visualize.PlantedConcepts", lambda: small)
    monkeypatch.setattr("fmiqa.visualize.cards.PlantedConcepts", lambda: small)


def test_pda_draws_and_keeps_relevance(
    selection_file: Path, pictures: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = ["--out", str(tmp_path / "looks.png"), "--save", str(tmp_path / "kept")]
    asked = ["--images", *pictures, "--stride", "10", "--samples", "1", "--weights", "random"]
    assert cli.main(["visualize", "pda", "--selection", str(selection_file), *asked, *files, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["files"] == [files[1], files[3]]
    assert Image.open(tmp_path / "looks.png").width > 400
    found = PredictionDifference.load(tmp_path / "kept" / "relevance-scene01.safetensors")
    assert found.maps == Selection.load(selection_file).maps
    assert found.relevance.shape == (3, 96, 96)
    assert found.options["sampler"] == "conditional"


def test_pda_takes_maps_by_name_and_the_cheap_sampler(pictures: list[str], tmp_path: Path) -> None:
    files = ["--out", str(tmp_path / "looks.png"), "--save", str(tmp_path)]
    asked = ["--images", pictures[0], "--fit", pictures[1], "--stride", "16", "--window", "16", "--samples", "1"]
    network = ["--network", "squeezenet1_1", "--weights", "random", "--sampler", "marginal"]
    assert cli.main(["visualize", "pda", "--maps", "features.0:3", *network, *asked, *files]) == 0
    found = PredictionDifference.load(tmp_path / "relevance-scene01.safetensors")
    assert (found.options["sampler"], found.options["window"]) == ("marginal", 16)


def test_maximize_and_dissect_draw_and_keep(
    selection_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = ["--selection", str(selection_file), "--weights", "random", "--save", str(tmp_path / "kept")]
    small = ["--steps", "2", "--size", "64"]
    assert cli.main(["visualize", "maximize", *chosen, *small, "--out", str(tmp_path / "a.svg")]) == 0
    assert MaximalImages.load(tmp_path / "kept" / "maximal.safetensors").images.shape == (3, 3, 64, 64)
    assert cli.main(["visualize", "dissect", *chosen, "--top", "2", "--out", str(tmp_path / "b.png")]) == 0
    best = Dissection.load(tmp_path / "kept" / "concepts.safetensors").best()
    said = capsys.readouterr().out
    assert all(f"{b.map}" in said and f"{b.iou:.3f}" in said for b in best)
    assert Image.open(tmp_path / "b.png").height > 300


def test_joined_selections_are_looked_at_network_by_network(
    joined_selection: Path, pictures: list[str], weights_files: dict[str, str], tmp_path: Path
) -> None:
    weights = [word for name, path in weights_files.items() for word in ("--weights", f"{name}={path}")]
    asked = ["--selection", str(joined_selection), *weights, "--images", *pictures, "--count", "2"]
    assert cli.main(["visualize", "exemplars", *asked, "--out", str(tmp_path / "patches.png")]) == 0
    assert Image.open(tmp_path / "patches.png").width > 300


def test_report_writes_one_page(
    study: Path, scores_file: Path, selection_file: Path, data_options: Callable[..., list[str]], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    data = [word for word in data_options() if word not in ("--layers", "conv1", "conv2")]
    folds = str(tmp_path / "folds.json")
    assert cli.main(["validate", str(scores_file), "--folds", "3", "--max-maps", "3", "--out", folds]) == 0
    page = tmp_path / "report.html"
    fast = ["--stride", "10", "--samples", "1", "--steps", "2", "--resamples", "20"]
    command = ["report", str(selection_file), "--matrix", str(scores_file), *data, *fast, "--validation", folds]
    assert cli.main([*command, "--out", str(page)]) == 0
    assert "3 maps; written to" in capsys.readouterr().out
    text = page.read_text()
    for map in Selection.load(selection_file).maps:
        assert f"<h3>{map}</h3>" in text
    assert "In sample: measured on" in text
    assert "Held out" in text
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folds.json", "report.html"]


def test_report_refuses_images_of_another_set(
    scores_file: Path, selection_file: Path, data_options: Callable[..., list[str]], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    data = [word for word in data_options("Other") if word not in ("--layers", "conv1", "conv2")]
    command = ["report", str(selection_file), "--matrix", str(scores_file), *data]
    assert cli.main([*command, "--out", str(tmp_path / "report.html")]) == 1
    assert "the score matrix is of Study, the images are Other" in capsys.readouterr().err


def test_a_wrong_picture_format_or_map_is_named_first(
    pictures: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["--maps", "conv9:1", "--weights", "random", "--images", *pictures]
    assert cli.main(["visualize", "exemplars", *asked, "--out", str(tmp_path / "patches.xyz")]) == 1
    assert "no picture format 'xyz'" in capsys.readouterr().err
    assert cli.main(["visualize", "exemplars", *asked, "--out", str(tmp_path / "patches.png")]) == 1
    assert "conv9" in capsys.readouterr().err
