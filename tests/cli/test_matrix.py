"""`fmiqa matrix`: what it writes is what the library computes, and a run that was stopped goes on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

import fmiqa
from fmiqa import FeatureExtractor, MapIndex, ScoreMatrix, Viewing, cli
from fmiqa._result import Saved
from fmiqa.cli import options
from fmiqa.datasets import CSVDataset
from fmiqa.scoring.checkpoint import Checkpoint

DataOptions = Callable[..., list[str]]


def test_matrix_writes_what_the_library_computes(study: Path, scores_file: Path) -> None:
    written = ScoreMatrix.load(scores_file)
    data = CSVDataset(study / "scores.csv", reference_id="reference_id", image_name="name", name="Study")
    with pytest.warns(UserWarning, match="random weights"):
        network = FeatureExtractor("alexnet", weights=None, layers=["conv1", "conv2"])
    computed = fmiqa.score_matrix(network, data)
    assert torch.equal(written.values, computed.values)
    assert written.options == computed.options
    assert written.options["dataset"] == "Study"
    assert (written.names, written.groups) == (computed.names, computed.groups)


def test_matrix_passes_measure_scale_and_maps_on(data_options: DataOptions, tmp_path: Path) -> None:
    asked = ["--data-range", "pair", "--window", "7", "--sigma", "1.0", "--scale", "0.75"]
    asked += ["--maps", "conv2:5", "conv1:3"]
    out = tmp_path / "s.safetensors"
    assert cli.main(["matrix", *data_options(), *asked, "--out", str(out)]) == 0
    written = ScoreMatrix.load(out)
    measure = written.options["measure"]
    assert (measure["data_range"], measure["window"], measure["sigma"]) == ("pair", 7, 1.0)
    assert written.options["viewing"] == {"factor": 0.75}
    assert written.maps == MapIndex(["conv2:5", "conv1:3"])


def test_matrix_takes_every_measure_with_its_options(data_options: DataOptions, tmp_path: Path) -> None:
    out = tmp_path / "s.safetensors"
    asked = ["--measure", "histogram", "--data-range", "2", "--measure-option", "bins=16", "--maps", "conv1:3"]
    assert cli.main(["matrix", *data_options(), *asked, "--out", str(out)]) == 0
    assert ScoreMatrix.load(out).options["measure"] == {"name": "histogram", "data_range": 2, "bins": 16}


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (["--measure", "lpips"], "no measure 'lpips': there are ssim"),
        (["--measure", "psnr", "--window", "7"], "measure psnr with {'window': 7}"),
        (["--measure", "histogram", "--measure-option", "bins=many"], "bins is a whole number"),
        (["--measure", "piq", "--measure-option", "metric=LPIPS"], "no metric 'LPIPS' for single maps"),
    ],
)
def test_matrix_names_what_is_wrong_with_a_measure(
    data_options: DataOptions, tmp_path: Path, capsys: pytest.CaptureFixture[str], asked: list[str], message: str
) -> None:
    assert cli.main(["matrix", *data_options(), *asked, "--out", str(tmp_path / "s.safetensors")]) == 1
    assert message in capsys.readouterr().err


def test_matrix_prints_json_that_names_the_result(
    data_options: DataOptions, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "s.safetensors")
    assert cli.main(["matrix", *data_options(), "--maps", "conv1:0", "--out", out, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["file"], printed["images"], printed["references"], printed["maps"]) == (out, 36, 3, 1)
    assert printed["options"]["network"] == "alexnet"


def test_a_finished_matrix_is_never_computed_over(
    data_options: DataOptions, scores_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = scores_file.read_bytes()
    assert cli.main(["matrix", *data_options(), "--out", str(scores_file)]) == 1
    assert "exists already" in capsys.readouterr().err
    assert scores_file.read_bytes() == before


def test_an_interrupted_matrix_goes_on_and_ends_the_same(
    data_options: DataOptions,
    scores_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "s.safetensors"
    command = ["matrix", *data_options(), "--out", str(out)]
    write, written = Checkpoint.write, []

    def write_and_stop(checkpoint: Checkpoint, name: str, piece: Saved) -> None:
        write(checkpoint, name, piece)
        raise KeyboardInterrupt

    def write_and_count(checkpoint: Checkpoint, name: str, piece: Saved) -> None:
        write(checkpoint, name, piece)
        written.append(name)

    monkeypatch.setattr(Checkpoint, "write", write_and_stop)
    assert cli.main(command) == 130
    message = capsys.readouterr().err
    assert f"{out}.parts" in message
    assert "same command goes on" in message
    assert not out.exists()

    changed = [*command, "--data-range", "255"]
    assert cli.main(changed) == 1
    assert "other options" in capsys.readouterr().err

    monkeypatch.setattr(Checkpoint, "write", write_and_count)
    assert cli.main(command) == 0
    assert written == [
        "part-000001.safetensors",
        "part-000002.safetensors",
    ]  # the first was kept
    assert torch.equal(ScoreMatrix.load(out).values, ScoreMatrix.load(scores_file).values)
    assert not Path(f"{out}.parts").exists()


def test_an_interruption_before_the_first_part_promises_nothing(
    data_options: DataOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(options, "score_matrix", stop)
    assert cli.main(["matrix", *data_options(), "--out", str(tmp_path / "s.safetensors")]) == 130
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


@pytest.mark.parametrize(
    "viewing",
    [{"short_side": 64}, {"pixels_per_degree": 20.0, "native_pixels_per_degree": 32.5}],
)
def test_matrix_passes_the_viewing_on(
    data_options: DataOptions, viewing: dict[str, float], study: Path, tmp_path: Path
) -> None:
    out = tmp_path / "s.safetensors"
    asked = [word for name, value in viewing.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    assert cli.main(["matrix", *data_options(), "--maps", "conv1:3", *asked, "--out", str(out)]) == 0
    written = ScoreMatrix.load(out)
    assert written.options["viewing"] == viewing
    with pytest.warns(UserWarning, match="random weights"):
        network = FeatureExtractor("alexnet", weights=None, layers=["conv1"], viewing=Viewing(**viewing))
    data = CSVDataset(study / "scores.csv", reference_id="reference_id", image_name="name")
    computed = fmiqa.score_matrix(network, data, maps=["conv1:3"])
    assert torch.equal(written.values, computed.values)


@pytest.mark.parametrize(
    "asked",
    [
        ["--scale", "0.5", "--short-side", "64"],
        ["--pixels-per-degree", "20"],
        ["--native-pixels-per-degree", "20"],
        ["--scale", "-1"],
    ],
)
def test_viewing_options_that_contradict_each_other_end_before_any_work(
    asked: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["matrix", "--csv", "missing.csv", *asked, "--out", str(tmp_path / "s")])
    assert ended.value.code == 2
    message = capsys.readouterr().err
    assert "--pixels-per-degree together with --native-pixels-per-degree" in message
    assert f"got {asked[0]} {asked[1]}" in message


def test_weights_for_another_network_are_refused(
    data_options: DataOptions, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["--weights", "vgg16=random", "--out", str(tmp_path / "s")]
    assert cli.main(["matrix", *data_options(), *asked]) == 1
    assert "the score matrix is of alexnet, not of vgg16" in capsys.readouterr().err
