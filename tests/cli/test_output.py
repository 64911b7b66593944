"""What is printed arrives, or is dropped, on any standard output and standard error; it never ends the work."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import fmiqa
from fmiqa import cli
from fmiqa.cli.output import ReaderGoneError, explained, say, show, usable_streams

ENCODINGS = ("ascii", "gbk", "cp932", "cp1251", "latin-1", "utf-8", "utf-16")
LATIN = os.fsdecode(b"caf\xe9")  # a file's name of bytes that are not UTF-8


class Encoded:
    """Within this, standard output and standard error are in an encoding and refuse what it lacks."""

    def __init__(self, encoding: str) -> None:
        self.encoding = encoding
        self.streams = [io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict") for _ in range(2)]

    def __enter__(self) -> Encoded:
        self._before = sys.stdout, sys.stderr
        sys.stdout, sys.stderr = self.streams
        return self

    def __exit__(self, *_: object) -> None:
        sys.stdout, sys.stderr = self._before

    def texts(self) -> list[str]:
        for stream in self.streams:
            stream.flush()
        return [stream.buffer.getvalue().decode(self.encoding) for stream in self.streams]  # type: ignore[attr-defined]


@pytest.fixture(params=ENCODINGS)
def encoded(request: pytest.FixtureRequest) -> Encoded:
    return Encoded(request.param)


def test_results_are_printed_in_any_encoding(encoded: Encoded, numbers_file: Path) -> None:
    with encoded:
        assert cli.main(["datasets"]) == 0
        assert cli.main(["transfer", str(numbers_file), f"ü†±={numbers_file}", "--folds", "0", "--max-maps", "1"]) == 0
        assert cli.main(["validate", str(numbers_file), "--folds", "3", "--max-maps", "1"]) == 0
    text, said = encoded.texts()
    for words in ("NTNU Gj", "numbers", "held-out PLCC", "one-standard-error size"):
        assert words in text
    assert said == ""
    assert [stream.errors for stream in encoded.streams] == ["strict", "strict"]  # as it was


def test_messages_name_any_file(encoded: Encoded) -> None:
    with encoded:
        assert cli.main(["select", f"{LATIN}-あ.json", "--out", "o.json"]) == 1
        with pytest.raises(SystemExit) as ended:
            cli.main(["select", "s", "--out", "o", f"--{LATIN}-あ"])
        assert ended.value.code == 2
        with pytest.raises(SystemExit):
            cli.main(["validate", "--help"])
    text, said = encoded.texts()
    assert "no file caf\\udce9-" in said
    assert "unrecognized arguments: --caf\\udce9-" in said
    assert "usage: fmiqa validate" in text


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_files_of_any_name_are_read_drawn_and_listed(
    encoded: Encoded, numbers_file: Path, metric_file: Path, study: Path, tmp_path: Path
) -> None:
    matrix, image, metric = (str(tmp_path / f"{LATIN}.{end}") for end in ("safetensors", "png", "metric"))
    shutil.copy(numbers_file, matrix)
    shutil.copy(study / "references" / "scene01.png", image)
    shutil.copy(metric_file, metric)
    out, plot = str(tmp_path / f"{LATIN}.json"), str(tmp_path / f"{LATIN}.svg")
    asked = [matrix, str(numbers_file), "--max-maps", "1", "--out", out, "--plot", plot]
    named = [matrix, f"{LATIN}={matrix}"]
    with encoded:
        assert cli.main(["select", *asked]) == 0
        assert cli.main(["transfer", *named, "--folds", "0", "--max-maps", "1", "--plot", plot]) == 0
        assert cli.main(["score", "--metric", metric, "--reference", image, image]) == 0
    text, _ = encoded.texts()
    assert f"{tmp_path}/caf\\udce9.json" in text
    assert f"{tmp_path}/caf\\udce9.png\t1.000000" in text
    with Encoded(encoded.encoding) as again:
        assert cli.main(["score", "--metric", metric, "--reference", image, image, "--json"]) == 0
    assert json.loads(again.texts()[0])["images"][0]["test"] == image


def test_streams_that_are_not_there_are_replaced_for_as_long(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = io.StringIO()
    closed.close()
    for missing in (None, closed):
        with monkeypatch.context() as patched:
            patched.setattr(sys, "stdout", missing)
            patched.setattr(sys, "stderr", missing)
            assert cli.main(["datasets"]) == 0
            assert cli.main(["select", "missing", "--out", "o"]) == 1
            with usable_streams():
                show("dropped")
                say("dropped")
            for arguments, code in ((["--help"], 0), (["--version"], 0), ([], 2)):
                with pytest.raises(SystemExit) as ended:
                    cli.main(arguments)
                assert ended.value.code == code
            assert sys.stdout is missing
            assert sys.stderr is missing


class Failing(io.StringIO):
    """A stream on a full disk, or of a pipe without a reader."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.error = OSError(number, os.strerror(number))

    def write(self, text: str) -> int:
        raise self.error


