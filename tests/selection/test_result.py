"""A selection saved, loaded, shown and drawn."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from fmiqa import FileFormatError, Selection, forward_select


@pytest.fixture(scope="module")
def selection() -> Selection:
    generator = torch.Generator().manual_seed(1)
    targets = torch.rand(60, generator=generator)
    values = targets[:, None] + torch.rand(60, 9, generator=generator)
    return forward_select(values, targets)


def test_json_round_trip(selection: Selection, tmp_path: Path) -> None:
    path = tmp_path / "selected.json"
    selection.save(path)
    loaded = Selection.load(path)
    assert loaded.maps == selection.maps
    assert loaded.curve == selection.curve
    assert loaded.options == selection.options
    assert str(loaded) == str(selection)
    assert loaded.fit is not None
    assert selection.fit is not None
    assert torch.equal(loaded.fit.parameters, selection.fit.parameters)
    assert json.loads(path.read_text())["maps"] == [str(m) for m in selection.maps]


def test_a_single_candidate_has_no_runner_up(tmp_path: Path) -> None:
    targets = torch.arange(8.0)
    lone = forward_select((targets + 0.1 * targets.sin())[:, None], targets)
    assert lone.steps[0].runner_up is None
    lone.save(tmp_path / "lone.json")
    assert math.isnan(Selection.load(tmp_path / "lone.json").steps[0].runner_up_value)


def test_damaged_and_foreign_files_are_refused(selection: Selection, tmp_path: Path) -> None:
    path = tmp_path / "selected.json"
    selection.save(path)
    whole = path.read_text()
    path.write_text(whole[: len(whole) // 2])
    with pytest.raises(FileFormatError, match="damaged"):
        Selection.load(path)
    path.write_text('{"a": 1}')
    with pytest.raises(FileFormatError, match="something else"):
        Selection.load(path)
    with pytest.raises(FileFormatError, match="no file"):
        Selection.load(tmp_path / "absent.json")
    content = json.loads(whole)
    del content["steps"]
    path.write_text(json.dumps(content))
    with pytest.raises(FileFormatError, match="steps"):
        Selection.load(path)


def test_table_names_every_map_and_says_in_sample(selection: Selection) -> None:
    html = selection._repr_html_()
    assert "in sample" in html
    assert "in sample" in repr(selection)
    for m in selection.maps:
        assert f"<td>{m}</td>" in html
        assert str(m) in str(selection)


def test_plot_draws_the_curve(selection: Selection) -> None:
    pytest.importorskip("matplotlib")
    ax = selection.plot()
    (line,) = ax.get_lines()
    assert list(line.get_ydata()) == selection.curve
    assert "in sample" in ax.get_ylabel()
