"""`fmiqa validate`: its figures are the library's, and it says which of them to trust."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from fmiqa import (
    MapIndex,
    ScoreMatrix,
    Selection,
    Validation,
    beam_select,
    cli,
    cross_validate,
    forward_select,
    grouped_folds,
    held_out,
    permutation_null,
    stability_selection,
    weighted_select,
)
from fmiqa._tables import text_table


@pytest.fixture(scope="module")
def scores(numbers_file: Path) -> ScoreMatrix:
    return ScoreMatrix.load(numbers_file)


def test_the_curves_are_those_of_cross_validation(
    numbers_file: Path, scores: ScoreMatrix, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, plot = tmp_path / "v.json", tmp_path / "v.png"
    asked = ["--folds", "4", "--repeats", "2", "--seed", "3", "--max-maps", "5", "--fit", "none"]
    asked += ["--pool", "layer_geometric"]
    files = ["--out", str(out), "--plot", str(plot)]
    assert cli.main(["validate", str(numbers_file), *asked, *files, "--json"]) == 0
    printed, saved = json.loads(capsys.readouterr().out), Validation.load(out)
    expected = cross_validate(scores, folds=4, repeats=2, seed=3, max_maps=5, fit=None, pool="layer_geometric")
    assert saved.selected == expected.selected
    assert saved.options == expected.options
    assert torch.equal(saved.plcc, expected.plcc)
    assert printed["in_sample"] == expected.in_sample.mean(0).tolist()
    assert printed["held_out_plcc"] == expected.mean.tolist()
    assert printed["standard_error"] == expected.standard_error.tolist()
    assert printed["held_out_srocc"] == expected.srocc.mean(0).tolist()
    assert printed["all_maps"]["plcc"] == float(expected.all_plcc.mean())
    assert printed["one_standard_error_size"] == expected.one_standard_error_size
    assert printed["files"] == {"out": str(out), "plot": str(plot)}
    with Image.open(plot) as picture:
        assert picture.width > 600


def test_the_table_is_printed_with_the_size_and_the_figure_to_trust(
    numbers_file: Path, scores: ScoreMatrix, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["validate", str(numbers_file), "--folds", "leave_one_out"]) == 0
    printed = capsys.readouterr().out
    expected = cross_validate(scores, folds="leave_one_out")
    assert text_table(expected.table()) in printed
    assert f"one-standard-error size: {expected.one_standard_error_size}," in printed
    assert "Held out is the figure to trust" in printed
    assert "held out by reference (10 in all)" in printed


@pytest.mark.parametrize(
    ("asked", "select"),
    [
        (["--search", "weighted"], weighted_select),
        (["--search", "beam", "--max-maps", "2"], lambda part: beam_select(part, max_maps=2)),
    ],
)
def test_other_searches_are_held_out_whole(
    asked: list[str],
    select: Any,
    numbers_file: Path,
    scores: ScoreMatrix,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "v.json"
    command = ["validate", str(numbers_file), *asked, "--folds", "3", "--seed", "1", "--out", str(out)]
    assert cli.main([*command, "--json"]) == 0
    printed, saved = json.loads(capsys.readouterr().out), json.loads(out.read_text())
    expected = held_out(scores, select, splits=grouped_folds(scores.groups, folds=3, seed=1))
    for name, values in (("held_out_plcc", expected.plcc), ("held_out_srocc", expected.srocc)):
        assert printed[name] == [values.mean().item(), (values.std() / 3**0.5).item()]
    assert printed["maps"] == [len(maps) for maps in expected.selected]
    assert saved["plcc"] == expected.plcc.tolist()
    assert saved["predictions"] == expected.predictions.tolist()
    assert cli.main(command) == 0
    text = capsys.readouterr().out
    assert f"{expected.plcc.mean():.4f}" in text
    assert "Held out is the figure to trust" in text


def test_weights_are_tuned_on_groups_of_the_kind_held_out(
    scores: ScoreMatrix, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "s.safetensors"
    scores = replace(scores, distortions=[f"d{i % 8}" for i in range(80)])
    scores.save(path)
    asked = ["--search", "weighted", "--groups", "distortion", "--folds", "4", "--rule", "best"]
    assert cli.main(["validate", str(path), *asked, "--json"]) == 0
    expected = held_out(
        scores,
        lambda part: weighted_select(part, groups="distortion", rule="best"),
        splits=grouped_folds(scores.distortions or [], folds=4),
    )
    assert json.loads(capsys.readouterr().out)["held_out_plcc"][0] == expected.plcc.mean().item()


def test_null_and_stability_are_the_library_s(
    numbers_file: Path, scores: ScoreMatrix, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["--max-maps", "3", "--criterion", "srocc", "--seed", "2", "--null", "9", "--stability", "6"]
    assert cli.main(["validate", str(numbers_file), *asked, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    null = permutation_null(scores, permutations=9, seed=2, max_maps=3, criterion="srocc")
    stable = stability_selection(scores, subsamples=6, seed=2, max_maps=3, criterion="srocc")
    assert printed["null"]["p_value"] == null.p_value
    assert printed["null"]["null"] == null.null[:, -1].tolist()
    assert printed["stability"]["value"] == stable.stability.value.item()
    chosen = {str(m): f for m, f in zip(stable.maps, stable.frequency.tolist(), strict=True) if f > 0}
    assert printed["stability"]["frequency"] == chosen
    assert next(iter(printed["stability"]["frequency"])) == str(stable.stable()[0])
    assert cli.main(["validate", str(numbers_file), *asked]) == 0
    text = capsys.readouterr().out
    assert str(null) in " ".join(text.split())
    assert f"{stable.stability.value:.3f} [{stable.stability.low:.3f}, {stable.stability.high:.3f}]" in text


def test_joined_matrices_are_validated_as_one(
    numbers_file: Path, scores: ScoreMatrix, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [f"a={numbers_file}", f"b={numbers_file}"]
    assert cli.main(["validate", *given, "--max-maps", "2", "--groups", "distortion", "--folds", "2", "--json"]) == 0
    expected = cross_validate(ScoreMatrix.concat({"a": scores, "b": scores}), groups="distortion", folds=2, max_maps=2)
    assert json.loads(capsys.readouterr().out)["held_out_plcc"] == expected.mean.tolist()


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (["--folds", "20"], "folds is from 2 to the number of groups (10)"),
        (["--plot", "v.docx"], "docx"),
        (["--out", "FILE/v.json", "--max-maps", "1"], "FILE"),
    ],
)
def test_errors_are_explained(
    asked: list[str],
    message: str,
    numbers_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("FILE").write_text("")
    assert cli.main(["validate", str(numbers_file), *asked]) == 1
    assert message in capsys.readouterr().err


def test_distortions_that_are_not_there_are_missed(
    scores: ScoreMatrix, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    replace(scores, distortions=None).save(tmp_path / "s.safetensors")
    assert cli.main(["validate", str(tmp_path / "s.safetensors"), "--groups", "distortion"]) == 1
    assert "no distortion types" in capsys.readouterr().err


def test_matrices_of_other_images_are_several_data_sets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    generator = torch.Generator().manual_seed(0)
    for name in ("one", "other"):
        values = torch.rand(40, 4, generator=generator)
        values[:, 2] += torch.arange(40) % 8
        groups, names = [f"{name}{i // 8}" for i in range(40)], [f"{name}-{i}" for i in range(40)]
        maps = MapIndex.of_layers({"map": 4})
        matrix = ScoreMatrix(values, maps, values[:, 2].double() + torch.rand(40), groups, names)
        matrix.save(tmp_path / f"{name}.safetensors")
    files = [str(tmp_path / f"{name}.safetensors") for name in ("one", "other")]
    assert cli.main(["validate", *files, "--groups", "dataset", "--folds", "leave_one_out", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found["by_dataset"]) == {"one", "other"}
    assert cli.main(["select", *files, "--across", "worst", "--out", str(tmp_path / "selected.json")]) == 0
    selection = Selection.load(tmp_path / "selected.json")
    stacked = {name: ScoreMatrix.load(file) for name, file in zip(("one", "other"), files, strict=True)}
    assert selection.maps == forward_select(stacked, across="worst").maps
    assert str(selection.maps[0]) == "map:2"
