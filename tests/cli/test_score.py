"""`fmiqa score`: a line an image, from a metric file or a selection."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from fmiqa import SelectedFeatureIQM, cli
from fmiqa.datasets import read_image


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
