"""`fmiqa explain`: why a test image got its score."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from image_files import png

import fmiqa
from fmiqa import cli
from fmiqa.datasets import read_image


@pytest.fixture
def pair(study: Path) -> list[str]:
    """The options that name a reference and a test image."""
    return ["--reference", str(study / "references" / "scene02.png"), str(study / "distorted" / "scene02_jpeg_2.png")]


def test_it_prints_a_table_and_writes_a_page(
    pair: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "new" / "page.html"
    assert cli.main(["explain", *pair, "--out", str(page), "--maps", "3", "--device", "cpu"]) == 0
    printed = capsys.readouterr().out
    expected = fmiqa.explain(
        read_image(pair[2]), read_image(pair[1]), maps=3, names=(Path(pair[2]).name, "scene02.png")
    )
    assert printed == f"{expected}\n\nwritten to {page}\n"
    assert page.read_text("utf-8") == expected.to_html()


def test_it_prints_json_without_a_page(pair: list[str], metric_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["explain", *pair, "--metric", str(metric_file), "--json", "--device", "cpu"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["reference"], found["test"]) == (pair[1], pair[2])
    assert len(found["maps"]) == 3
    assert sum(m["share"] for m in found["maps"]) == pytest.approx(1, abs=1e-12)
    assert found["files"] == {}
    metric = fmiqa.SelectedFeatureIQM.load(metric_file)
    assert found["quality"] == metric(read_image(pair[2])[None], read_image(pair[1])[None]).item()


def test_an_image_of_sixteen_bits_with_transparent_pixels(
    pair: list[str], metric_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pixels = read_image(pair[2]).permute(1, 2, 0).numpy().astype(np.uint16) * 257
    clear, page = str(tmp_path / "clear.png"), tmp_path / "page.html"
    Path(clear).write_bytes(png(np.dstack([pixels, np.full(pixels.shape[:2], 60000, np.uint16)])))
    asked = ["explain", *pair[:2], clear, "--metric", str(metric_file), "--device", "cpu", "--json"]
    assert cli.main(asked) == 1
    assert "clear.png: transparent pixels" in capsys.readouterr().err
    assert cli.main([*asked, "--background", "white", "--out", str(page)]) == 0
    test = read_image(clear, background="white")
    metric = fmiqa.SelectedFeatureIQM.load(metric_file)
    expected = metric(test[None], read_image(pair[1])[None]).item()
    # The same operations on the same numbers; SSIM multiplies float32's rounding, 6e-8, by up to 100.
    assert json.loads(capsys.readouterr().out)["quality"] == pytest.approx(expected, abs=6e-6)
    assert page.stat().st_size > 0


def test_errors_say_which_images(
    pair: list[str], study: Path, metric_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metric = ["--metric", str(metric_file)]
    assert cli.main(["explain", *metric, *pair[:2], str(tmp_path / "none.png")]) == 1
    assert "none.png" in capsys.readouterr().err
    assert cli.main(["explain", "--metric", "fats", *pair]) == 1
    assert "neither a file nor a ready-made metric" in capsys.readouterr().err
    small = tmp_path / "small.png"
    from PIL import Image

    Image.new("RGB", (90, 96)).save(small)
    assert cli.main(["explain", *metric, *pair[:2], str(small)]) == 1
    assert f"{small} against {pair[1]}" in capsys.readouterr().err
