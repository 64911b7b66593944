"""Files that version 0.1 wrote still load, and give the figures that version 0.1 computed from them."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parent / "data" / "version-0.1"
FILES: dict[str, Any] = json.loads((FOLDER / "expected.json").read_text("utf-8"))["files"]


def maker() -> Any:
    """The script that made the files, for its recipes and for how it reads a file."""
    spec = importlib.util.spec_from_file_location("version_0_1", FOLDER / "make.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def assert_same(found: Any, expected: Any, where: str, tolerance: float) -> None:
    if isinstance(expected, dict):
        for key, value in expected.items():
            assert_same(found[key], value, f"{where}/{key}", tolerance)
    elif isinstance(expected, list):
        assert len(found) == len(expected), where
        for number, (ours, theirs) in enumerate(zip(found, expected, strict=True)):
            assert_same(ours, theirs, f"{where}[{number}]", tolerance)
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=tolerance, abs=tolerance), where
    else:
        assert found == expected, where


@pytest.mark.parametrize("path", sorted(FILES))
def test_files_of_version_0_1_load_with_the_same_figures(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if "piq" in path:
        pytest.importorskip("piq")
    monkeypatch.chdir(FOLDER)
    make = maker()
    figures = next(read for start, _, _, read in make.LOADERS if path.startswith(start))
    # Map scores are float32, and a fit that is evaluated at them moves by its slope of at most some ten. A network in
    # bfloat16 has eight bits of precision, and its sums depend on the processor.
    tolerance = 2e-2 if "bfloat16" in path else 1e-5
    found, expected = make.numbers(figures(path)), FILES[path]["figures"]
    for both in (found, expected):  # the words at the head of a table are not part of the promise
        both.update({name: table[1:] for name, table in both.items() if name.startswith("table_")})
    assert_same(found, expected, path, tolerance)


def test_held_out_figures_of_version_0_1_load_as_a_validation() -> None:
    from fmiqa import Validation

    path = FOLDER / "held-out-weighted.json"
    content = json.loads(path.read_text())
    found = Validation.load(path)
    assert found.plcc[:, 0].tolist() == content["plcc"]
    assert found.srocc[:, 0].tolist() == content["srocc"]
    assert found.predictions is not None
    assert found.predictions.tolist() == list(content["predictions"].values())
    assert [[str(m) for m in maps] for maps in found.selected] == content["selected"]
