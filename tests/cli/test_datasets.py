"""`fmiqa datasets`: the list, and the check of a folder; the data options of the published sets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from fmiqa import ScoreMatrix, cli
from fmiqa.datasets import CATALOGUE


@pytest.fixture
def part(tmp_path: Path) -> Path:
    """Ten images of one reference in TID2008's layout."""
    root = tmp_path / "part"
    for folder in ("reference_images", "distorted_images"):
        (root / folder).mkdir(parents=True)
    picture = Image.new("RGB", (96, 96), (90, 60, 30))
    picture.save(root / "reference_images" / "I01.BMP")
    names = [f"i01_{kind:02d}_{level}.bmp" for kind in (1, 8) for level in range(1, 5)]
    for name in names:
        picture.save(root / "distorted_images" / name)
    (root / "mos_with_names.txt").write_text("\n".join(f"{n / 2 + 1} {name}" for n, name in enumerate(names)))
    return root


def test_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["datasets"]) == 0
    text = capsys.readouterr().out
    for entry in CATALOGUE.values():
        row = next(line for line in text.splitlines() if line.startswith(f"{entry.key} "))
        assert entry.name in row
        assert row.endswith(entry.scores)
        words = " ".join(text.split())
        assert f"from: {entry.available_from} terms: {entry.terms} cite: {entry.citation}" in words
    assert max(map(len, text.splitlines())) <= 120


def test_list_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["datasets", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert list(printed) == list(CATALOGUE)
    assert printed["csiq"]["images"] == 866
    assert printed["cidgd"]["images"] is None
    assert printed["live"]["available_from"] == CATALOGUE["live"].source


def test_check_says_what_was_found(part: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["datasets", "check", "tid2008", str(part), "--partial"]) == 0
    text = capsys.readouterr().out
    assert "TID2008 (partial, 8 of 1700): 8 images, 1 reference, 2 distortion types, scores 1 to 4.5" in text
    assert "published scores 1 to 4.5; standard deviations: none" in text
    assert "Gaussian blur            4" in text
    assert "nothing is missing or wrong; every image's header read" in text

    assert cli.main(["datasets", "check", "tid2008", str(part), "--partial", "--decode", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == {
        "set": "tid2008",
        "root": str(part),
        "problems": [],
        "name": "TID2008 (partial, 8 of 1700)",
        "images": 8,
        "references": 1,
        "distortions": {"additive Gaussian noise": 4, "Gaussian blur": 4},
        "scores": [1.0, 4.5],
        "published_scores": [1.0, 4.5],
        "deviations": 0,
        "observers": 0,
        "decoded": True,
    }


def test_check_ends_with_code_1_and_every_finding(part: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (part / "reference_images" / "I01.BMP").unlink()
    (part / "distorted_images" / "i01_01_1.bmp").unlink()
    assert cli.main(["datasets", "check", "tid2008", str(part)]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    for words in ("TID2008 cannot be used, 3 findings", "found 7 images and 8 scores", "I01.bmp", "i01_01_1.bmp"):
        assert words in printed.err

    assert cli.main(["datasets", "check", "tid2008", str(part), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert len(found["problems"]) == 3

    assert cli.main(["datasets", "check", "csiq", str(part / "nowhere"), "--json"]) == 1
    (line,) = json.loads(capsys.readouterr().out)["problems"]
    assert "there is no such folder" in line


def test_only_decoding_finds_a_cut_image(part: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = part / "distorted_images" / "i01_01_1.bmp"
    image.write_bytes(image.read_bytes()[:-100])
    command = ["datasets", "check", "tid2008", str(part), "--partial"]
    assert cli.main(command) == 0
    assert cli.main([*command, "--decode"]) == 1
    assert "i01_01_1.bmp" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["check"], "check needs a set and its folder"),
        (["check", "csiq"], "check needs a set and its folder"),
        (["check", "ava", "x"], "invalid choice: 'ava'"),
        (["--decode"], "--decode: only with check"),
    ],
)
def test_a_wrong_command_line_ends_with_code_2(
    command: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["datasets", *command])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_a_published_set_is_a_data_option(part: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "s.safetensors"
    command = ["matrix", "--tid2008", str(part), "--weights", "random", "--maps", "conv1:0", "--out", str(out)]
    assert cli.main(command) == 1
    assert "the whole set has 1700" in capsys.readouterr().err
    assert cli.main([*command, "--partial", "--name", "some of TID2008"]) == 0
    written = ScoreMatrix.load(out)
    assert (written.options["dataset"], len(written)) == ("some of TID2008", 8)


@pytest.mark.parametrize("key", CATALOGUE)
def test_every_published_set_is_a_data_option(key: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = str(tmp_path / "missing")
    assert cli.main(["matrix", f"--{key}", missing, "--weights", "random", "--out", "s"]) == 1
    assert f"{CATALOGUE[key].name} is not at {missing}: there is no such folder" in capsys.readouterr().err


def test_partial_and_name_need_a_set_that_takes_them(capsys: pytest.CaptureFixture[str]) -> None:
    for option, listed in ((["--partial"], "--live or --pipal"), (["--name", "x"], "--pipal or --csv")):
        with pytest.raises(SystemExit):
            cli.main(["matrix", "--demo", "--out", "s", *option])
        message = capsys.readouterr().err
        assert f"{option[0]}: only with --tid2013, " in message
        assert listed in message
