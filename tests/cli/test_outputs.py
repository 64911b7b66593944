"""Files to be written: what is impossible is found before the work, and what fails after it costs no result."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import fmiqa
from fmiqa import FeatureExtractor, InputError, ScoreMatrix, Selection, cli

DataOptions = Callable[..., list[str]]


@pytest.fixture
def places(tmp_path: Path) -> Path:
    """A folder of places that no file can be written to."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("here before")
    return tmp_path


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any work is a failure: nothing is loaded, read or decoded."""

    def working(*_: Any, **__: Any) -> Any:
        raise AssertionError("the work has begun")

    for name in ("select.load_scores", "validate.load_scores", "transfer.ScoreMatrix", "report.Selection",
                 "matrix.data_set", "evaluate.Selection", "visualize._networks", "demo.Demo",
                 "score.SelectedFeatureIQM", "score.read_image", "results.SelectedFeatureIQM",
                 "explain.read_image"):  # fmt: skip
        monkeypatch.setattr(f"fmiqa.cli.{name}", working)
    monkeypatch.setattr("fmiqa.cli.reproduce._reproduced", working)


FILES = {
    "select --out": ["select", "s", "--out", "PLACE"],
    "select --plot": ["select", "s", "--out", "o.json", "--plot", "PLACE"],
    "select --metric": ["select", "s", "--out", "o.json", "--metric", "PLACE"],
    "validate --out": ["validate", "s", "--out", "PLACE"],
    "validate --plot": ["validate", "s", "--plot", "PLACE"],
    "transfer --out": ["transfer", "s", "t", "--out", "PLACE"],
    "transfer --plot": ["transfer", "s", "t", "--plot", "PLACE"],
    "matrix --out": ["matrix", "--demo", "--out", "PLACE"],
    "evaluate --save-matrix": ["evaluate", "--selection", "s", "--demo", "--save-matrix", "PLACE"],
    "report --out": ["report", "s", "--matrix", "m", "--demo", "--out", "PLACE"],
    "visualize --out": ["visualize", "maximize", "--maps", "conv1:1", "--out", "PLACE"],
    "explain --out": ["explain", "--metric", "m", "--reference", "r", "t", "--out", "PLACE"],
    "score --csv": ["score", "--metric", "m", "--reference", "r", "t", "--csv", "PLACE"],
}
FOLDERS = {
    "demo --out": ["demo", "--out", "PLACE"],
    "reproduce --out": ["reproduce", "table1", "--csiq", "c", "--out", "PLACE"],
    "score --maps": ["score", "--metric", "m", "--reference", "r", "t", "--maps", "PLACE"],
    "visualize --save": ["visualize", "maximize", "--maps", "conv1:1", "--out", "o.png", "--save", "PLACE"],
}


def refused(command: Sequence[str], place: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert cli.main([place if word == "PLACE" else word for word in command]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    return printed.err


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize("name", FILES)
def test_a_file_that_cannot_be_written_is_found_before_the_work(
    name: str, places: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(places)
    option, before = name.split()[1], sorted(os.listdir())
    for place, words in {
        "folder": "it is a folder",
        "new/": "it is a folder's name",
        "": "the name is empty",
        "file/x.png": "file is not a folder",
        "x" * 300 + ".png": "File name too long",
    }.items():
        said = refused(FILES[name], place, capsys)
        assert said.startswith(f"fmiqa: {option}: {place or repr(place)} cannot be written: ")
        assert said.endswith(f"{words}\n")
    assert sorted(os.listdir()) == before


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_that_cannot_be_made_is_found_before_the_work(
    name: str, places: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(places)
    option, before = name.split()[1], sorted(os.listdir())
    for place, words in {
        "file": "file is not a folder",
        "file/new": "file is not a folder",
        "": "the name is empty",
        "x" * 300: "File name too long",
    }.items():
        said = refused(FOLDERS[name], place, capsys)
        assert said.startswith(f"fmiqa: {option}: {place or repr(place)} cannot be written: ")
        assert said.endswith(f"{words}\n")
    assert sorted(os.listdir()) == before


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize("name", [name for name in FILES if name.endswith("--plot") or name.startswith("visualize")])
def test_an_unknown_picture_format_is_found_before_the_work(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "no picture format 'xyz'" in refused(FILES[name], str(tmp_path / "a.xyz"), capsys)


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize("name", [*(name for name in FILES if "--plot" in name), "visualize --out", "report --out"])
def test_a_missing_matplotlib_is_found_before_the_work(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in [module for module in sys.modules if module.partition(".")[0] == "matplotlib"]:
        monkeypatch.setitem(sys.modules, module, None)
    assert "fmiqa[plot]" in refused(FILES[name], str(tmp_path / "a.png"), capsys)


def test_other_files_of_a_run_are_tried_before_it_too(
    data_options: DataOptions, selection_file: Path, scores_file: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    (tmp_path / "s.parts").touch()
    assert cli.main(["matrix", *data_options(), "--out", str(tmp_path / "s")]) == 1
    assert "s.parts is not a folder" in capsys.readouterr().err
    data = [word for word in data_options() if word not in ("--layers", "conv1", "conv2")]
    command = ["report", str(selection_file), "--matrix", str(scores_file), *data, "--out", str(tmp_path / "s")]
    assert cli.main(command) == 1
    assert "s.parts is not a folder" in capsys.readouterr().err
    (tmp_path / "demo" / "metric.safetensors").mkdir(parents=True)
    assert cli.main(["demo", "--out", str(tmp_path / "demo")]) == 1
    assert "metric.safetensors cannot be written: it is a folder" in capsys.readouterr().err
    (tmp_path / "kept" / "maximal.safetensors").mkdir(parents=True)
    asked = ["--selection", str(selection_file), "--weights", "random", "--save", str(tmp_path / "kept")]
    assert cli.main(["visualize", "maximize", *asked, "--out", str(tmp_path / "a.png")]) == 1
    assert "maximal.safetensors cannot be written: it is a folder" in capsys.readouterr().err


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["select", "s", "--out", "a.png", "--plot", "./a.png"], "--out and --plot name the same place"),
        (["select", "s", "--out", "link.png", "--plot", "a.png"], "--out and --plot name the same place"),
        (["select", "s", "--out", "a", "--metric", "a"], "--out and --metric name the same place"),
        (["select", "s", "--out", "a", "--plot", "a/b.png"], "--out is to be a file, a, and --plot lies below it"),
        (["validate", "s", "--out", "a.png", "--plot", "a.png"], "--out and --plot name the same place"),
        (
            ["visualize", "maximize", "--maps", "conv1:1", "--out", "a.png", "--save", "a.png/x"],
            "--out is to be a file, a.png, and --save lies below it",
        ),
        (["select", "there", "--out", "./there"], "--out: there is what the command reads"),
        (["validate", "a=there", "s", "--out", "there"], "--out: there is what the command reads"),
        (["validate", "s", "there", "--out", "linked"], "--out: there is what the command reads"),
        (["transfer", "s", "linked", "--out", "there"], "--out: linked is what the command reads"),
        (["report", "there", "--matrix", "m", "--demo", "--out", "there"], "there is what the command reads"),
        (["report", "s", "--matrix", "x", "there", "--demo", "--out", "there"], "there is what the command reads"),
        (["select", "s", "--out", "o", "--metric", "there", "--weights", "there"], "there is what the command reads"),
        (
            ["visualize", "pda", "--maps", "conv1:1", "--images", "here.png", "--out", "here.png"],
            "--out: here.png is what the command reads",
        ),
        (["score", "--metric", "there", "--reference", "r", "t", "--csv", "there"], "there is what the command reads"),
        (["explain", "--reference", "r", "here.png", "--out", "here.png"], "--out: here.png is what the command reads"),
        (["score", "--metric", "m", "--reference", "here.png", "t", "--csv", "here.png"], "--csv: here.png is what"),
        (["score", "--metric", "m", "--reference", "r", "here.png", "--maps", "."], "--maps: here.png is an image"),
        (["score", "--metric", "m", "--reference", "here.png", "here", "--maps", "."], "--maps: here.png is an image"),
        (
            ["score", "--metric", "m", "--reference", "r", "x/t.bmp", "--maps", ".", "--csv", "t.png"],
            "--csv: t.png is an image that the command reads or writes",
        ),
    ],
)
def test_files_are_not_written_over_each_other_or_over_what_is_read(
    command: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("there", "here.png"):
        (tmp_path / name).write_text("hours of work")
    (tmp_path / "link.png").symlink_to("a.png")
    (tmp_path / "linked").symlink_to("there")
    assert words in refused(command, "", capsys)
    assert all((tmp_path / name).read_text() == "hours of work" for name in ("there", "here.png"))


def test_several_outputs_may_go_to_one_device(numbers_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["select", str(numbers_file), "--max-maps", "1", "--out", os.devnull, "--plot", os.devnull]
    assert cli.main(command) == 0
    assert f"written to {os.devnull}, {os.devnull}" in capsys.readouterr().out
    assert not Path(os.devnull).is_file()


def test_a_score_matrix_can_go_to_a_device(data_options: DataOptions, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["matrix", *data_options(), "--maps", "conv1:1", "--out", os.devnull]) == 0
    assert f"written to {os.devnull}" in capsys.readouterr().out
    assert not Path(f"{os.devnull}.parts").exists()


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk has room for names, and none for content."""

    def failing(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", failing)


@pytest.mark.parametrize(
    ("command", "printed"),
    [
        (["select", "NUMBERS", "--max-maps", "2", "--out", "o.json", "--plot", "p.png"], "2 of 15 maps, PLCC"),
        (["validate", "NUMBERS", "--max-maps", "2", "--out", "o.json", "--plot", "p.png"], "held-out PLCC"),
        (["validate", "NUMBERS", "--max-maps", "2", "--null", "2", "--out", "o.json"], "p = 0.3333"),
        (["validate", "NUMBERS", "--search", "beam", "--max-maps", "1", "--out", "o.json"], "held-out PLCC"),
        (["transfer", "NUMBERS", "x=NUMBERS", "--folds", "0", "--out", "o.json", "--plot", "p.png"], "IN SAMPLE"),
    ],
)
@pytest.mark.usefixtures("full_disk")
def test_a_full_disk_is_named_and_the_result_is_printed(
    command: list[str], printed: str, numbers_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    command = [word.replace("NUMBERS", str(numbers_file)) for word in command]
    assert cli.main(command) == 1
    text, said = capsys.readouterr()
    assert printed in text
    assert "written to" not in text
    failed = [f"{name}: No space left on device" for name in ("o.json", "p.png") if name in command]
    assert said.splitlines() == [f"fmiqa: {failed[0]}", *failed[1:]]
    assert not any(tmp_path.iterdir())
    assert cli.main([*command, "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["files"] == {}


def test_one_file_that_fails_leaves_the_others(
    numbers_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def failing(self: Selection, path: str) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

    monkeypatch.setattr(Selection, "save", failing)
    out, plot = str(tmp_path / "o.json"), str(tmp_path / "p.png")
    assert cli.main(["select", str(numbers_file), "--max-maps", "1", "--out", out, "--plot", plot]) == 1
    text, said = capsys.readouterr()
    assert text.endswith(f"written to {plot}\n")
    assert said == f"fmiqa: {out}: No space left on device\n"
    assert Image.open(plot).width > 600


@pytest.mark.usefixtures("full_disk")
def test_pictures_that_cannot_be_written_leave_their_table(
    selection_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small = fmiqa.visualize.PlantedConcepts(count=4, size=64)
    monkeypatch.setattr("fmiqa.visualize.PlantedConcepts", lambda: small)
    out = str(tmp_path / "a.png")
    asked = ["--selection", str(selection_file), "--weights", "random", "--top", "1"]
    assert cli.main(["visualize", "dissect", *asked, "--out", out]) == 1
    text, said = capsys.readouterr()
    assert "a detector: IoU" in text
    assert said.endswith(f"fmiqa: {out}: No space left on device\n")


def test_a_matrix_that_a_full_disk_stopped_goes_on(
    data_options: DataOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "s.safetensors")
    command = ["matrix", *data_options(), "--maps", "conv1:1", "--out", out]
    save = ScoreMatrix.save

    def failing(self: ScoreMatrix, path: str) -> None:
        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left")))
            save(self, path)

    with monkeypatch.context() as patched:
        patched.setattr(ScoreMatrix, "save", failing)
        assert cli.main(command) == 1
    assert f"fmiqa: {out}: No space left" in capsys.readouterr().err
    assert os.listdir(tmp_path) == ["s.safetensors.parts"]
    assert cli.main(command) == 0
    assert os.listdir(tmp_path) == ["s.safetensors"]


def test_ctrl_c_while_a_file_is_written_leaves_the_old_one(
    numbers_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(handle: int) -> None:
        raise KeyboardInterrupt

    (tmp_path / "o.json").write_text("old")
    monkeypatch.setattr(os, "fsync", interrupted)
    assert cli.main(["select", str(numbers_file), "--max-maps", "1", "--out", str(tmp_path / "o.json")]) == 130
    assert capsys.readouterr().err.startswith("fmiqa: interrupted. ")
    assert os.listdir(tmp_path) == ["o.json"]
    assert (tmp_path / "o.json").read_text() == "old"


@pytest.mark.parametrize("command", ["select", "validate", "transfer", "visualize"])
def test_pictures_are_drawn_without_pyplot(
    command: str, numbers_file: Path, study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    plot, image = str(tmp_path / "p.png"), str(study / "references" / "scene01.png")
    asked = {
        "select": [str(numbers_file), "--max-maps", "1", "--out", str(tmp_path / "o.json"), "--plot", plot],
        "validate": [str(numbers_file), "--max-maps", "1", "--plot", plot],
        "transfer": [str(numbers_file), f"x={numbers_file}", "--folds", "0", "--max-maps", "1", "--plot", plot],
        "visualize": ["exemplars", "--maps", "conv1:1", "--weights", "random", "--images", image, "--out", plot],
    }
    assert cli.main([command, *asked[command]]) == 0
    assert Image.open(plot).width > 100


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_library_refuses_before_the_work_too(places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    extractor = FeatureExtractor("alexnet", weights=None, layers=["conv1"])
    data = fmiqa.datasets.Demo(references=2, size=64, levels=1)
    image = data[0].reference
    sampler = fmiqa.visualize.MarginalSampler([image], patches=10)
    concepts = fmiqa.visualize.PlantedConcepts(count=4, size=64)
    monkeypatch.setattr(extractor, "features", lambda *_: pytest.fail("the work has begun"))
    calls: dict[str, Callable[[str], object]] = {
        "score_matrix": lambda save: fmiqa.score_matrix(extractor, data, save=save),
        "dissect": lambda save: fmiqa.visualize.dissect(extractor, concepts, ["conv1:1"], save=save),
        "prediction_difference": lambda save: fmiqa.visualize.prediction_difference(
            extractor, image, ["conv1:1"], sampler=sampler, save=save
        ),
        "reproduce": lambda out: fmiqa.reproduce("table1", {"csiq": data}, weights=None, folds=2, out=f"{out}/x"),
    }
    for name, call in calls.items():
        for place in ("file/x", "x" * 300):
            with pytest.raises(InputError, match="cannot be written"):
                call(f"{places}/{place}")
        if name != "reproduce":
            with pytest.raises(InputError, match="folder cannot be written: it is a folder"):
                call(f"{places}/folder")
    assert sorted(os.listdir(places)) == ["file", "folder"]


def test_every_option_that_names_a_file_to_write_says_so() -> None:
    """A new option cannot forget the check: what is described as written is of a type that is checked."""
    written = {"--out", "--plot", "--save", "--save-matrix"}
    seen = set()
    commands = (
        "select",
        "validate",
        "transfer",
        "matrix",
        "evaluate",
        "report",
        "demo",
        "reproduce",
        "score",
        "explain",
    )
    for command in commands:
        parser = cli._parser()._subparsers._group_actions[0].choices[command]  # type: ignore[union-attr,index]
        for action in parser._actions:
            flags = written.intersection(action.option_strings)
            own = {"select": {"--metric"}, "score": {"--csv", "--maps"}}.get(command, set())
            if flags or own.intersection(action.option_strings):
                assert action.type.__name__.startswith("Output"), (command, action.option_strings)
                seen |= flags
    assert seen == written - {"--save"}
