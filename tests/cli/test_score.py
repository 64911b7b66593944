"""`fmiqa score`: a line an image, from a metric file or a selection."""

from __future__ import annotations

import csv
import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from image_files import png
from PIL import Image
from torch import Tensor

from fmiqa import FeatureExtractor, SelectedFeatureIQM, cli
from fmiqa.datasets import read_image
from fmiqa.visualize import overlay_error


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


def test_score_of_sixteen_bits_and_of_transparent_pixels(
    pair: tuple[str, list[str]], metric_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reference, (test, _) = pair
    pixels = read_image(test).permute(1, 2, 0).numpy()
    deep = pixels.astype(np.uint16) * 257
    names = [str(tmp_path / f"{name}.png") for name in ("same", "finer", "opaque", "clear")]
    finer = np.where(deep < 65535, deep + 100, deep)
    clear = np.dstack([pixels, np.arange(pixels[..., 0].size).reshape(pixels.shape[:2]) % 256]).astype(np.uint8)
    for name, content in zip(names, (deep, finer, np.dstack([deep, 0 * deep[..., :1] + 65535]), clear), strict=True):
        Path(name).write_bytes(png(content))
    asked = ["score", "--metric", str(metric_file), "--reference", reference, "--json", test, *names]
    assert cli.main(asked) == 1
    assert "clear.png: transparent pixels" in capsys.readouterr().err
    assert cli.main([*asked, "--background", "no such colour"]) == 1
    assert "is no opaque colour" in capsys.readouterr().err
    maps = ["--background", "#204060", "--maps", str(tmp_path / "maps")]
    assert cli.main([*asked, *maps]) == 0
    eight, *others = (entry["quality"] for entry in json.loads(capsys.readouterr().out)["images"])
    metric = SelectedFeatureIQM.load(metric_file)
    tests = [read_image(name, background=(32, 64, 96)) for name in names]
    assert [t.dtype for t in tests] == [torch.float32] * 3 + [torch.uint8]
    assert torch.equal(tests[1], torch.from_numpy(finer.astype(np.float32) / np.float32(65535)).permute(2, 0, 1))
    expected = [metric(t[None], read_image(reference)[None]).item() for t in tests]
    # The same numbers pass through the same operations; SSIM multiplies float32's rounding, 6e-8, by up to 100.
    assert others == pytest.approx(expected, abs=6e-6)
    assert others[0] == pytest.approx(eight, abs=6e-6)
    assert others[2] == pytest.approx(eight, abs=6e-6)
    assert read_image(tmp_path / "maps" / "finer.png").shape == tests[1].shape


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


def test_pairs_are_read_as_any_other_table(
    study: Path, metric_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("my references", "distorted"):
        (tmp_path / name).mkdir()
    (tmp_path / "my references" / "a b.png").write_bytes((study / "references" / "scene02.png").read_bytes())
    for level in (1, 2):
        image = study / "distorted" / f"scene02_jpeg_{level}.png"
        (tmp_path / "distorted" / f"{level}.png").write_bytes(image.read_bytes())
    rows = ["distorted ; note; reference", r"distorted\1.png; ;my references\a b.png", ""]
    rows.append('"./distorted/2.png";"one; two" ; distorted/../my references/a b.png ')
    table = tmp_path / "pairs.csv"
    printed = []
    for text, encoding in [
        ("\n".join(rows), "utf-8"),
        ("\r\n".join(["", *rows, ""]), "utf-8-sig"),
        ("sep=;\r\n" + "\r\n".join(rows), "utf-16"),
        ("\n".join(rows).replace("one; two", "one, two").replace(";", "\t"), "utf-8"),
    ]:
        table.write_bytes(text.encode(encoding))
        assert cli.main(["score", "--metric", str(metric_file), "--pairs", str(table)]) == 0
        printed.append(capsys.readouterr().out)
    assert len(printed[0].splitlines()) == 2
    assert set(printed) == {printed[0]}


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
        (b"a,b\nx,y\n", "no column 'reference', 'distorted'; columns there are: a, b"),
        (b"reference,distorted\nr.png,\n", "line 2"),
        (b"reference,distorted\n", "no pairs"),
        (b"reference,distorted\nr.png,t.png,3\nr.png\n", "line 2: 3 cells, the header has 2"),
        (b"reference,distorted\nr.png,t.png,3\nr.png\n", "line 3: 1 cells, the header has 2"),
        (b"reference,reference,distorted\nr.png,s.png,t.png\n", "two columns named 'reference'"),
        (b"\x89PNG\r\n\xff\xfe", "line 1: not UTF-8 text"),
    ],
)
def test_a_bad_table_of_pairs_is_explained(
    content: bytes, message: str, metric_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "pairs.csv"
    table.write_bytes(content)
    assert cli.main(["score", "--metric", str(metric_file), "--pairs", str(table)]) == 1
    assert message in capsys.readouterr().err


def test_a_joined_selection_scores_as_its_metric_file_does(
    pair: tuple[str, list[str]],
    joined_selection: Path,
    weights_files: dict[str, str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    reference, tests = pair
    images = ["--reference", reference, *tests, "--json"]
    weights = [word for name, path in weights_files.items() for word in ("--weights", f"{name}={path}")]
    printed = []
    for chosen in (
        ["--metric", str(joined_selection.with_name("metric.safetensors"))],
        ["--selection", str(joined_selection), *weights],
        ["--selection", str(joined_selection), "--weights", "random", *weights[:2]],
    ):
        assert cli.main(["score", *chosen, *images]) == 0
        printed.append(json.loads(capsys.readouterr().out)["images"])
    assert printed[1] == printed[0]
    assert printed[2] == printed[0]


def test_only_the_networks_of_the_chosen_maps_are_loaded(
    pair: tuple[str, list[str]],
    sources: dict[str, Path],
    weights_files: dict[str, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    reference, tests = pair
    selection = str(tmp_path / "s.json")
    asked = ["--start", "full/conv1:1", "--max-maps", "1", "--out", selection]
    assert cli.main(["select", str(sources["full"]), str(sources["squeezenet"]), *asked]) == 0
    weights = ["--weights", "squeezenet1_1=missing.pth", "--weights", weights_files["alexnet"]]
    capsys.readouterr()
    assert cli.main(["score", "--selection", selection, *weights, "--reference", reference, *tests]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2


@pytest.fixture
def folders(study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, list[str]]:
    """A working folder with ref/ and test/, and the test images in the order of their pairs."""
    monkeypatch.chdir(tmp_path)
    for name in ("ref/scene01.png", "ref/scene02.png"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_bytes((study / "references" / Path(name).name).read_bytes())
    tests = []
    for name in ("scene01_jpeg_1", "scene01_jpeg_2", "scene02_jpeg_2"):
        image = Image.open(study / "distorted" / f"{name}.png").convert("RGB")
        Path("test").mkdir(exist_ok=True)
        tests.append(f"test/{name.upper()}.bmp")
        image.save(tests[-1])
    return tmp_path, tests


def read_table(path: str) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_two_folders_are_paired_by_name(
    folders: tuple[Path, list[str]], metric_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, tests = folders
    metric = SelectedFeatureIQM.load(metric_file)
    references = [f"ref/scene0{k}.png" for k in (1, 1, 2)]
    expected = [
        metric(read_image(test)[None], read_image(reference)[None]).item()
        for test, reference in zip(tests, references, strict=True)
    ]
    assert cli.main(["score", "--metric", str(metric_file), "ref", "test/", "--csv", "new/out.csv"]) == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [name for name, _ in lines] == tests
    assert [float(quality) for _, quality in lines] == pytest.approx(expected, abs=6e-7)
    rows = read_table("new/out.csv")
    assert list(rows[0]) == ["reference", "test", "quality"]
    assert [row["reference"] for row in rows] == references
    assert [row["test"] for row in rows] == tests
    assert [float(row["quality"]) for row in rows] == pytest.approx(expected, abs=1e-6)
    assert cli.main(["score", "--metric", str(metric_file), "ref", "test", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["images"]
    assert [(entry["test"], entry["reference"]) for entry in found] == list(zip(tests, references, strict=True))
    assert [float(row["quality"]) for row in rows] == [entry["quality"] for entry in found]  # all digits


def test_folders_that_cannot_be_paired_are_explained(
    folders: tuple[Path, list[str]], metric_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("ref/scene02.png").unlink()
    Path("ref/scene03.png").touch()
    Path("empty").mkdir()
    for given, message in {
        ("ref", "test"): "1 test image without a reference in ref: SCENE02_JPEG_2.bmp",
        ("ref", "./test"): "1 reference without a test image in test: scene03.png",
        ("ref", "empty"): "no images in empty",
        ("ref", "missing"): "missing is not a folder; without --reference or --pairs, give two folders",
        ("ref/scene01.png", "test"): "ref/scene01.png is not a folder",
    }.items():
        assert cli.main(["score", "--metric", str(metric_file), *given, "--csv", "out.csv"]) == 1
        printed = capsys.readouterr()
        assert message in printed.err
        assert printed.out == ""
    assert not Path("out.csv").exists()


def test_every_form_writes_a_table(
    pair: tuple[str, list[str]], metric_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference, tests = pair
    odd = 'a, "b"\n\u00e9.png'
    monkeypatch.chdir(tmp_path)
    Path(odd).write_bytes(Path(tests[1]).read_bytes())
    asked = ["score", "--metric", str(metric_file), "--csv", "out.csv"]
    assert cli.main([*asked, "--reference", reference, tests[0], odd]) == 0
    rows = read_table("out.csv")
    assert [(row["reference"], row["test"]) for row in rows] == [(reference, tests[0]), (reference, odd)]
    Path("pairs.csv").write_text(f"reference,distorted\n{reference},{tests[0]}\n{reference},{tests[1]}\n")
    assert cli.main([*asked, "--pairs", "pairs.csv", "--json"]) == 0
    again = read_table("out.csv")
    assert [row["test"] for row in again] == tests
    assert [row["quality"] for row in again] == [row["quality"] for row in rows]


@pytest.mark.parametrize("json_too", [False, True])
def test_a_table_that_cannot_be_written_costs_no_result(
    json_too: bool, pair: tuple[str, list[str]], metric_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    reference, tests = pair

    def failing(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (tmp_path / "out.csv").write_text("old")
    monkeypatch.setattr(os, "fsync", failing)
    asked = ["--csv", str(tmp_path / "out.csv"), "--maps", str(tmp_path / "maps"), *(["--json"] if json_too else [])]
    assert cli.main(["score", "--metric", str(metric_file), "--reference", reference, *tests, *asked]) == 1
    printed = capsys.readouterr()
    assert all(test in printed.out for test in tests)
    assert printed.err.splitlines() == [
        f"fmiqa: {tmp_path / 'maps' / 'scene02_jpeg_1.png'}: No space left on device",
        f"{tmp_path / 'out.csv'}: No space left on device",
    ]
    assert (tmp_path / "out.csv").read_text() == "old"
    assert list((tmp_path / "maps").iterdir()) == []


def test_what_is_done_when_interrupted_is_whole(
    pair: tuple[str, list[str]], metric_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    reference, tests = pair

    def read(path: str, **options: object) -> Tensor:
        if path == tests[1]:
            raise KeyboardInterrupt
        return read_image(path)

    monkeypatch.setattr("fmiqa.cli.score.read_image", read)
    monkeypatch.chdir(tmp_path)
    asked = ["--csv", "out.csv", "--maps", "maps"]
    assert cli.main(["score", "--metric", str(metric_file), "--reference", reference, *tests, *asked]) == 130
    printed = capsys.readouterr()
    assert printed.out.startswith(f"{tests[0]}\t")
    assert printed.out.count("\n") == 1
    said = "The lines printed so far are whole. So are the pictures in maps. out.csv was not written."
    assert printed.err == f"fmiqa: interrupted. {said}\n"
    assert os.listdir(tmp_path) == ["maps"]
    assert read_image("maps/scene02_jpeg_1.png").shape == read_image(tests[0]).shape


def test_maps_show_where_an_image_is_worse(
    study: Path, metric_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    reference = str(study / "references" / "scene02.png")
    image = read_image(reference).clone()
    image[:, 10:34, 60:84] = 128
    for name in ("a.png", "a.bmp", "sub/A.png", "a-2.png", "b.v1.png"):
        Path(name).parent.mkdir(exist_ok=True)
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(name)
    tests = ["a.png", "a.bmp", "sub/A.png", "a-2.png", "b.v1.png"]
    files = ["--maps", "maps", "--csv", "o.csv", "--json"]
    assert cli.main(["score", "--metric", str(metric_file), "--reference", reference, *tests, *files]) == 0
    names = ["maps/a.png", "maps/a-3.png", "maps/A-4.png", "maps/a-2.png", "maps/b.v1.png"]
    found = json.loads(capsys.readouterr().out)
    assert [entry["map"] for entry in found["images"]] == names
    assert found["files"] == [*names, "o.csv"]
    rows = read_table("o.csv")
    assert list(rows[0]) == ["reference", "test", "quality", "map"]
    assert [row["map"] for row in rows] == names
    assert sorted(os.listdir("maps")) == sorted(Path(name).name for name in names)
    metric = SelectedFeatureIQM.load(metric_file)
    expected = overlay_error(image, metric.error_map(image[None], read_image(reference)[None])[0, 0])
    for name in names:
        assert (read_image(name).int() - expected.int()).abs().max() <= 1
    colour = (expected[0].int() - expected[2].int()).float()
    assert colour[10:34, 60:84].mean() > 1.5 * colour[60:, :40].mean()


def test_a_metric_without_local_values_has_no_maps(
    pair: tuple[str, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reference, tests = pair
    with pytest.warns(UserWarning, match="random weights"):
        SelectedFeatureIQM(FeatureExtractor("alexnet", weights=None), ["conv1:1"], measure="psnr").save(tmp_path / "m")
    asked = ["--metric", str(tmp_path / "m"), "--reference", reference, *tests]
    assert cli.main(["score", *asked]) == 0
    capsys.readouterr()
    assert cli.main(["score", *asked, "--maps", str(tmp_path / "maps")]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "the measure psnr" in printed.err
    assert not (tmp_path / "maps").exists()
