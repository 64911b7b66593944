"""The command line itself: usage, errors, help, output, and the installed forms in a process of their own."""

from __future__ import annotations

import argparse
import json
import math
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import fmiqa
from fmiqa import FeatureExtractor, cli
from fmiqa.cli import options, output, searches

DataOptions = Callable[..., list[str]]


COMMANDS = (
    "demo",
    "datasets",
    "metrics",
    "matrix",
    "merge",
    "select",
    "validate",
    "evaluate",
    "score",
    "explain",
    "transfer",
    "reproduce",
)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ([], "COMMAND"),
        (["matrix", "--out", "s"], "--tid2013"),
        (["matrix", "--demo", "--out", "s", "--root", "x"], "--root: only with --csv"),
        (["matrix", "--demo", "--out", "s", "--name", "x"], "--name"),
        (["matrix", "--csv", "x", "--out", "s", "--partial"], "--partial"),
        (["matrix", "--demo", "--out", "s", "--memory", "lots"], "512M or 4G"),
        (["matrix", "--demo", "--out", "s", "--shard", "0/3"], "the I-th of N shards from 1, as in 2/3, got '0/3'"),
        (["matrix", "--demo", "--out", "s", "--shard", "4/3"], "got '4/3'"),
        (["matrix", "--demo", "--out", "s", "--shard", "3"], "got '3'"),
        (["merge", "s"], "--out"),
        (["select", "s", "--out", "o", "--fitted"], "--fitted: only with --metric"),
        (["select", "s", "--out", "o", "--criterion", "rmse"], "plcc"),
        (["evaluate", "--selection", "s", "--matrix", "m", "--save-matrix", "m"], "--save-matrix"),
        (["evaluate", "--selection", "s", "--matrix", "m", "--peers", "SSIM"], "--peers: only with a data set"),
        (["evaluate", "--selection", "s", "--demo", "--peers", "SIM"], "HaarPSI"),
        (["evaluate", "--selection", "s", "--matrix", "m", "--resamples", "-1"], "a whole number from 0"),
        (["select", "s", "--out", "o", "--width", "3"], "--width: not with --search forward"),
        (["select", "s", "--out", "o", "--search", "beam", "--rule", "best"], "--rule: not with --search beam"),
        (
            ["select", "s", "--out", "o", "--search", "weighted", "--max-maps", "3"],
            "--max-maps: not with --search weighted",
        ),
        (["select", "s", "--out", "o", "--search", "weighted", "--monotone"], "--monotone: not with --search weighted"),
        (["select", "s", "--out", "o", "--weights", "alexnt=a.pth"], "no network 'alexnt'"),
        (["matrix", "--demo", "--out", "o", "--weights", "random", "--weights", "default"], "twice for all networks"),
        (["validate", "s", "--powers", "2"], "--powers: not with --search forward"),
        (["validate", "s", "--search", "weighted", "--plot", "v.png"], "--plot: not with --search weighted"),
        (["validate", "s", "--search", "beam", "--plot", "v.png"], "--plot: not with --search beam"),
        (["validate", "s", "--search", "floating", "--width", "2"], "--width: not with --search floating"),
        (["validate", "s", "--null", "0"], "a whole number from 1, got '0'"),
        (["validate", "s", "--folds", "each"], "leave_one_out"),
        (["score", "--metric", "m", "--reference", "r"], "give test images"),
        (["explain", "t"], "--reference"),
        (["explain", "--reference", "r", "t", "u"], "one test image, got 2: run the command once for each"),
        (["explain", "--reference", "r", "t", "--maps", "0"], "a whole number from 1"),
        (["score", "--metric", "m", "--pairs", "p", "t"], "give test images"),
        (["score", "--metric", "m"], "two folders (the references first)"),
        (["score", "--metric", "m", "a"], "two folders (the references first)"),
        (["score", "--metric", "m", "a", "b", "c"], "two folders (the references first)"),
        (["score", "--metric", "m", "--reference", "r", "--pairs", "p"], "not allowed with argument --reference"),
        (["demo", "--references", "1"], "at least 2"),
        (["reproduce", "table3", "--out", "o"], "table1"),
        (["reproduce", "table1", "--out", "o"], "give --cidiq100"),
        (["reproduce", "table1", "--csiq", "c", "--out", "o", "--name", "CSIQ-R"], "expected SET=NAME"),
        (["reproduce", "table1", "--csiq", "c", "--out", "o", "--name", "tid2013=T"], "only of a set that is given"),
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

    monkeypatch.setitem(searches.SEARCHES, "forward", full)
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
    data_options: DataOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def noisy(*args: object, **kwargs: object) -> FeatureExtractor:
        print("Downloading ...")  # as torch.hub does
        return FeatureExtractor(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(options, "FeatureExtractor", noisy)
    out = str(tmp_path / "s.safetensors")
    assert cli.main(["matrix", *data_options(), "--maps", "conv1:0", "--out", out, "--json"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["file"] == out
    assert "Downloading" in printed.err


def test_random_weights_are_warned_of_in_a_line(
    data_options: DataOptions, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "s.safetensors")
    assert cli.main(["matrix", *data_options(), "--maps", "conv1:0", "--out", out]) == 0
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