def test_a_full_standard_output_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], numbers_file: Path, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "stdout", Failing(errno.ENOSPC))
    out = tmp_path / "s.json"
    assert cli.main(["select", str(numbers_file), "--max-maps", "1", "--out", str(out)]) == 1
    assert capsys.readouterr().err == "fmiqa: standard output: No space left on device\n"
    assert len(fmiqa.Selection.load(out)) == 1


def test_nobody_who_reads_is_no_error(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "stdout", Failing(errno.EPIPE))
    with pytest.raises(ReaderGoneError):
        show("x")
    assert cli.main(["datasets"]) == 0
    assert capsys.readouterr().err == ""


def test_a_broken_pipe_elsewhere_is_an_error(monkeypatch: pytest.MonkeyPatch, numbers_file: Path) -> None:
    def broken(*_: object, **__: object) -> None:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    monkeypatch.setattr("fmiqa.cli.validate.cross_validate", broken)
    assert cli.main(["validate", str(numbers_file)]) == 1


def test_messages_that_nobody_can_see_do_not_end_the_work(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], study: Path, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "stderr", Failing(errno.EIO))  # a terminal that is gone
    asked = ["--csv", str(study / "scores.csv"), "--maps", "conv1:0", "--weights", "random"]  # which is warned of
    assert cli.main(["matrix", *asked, "--out", str(tmp_path / "s.safetensors")]) == 0
    assert "written to" in capsys.readouterr().out


def test_an_error_of_the_system_names_its_file() -> None:
    assert explained(OSError(errno.ENOSPC, "No space left on device", "s.json")) == "s.json: No space left on device"
    assert explained(OSError("no number")) == "no number"
    assert explained(fmiqa.InputError("words")) == "words"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        ("fmiqa datasets >&-", 0, ""),
        ("fmiqa datasets 2>&- | cat >&2", 0, "set"),
        ("fmiqa select missing --out o 2>&-", 1, ""),
        ("fmiqa datasets >&- 2>&-", 0, ""),
        ("fmiqa datasets | true", 0, ""),
        ("fmiqa --help | true", 0, ""),
        ("fmiqa datasets >/dev/full", 1, "fmiqa: standard output: No space left on device"),
        ("fmiqa --help >/dev/full", 1, "fmiqa: standard output: No space left on device"),
        ("fmiqa datasets >/dev/full 2>/dev/full", 1, ""),
        ("fmiqa select 2>/dev/full", 2, ""),
    ],
)
def test_the_process_ends_as_it_should(command: str, code: int, said: str, tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    line = command.replace("fmiqa", f"{sys.executable} -m fmiqa", 1)
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {line}"], cwd=tmp_path, env=environment, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert done.returncode == code
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    if said:
        assert said in done.stderr
    else:
        assert done.stderr == ""
