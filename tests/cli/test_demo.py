"""`fmiqa demo`, on a smaller set."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest

import fmiqa
from fmiqa import MapIndex, ScoreMatrix, SelectedFeatureIQM, Selection, cli
from fmiqa.cli import demo
from fmiqa.datasets import Demo


@pytest.fixture
def small_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo at 36 images and 44 candidate maps."""
    planted = Demo(references=2, size=96, levels=1).planted
    maps = [*planted, *(m for m in MapIndex.of_layers({"conv1": 20, "conv2": 20}) if m not in planted)]
    monkeypatch.setattr(demo, "Demo", partial(Demo, size=96, levels=3))
    monkeypatch.setattr(demo, "score_matrix", partial(fmiqa.score_matrix, maps=maps))


@pytest.mark.usefixtures("small_demo")
def test_demo_finds_planted_maps_and_writes_its_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["demo", "--out", str(tmp_path), "--references", "2", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    selection = Selection.load(tmp_path / "selection.json")
    planted = {str(m) for m in Demo(references=2, size=96, levels=1).planted}
    assert set(printed["planted"]["found"]) == planted & {str(m) for m in selection.maps}
    assert set(printed["planted"]["missed"]) == planted - {str(m) for m in selection.maps}
    assert printed["observer"] == "simulated"
    assert [row["name"] for row in printed["in_sample"]] == ["selected maps", "planted maps", "all maps"]
    assert printed["in_sample"][0]["plcc"] == pytest.approx(selection.value, abs=1e-9)  # the same fit again
    # The simulated observer's own maps do best where nothing was fitted to the images.
    held_out = {row["name"]: row["plcc"] for row in printed["held_out"]}
    assert held_out["planted maps"] == max(held_out.values())
    assert all(Path(name).exists() for name in printed["files"])
    assert SelectedFeatureIQM.load(tmp_path / "metric.safetensors").maps == selection.maps
    assert len(ScoreMatrix.load(tmp_path / "scores.safetensors")) == printed["images"] == 36


@pytest.mark.usefixtures("small_demo")
def test_demo_names_the_simulated_observer_and_both_samples(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["demo", "--out", str(tmp_path), "--references", "2"]) == 0
    printed = capsys.readouterr().out
    for words in ("simulated observer", "planted maps found:", "of 4", "IN SAMPLE", "HELD OUT"):
        assert words in printed
