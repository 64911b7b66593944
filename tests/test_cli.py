"""The `fmiqa` command, run in this process on small data; its installed forms once in a process of their own."""

from __future__ import annotations

import argparse
import json
import math
import shlex
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from scipy.stats import kendalltau, spearmanr

import fmiqa
from fmiqa import FeatureExtractor, MapIndex, ScoreMatrix, SelectedFeatureIQM, Selection, cli, forward_select
from fmiqa.cli import demo, options, output, select
from fmiqa.cli.results import claim
from fmiqa.datasets import CSVDataset, Demo, read_image

COMMANDS = ("demo", "matrix", "select", "evaluate", "score")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three references, 36 test images and scores.csv."""
    folder = tmp_path_factory.mktemp("study")
    Demo(references=3, size=96, levels=2).write(folder)
    return folder


@pytest.fixture(scope="module")
def scores_file(study: Path) -> Path:
    """Their score matrix at the maps of conv1 and conv2, made by the command."""
    path = study / "scores.safetensors"
    assert cli.main(["matrix", *data_options(study), "--out", str(path)]) == 0
    return path


@pytest.fixture(scope="module")
def selection_file(scores_file: Path) -> Path:
    """Three maps chosen on it, made by the command, with a metric beside."""
    path = scores_file.with_name("selected.json")
    metric = ["--metric", str(path.with_name("metric.safetensors")), "--weights", "random"]
    assert cli.main(["select", str(scores_file), "--out", str(path), "--max-maps", "3", *metric]) == 0
    return path


@pytest.fixture(scope="module")
def metric_file(selection_file: Path) -> Path:
    return selection_file.with_name("metric.safetensors")


def data_options(study: Path, name: str = "Study") -> list[str]:
    table = ["--csv", str(study / "scores.csv"), "--reference-id", "reference_id", "--image-name", "name"]
    return [*table, "--name", name, "--weights", "random", "--layers", "conv1", "conv2", "--device", "cpu"]


def network() -> FeatureExtractor:
    with pytest.warns(UserWarning, match="random weights"):
        return FeatureExtractor("alexnet", weights=None, layers=["conv1", "conv2"])


# --- matrix


def test_matrix_writes_what_the_library_computes(study: Path, scores_file: Path) -> None:
    written = ScoreMatrix.load(scores_file)
    data = CSVDataset(study / "scores.csv", reference_id="reference_id", image_name="name", name="Study")
    computed = fmiqa.score_matrix(network(), data)
    assert torch.equal(written.values, computed.values)
    assert written.options == computed.options
    assert written.options["dataset"] == "Study"
    assert (written.names, written.groups) == (computed.names, computed.groups)


def test_matrix_passes_measure_scale_and_maps_on(study: Path, tmp_path: Path) -> None:
    asked = ["--data-range", "pair", "--window", "7", "--sigma", "1.0", "--scale", "0.75"]
    asked += ["--maps", "conv2:5", "conv1:3"]
    out = tmp_path / "s.safetensors"
    assert cli.main(["matrix", *data_options(study), *asked, "--out", str(out)]) == 0
    written = ScoreMatrix.load(out)
    measure = written.options["measure"]
    assert (measure["data_range"], measure["window"], measure["sigma"]) == ("pair", 7, 1.0)
    assert written.options["viewing"] == {"factor": 0.75}
    assert written.maps == MapIndex(["conv2:5", "conv1:3"])


def test_matrix_prints_json_that_names_the_result(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "s.safetensors")
    assert cli.main(["matrix", *data_options(study), "--maps", "conv1:0", "--out", out, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["file"], printed["images"], printed["references"], printed["maps"]) == (out, 36, 3, 1)
    assert printed["options"]["network"] == "alexnet"


def test_a_finished_matrix_is_never_computed_over(
    study: Path, scores_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = scores_file.read_bytes()
    assert cli.main(["matrix", *data_options(study), "--out", str(scores_file)]) == 1
    assert "exists already" in capsys.readouterr().err
    assert scores_file.read_bytes() == before


def test_an_interrupted_matrix_goes_on_and_ends_the_same(
    study: Path,
    scores_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "s.safetensors"
    command = ["matrix", *data_options(study), "--out", str(out)]
    add, added = fmiqa.parts.Parts.add, []

    def add_and_stop(parts: object, number: int, part: dict[str, object]) -> None:
        add(parts, number, part)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    def add_and_count(parts: object, number: int, part: dict[str, object]) -> None:
        add(parts, number, part)  # type: ignore[arg-type]
        added.append(number)

    monkeypatch.setattr(fmiqa.parts.Parts, "add", add_and_stop)
    assert cli.main(command) == 130
    message = capsys.readouterr().err
    assert f"{out}.parts" in message
    assert "same command goes on" in message
    assert not out.exists()

    changed = [*command, "--data-range", "255"]
    assert cli.main(changed) == 1
    assert "other options" in capsys.readouterr().err

    monkeypatch.setattr(fmiqa.parts.Parts, "add", add_and_count)
    assert cli.main(command) == 0
    assert added == [1, 2]  # a part a reference here, the first was kept
    assert torch.equal(ScoreMatrix.load(out).values, ScoreMatrix.load(scores_file).values)
    assert not Path(f"{out}.parts").exists()


def test_an_interruption_before_the_first_part_promises_nothing(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(options, "score_matrix", stop)
    assert cli.main(["matrix", *data_options(study), "--out", str(tmp_path / "s.safetensors")]) == 130
    assert "No part was finished yet" in capsys.readouterr().err


def test_tid2013_in_part_goes_by_the_name_given(study: Path, tmp_path: Path) -> None:
    root = tmp_path / "TID2013R"
    for folder in ("reference_images", "distorted_images"):
        (root / folder).mkdir(parents=True)
    images = sorted((study / "distorted").glob("scene01_*"))[:5]
    Image.open(study / "references" / "scene01.png").save(root / "reference_images" / "I01.BMP")
    for level, image in enumerate(images, 1):
        Image.open(image).save(root / "distorted_images" / f"i01_08_{level}.bmp")
    lines = [f"{level}.5 i01_08_{level}.bmp" for level in range(1, 6)]
    (root / "mos_with_names.txt").write_text("\n".join(lines))
    out = tmp_path / "s.safetensors"
    given = ["--tid2013", str(root), "--partial", "--name", "TID2013-R", "--weights", "random", "--maps", "conv1:0"]
    assert cli.main(["matrix", *given, "--out", str(out)]) == 0
    assert ScoreMatrix.load(out).options["dataset"] == "TID2013-R"


# --- select


def test_select_writes_what_the_library_chooses(
    scores_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, plot = tmp_path / "s.json", tmp_path / "s.png"
    asked = ["--criterion", "srocc", "--pool", "layer_geometric", "--start", "conv1:5", "--exclude", "conv2:7"]
    files = ["--out", str(out), "--plot", str(plot)]
    assert cli.main(["select", str(scores_file), *files, *asked, "--max-maps", "3", "--json"]) == 0
    chosen = forward_select(
        ScoreMatrix.load(scores_file),
        criterion="srocc",
        pool="layer_geometric",
        start=["conv1:5"],
        exclude=["conv2:7"],
        max_maps=3,
    )
    printed, saved = json.loads(capsys.readouterr().out), Selection.load(out)
    assert saved.maps == chosen.maps
    assert saved.options == chosen.options
    assert printed["maps"] == [str(m) for m in chosen.maps]
    assert printed["curve"] == chosen.curve
    assert printed["in_sample"] is True
    with Image.open(plot) as picture:
        assert picture.width > 600


def test_select_prints_the_path_and_says_in_sample(
    scores_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["select", str(scores_file), "--out", str(tmp_path / "s.json"), "--max-maps", "2"]) == 0
    printed = capsys.readouterr().out
    assert all(str(m) in printed for m in Selection.load(tmp_path / "s.json").maps)
    assert "in sample" in printed


def test_the_metric_file_scores_as_the_matrix_does(
    study: Path, scores_file: Path, selection_file: Path, metric_file: Path
) -> None:
    metric, scores = SelectedFeatureIQM.load(metric_file), ScoreMatrix.load(scores_file)
    test = read_image(study / "distorted" / f"{scores.names[7]}.png")[None]
    reference = read_image(study / "references" / f"{scores.groups[7]}.png")[None]
    expected = scores.pool(Selection.load(selection_file).maps)[7]
    # Batches of another size take the convolutions' sums in another order.
    torch.testing.assert_close(metric(test, reference)[0].double(), expected, rtol=0, atol=2e-6)


def test_a_fitted_metric_answers_on_the_scale_of_the_scores(study: Path, scores_file: Path, tmp_path: Path) -> None:
    out, path = tmp_path / "s.json", tmp_path / "m.safetensors"
    files = ["--out", str(out), "--metric", str(path), "--fitted", "--weights", "random"]
    assert cli.main(["select", str(scores_file), *files, "--max-maps", "2"]) == 0
    metric, selection, scores = SelectedFeatureIQM.load(path), Selection.load(out), ScoreMatrix.load(scores_file)
    test = read_image(study / "distorted" / f"{scores.names[7]}.png")[None]
    reference = read_image(study / "references" / f"{scores.groups[7]}.png")[None]
    expected = selection.fit.predict(scores.pool(selection.maps)[7:8])
    # 2e-6 in the score, as above, times the slope of the fit (below 200).
    torch.testing.assert_close(metric(test, reference).double(), expected, rtol=0, atol=4e-4)


def test_a_metric_of_other_weights_is_refused_before_the_search(
    scores_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = ["--out", str(tmp_path / "s.json"), "--metric", str(tmp_path / "m.safetensors")]
    assert cli.main(["select", str(scores_file), *files, "--weights", "random", "--seed", "1"]) == 1
    assert "other weights of alexnet" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


def test_an_unknown_picture_format_is_refused_before_the_search(
    scores_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = ["--out", str(tmp_path / "s.json"), "--plot", str(tmp_path / "s.docx")]
    assert cli.main(["select", str(scores_file), *files]) == 1
    assert "docx" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


# --- evaluate


def test_evaluate_prints_the_figures_of_selected_and_all_maps(
    scores_file: Path, selection_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["evaluate", "--selection", str(selection_file), "--matrix", str(scores_file), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    scores, selection = ScoreMatrix.load(scores_file), Selection.load(selection_file)
    for row, maps in zip(printed["results"], (selection.maps, scores.maps), strict=True):
        quality, targets = scores.pool(maps).numpy(), scores.targets.numpy()
        assert row["maps"] == len(maps)
        # scipy's own rounding
        assert row["srocc"] == pytest.approx(spearmanr(quality, targets).statistic, abs=1e-12)
        assert row["krocc"] == pytest.approx(kendalltau(quality, targets).statistic, abs=1e-12)
        # At the least-squares optimum the error is what the correlation leaves.
        assert row["rmse"] == pytest.approx(targets.std() * math.sqrt(1 - row["plcc"] ** 2), rel=1e-6)
    assert printed["results"][0]["plcc"] == pytest.approx(selection.value, abs=1e-9)  # the same fit again
    assert printed["claim"]["kind"] == "in sample"


def test_evaluate_says_in_sample_in_words(
    scores_file: Path, selection_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["evaluate", "--selection", str(selection_file), "--matrix", str(scores_file)]) == 0
    printed = capsys.readouterr().out
    assert "IN SAMPLE" in printed
    assert all(word in printed for word in ("PLCC", "SROCC", "KROCC", "RMSE", "selected maps", "all maps"))


def test_evaluate_computes_the_matrix_of_a_data_set(
    study: Path, selection_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = tmp_path / "other.safetensors"
    given = [o for o in data_options(study, "Other") if o not in ("--layers", "conv1", "conv2")]
    chosen = ["--selection", str(selection_file)]
    assert cli.main(["evaluate", *chosen, "--save-matrix", str(saved), *given, "--json"]) == 0
    from_data = json.loads(capsys.readouterr().out)
    assert cli.main(["evaluate", *chosen, "--matrix", str(saved), "--json"]) == 0
    from_matrix = json.loads(capsys.readouterr().out)
    assert from_data == from_matrix
    assert from_data["dataset"] == "Other"
    assert from_data["claim"]["kind"] == "transfer"


def test_evaluate_judges_a_metric_file_as_the_selection_it_came_from(
    scores_file: Path, selection_file: Path, metric_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    printed = []
    for chosen in (["--selection", str(selection_file)], ["--metric", str(metric_file)]):
        assert cli.main(["evaluate", *chosen, "--matrix", str(scores_file), "--json"]) == 0
        printed.append(json.loads(capsys.readouterr().out))
    by_selection, by_metric = printed
    assert by_metric["results"] == by_selection["results"]
    assert by_metric["claim"]["kind"] == "unknown"  # a metric file does not name the images behind it


def test_evaluate_refuses_scores_of_another_measure(
    study: Path, selection_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "s.safetensors"
    assert cli.main(["matrix", *data_options(study), "--data-range", "pair", "--out", str(out)]) == 0
    assert cli.main(["evaluate", "--selection", str(selection_file), "--matrix", str(out)]) == 1
    assert "'data_range': 'pair'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ({"dataset": "A", "references": ["r1", "r2"]}, "in sample"),
        ({"dataset": "A"}, "in sample"),  # no record of references: the worst is taken
        ({"dataset": "A", "references": ["r1", "r3"]}, "partly in sample"),
        ({"dataset": "A", "references": ["r3", "r4"]}, "held out"),
        ({"dataset": "B", "references": ["s1"]}, "transfer"),
        ({"dataset": "B"}, "transfer"),
        ({}, "unknown"),
    ],
)
def test_what_is_claimed_of_figures(source: dict[str, object], kind: str) -> None:
    scores = ScoreMatrix(
        torch.rand(4, 1),
        MapIndex(["conv1:0"]),
        torch.arange(4.0),
        ["r1", "r1", "r2", "r2"],
        ["a", "b", "c", "d"],
        options={"dataset": "A"},
    )
    assert claim(source, 4, scores).kind == kind


def test_other_images_of_the_same_references_are_partly_in_sample() -> None:
    scores = ScoreMatrix(
        torch.rand(2, 1), MapIndex(["conv1:0"]), torch.arange(2.0), ["r1", "r2"], ["a", "b"], options={"dataset": "A"}
    )
    assert claim({"dataset": "A", "references": ["r1", "r2"]}, 80, scores).kind == "partly in sample"


def test_a_transfer_between_sets_that_share_reference_names_says_so() -> None:
    scores = ScoreMatrix(
        torch.rand(2, 1), MapIndex(["conv1:0"]), torch.arange(2.0), ["I01", "I02"], ["a", "b"], options={"dataset": "A"}
    )
    verdict = claim({"dataset": "B", "references": ["I01", "I09"]}, 80, scores)
    assert verdict.kind == "transfer"
    assert "1 of its 2 references" in verdict.text


# --- score


@pytest.fixture
def pair(study: Path) -> tuple[str, list[str]]:
    """A reference and two of its test images."""
    tests = [str(study / "distorted" / f"scene02_jpeg_{level}.png") for level in (1, 2)]
    return str(study / "references" / "scene02.png"), tests


def test_score_prints_a_line_an_image(
    pair: tuple[str, list[str]], metric_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reference, tests = pair
    assert cli.main(["score", "--metric", str(metric_file), "--reference", reference, *tests, reference]) == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [name for name, _ in lines] == [*tests, reference]
    first, second, itself = (float(quality) for _, quality in lines)
    assert second < first < itself == 1
    metric = SelectedFeatureIQM.load(metric_file)
    expected = metric(read_image(tests[0])[None], read_image(reference)[None]).item()
    assert first == pytest.approx(expected, abs=6e-7)  # six printed digits


def test_score_takes_a_table_of_pairs_and_a_selection(
    study: Path,
    pair: tuple[str, list[str]],
    selection_file: Path,
    metric_file: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    reference, tests = pair
    table = study / "pairs.csv"
    rows = [f"references/scene02.png,distorted/{Path(test).name}" for test in tests]
    table.write_text("\n".join(["reference,distorted", *rows]))
    assert cli.main(["score", "--metric", str(metric_file), "--pairs", str(table), "--json"]) == 0
    by_metric = json.loads(capsys.readouterr().out)["images"]
    assert [entry["test"] for entry in by_metric] == tests
    assert {entry["reference"] for entry in by_metric} == {reference}
    chosen = ["--selection", str(selection_file), "--weights", "random"]
    assert cli.main(["score", *chosen, "--reference", reference, *tests, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["images"] == by_metric


def test_score_names_the_pair_that_does_not_match(
    pair: tuple[str, list[str]], metric_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reference, tests = pair
    small = tmp_path / "small.png"
    Image.new("RGB", (64, 64)).save(small)
    given = ["--metric", str(metric_file), "--reference", reference, tests[0], str(small)]
    assert cli.main(["score", *given]) == 1
    printed = capsys.readouterr()
    assert printed.out.startswith(tests[0])  # the good one before is not lost
    assert f"{small} against {reference}" in printed.err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a,b\nx,y\n", "columns reference and distorted"),
        (b"reference,distorted\nr.png,\n", "line 2"),
        (b"reference,distorted\n", "no pairs"),
        (b"\x89PNG\r\n\xff\xfe", "not a CSV table"),
    ],
)
def test_a_bad_table_of_pairs_is_explained(
    content: bytes, message: str, metric_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "pairs.csv"
    table.write_bytes(content)
    assert cli.main(["score", "--metric", str(metric_file), "--pairs", str(table)]) == 1
    assert message in capsys.readouterr().err


# --- demo


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


# --- the command line itself


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ([], "COMMAND"),
        (["matrix", "--out", "s"], "--tid2013"),
        (["matrix", "--demo", "--out", "s", "--root", "x"], "--root: only with --csv"),
        (["matrix", "--demo", "--out", "s", "--name", "x"], "--name"),
        (["matrix", "--csv", "x", "--out", "s", "--partial"], "--partial"),
        (["matrix", "--demo", "--out", "s", "--memory", "lots"], "512M or 4G"),
        (["select", "s", "--out", "o", "--fitted"], "--fitted: only with --metric"),
        (["select", "s", "--out", "o", "--criterion", "rmse"], "plcc"),
        (["evaluate", "--selection", "s", "--matrix", "m", "--save-matrix", "m"], "--save-matrix"),
        (["score", "--metric", "m", "--reference", "r"], "give test images"),
        (["score", "--metric", "m", "--pairs", "p", "t"], "give test images"),
        (["demo", "--references", "1"], "at least 2"),
    ],
)
def test_a_wrong_command_line_ends_with_code_2(
    command: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(command)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["select", "missing.safetensors", "--out", "o.json"], "no file missing.safetensors"),
        (["matrix", "--tid2013", "missing", "--out", "o"], "there is no such folder"),
        (["matrix", "--csv", "STUDY", "--network", "lenet", "--out", "o"], "no network 'lenet'"),
        (["matrix", "--csv", "STUDY", "--weights", "missing.pth", "--out", "o"], "no weights file"),
        (["matrix", "--csv", "STUDY", "--measure", "none", "--out", "o"], "no measure 'none'"),
        (["demo", "--device", "cuda:77", "--out", "o"], "no device 'cuda:77'"),
    ],
)
def test_an_error_is_a_message_and_code_1(
    command: list[str],
    message: str,
    study: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    table = str(study / "scores.csv")
    assert cli.main([table if word == "STUDY" else word for word in command]) == 1
    printed = capsys.readouterr()
    assert message in printed.err
    assert "Traceback" not in printed.err
    assert printed.out == ""
    assert not any(tmp_path.iterdir())


def test_a_full_device_is_explained(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], scores_file: Path, tmp_path: Path
) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("tried to allocate")

    monkeypatch.setattr(select, "forward_select", full)
    assert cli.main(["select", str(scores_file), "--out", str(tmp_path / "s.json")]) == 1
    assert "--memory" in capsys.readouterr().err


def test_a_file_that_cannot_be_written_is_explained(
    scores_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / "s.json"
    assert cli.main(["select", str(scores_file), "--out", str(out), "--max-maps", "1"]) == 1
    assert "fmiqa: " in capsys.readouterr().err


def test_a_download_does_not_write_into_the_result(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def noisy(*args: object, **kwargs: object) -> FeatureExtractor:
        print("Downloading ...")  # as torch.hub does
        return FeatureExtractor(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(options, "FeatureExtractor", noisy)
    out = str(tmp_path / "s.safetensors")
    assert cli.main(["matrix", *data_options(study), "--maps", "conv1:0", "--out", out, "--json"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["file"] == out
    assert "Downloading" in printed.err


def test_random_weights_are_warned_of_in_a_line(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "s.safetensors")
    assert cli.main(["matrix", *data_options(study), "--maps", "conv1:0", "--out", out]) == 0
    message = capsys.readouterr().err
    assert message.startswith("fmiqa: warning: alexnet has random weights")
    assert message.count("\n") == 1


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_examples_that_the_parser_takes(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([command, "--help"])
    assert ended.value.code == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    examples = [shlex.split(line)[1:] for line in lines if line.startswith("fmiqa ")]
    assert examples
    for example in examples:
        assert example[0] == command
        cli._parser().parse_args(example)


def test_progress_is_shown_at_a_terminal_only_and_not_when_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    for terminal in (True, False):
        monkeypatch.setattr(sys, "stderr", SimpleNamespace(isatty=lambda answer=terminal: answer))
        assert output.wants_progress(argparse.Namespace(quiet=False)) is terminal
        assert output.wants_progress(argparse.Namespace(quiet=True)) is False


def test_json_has_null_where_there_is_no_number(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_result(argparse.Namespace(json=True), {"a": math.nan, "b": [1.5, math.inf], "c": Path("x")}, "")
    assert json.loads(capsys.readouterr().out) == {"a": None, "b": [1.5, None], "c": "x"}


@pytest.mark.parametrize(
    ("text", "size"), [("1048576", 2**20), ("512M", 2**29), ("1.5g", 3 * 2**29), ("4GiB", 2**32), ("2 kB", 2048)]
)
def test_sizes_are_read_with_their_units(text: str, size: int) -> None:
    assert options._bytes(text) == size


def test_the_module_and_the_installed_command_run() -> None:
    forms = [[sys.executable, "-m", "fmiqa"]]
    installed = Path(sys.executable).with_name("fmiqa")
    if installed.exists():
        forms.append([str(installed)])
    for form in forms:
        done = subprocess.run([*form, "--version"], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout.strip()) == (0, f"fmiqa {fmiqa.__version__}")
    failed = subprocess.run(
        [*forms[-1], "select", "missing", "--out", "o"], capture_output=True, text=True, check=False
    )
    assert failed.returncode == 1
    assert failed.stderr.startswith("fmiqa: no file missing")
