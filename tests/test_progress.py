"""Progress bars go through everything, and never end the work that they are shown for."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest
import torch

from fmiqa import FeatureExtractor, MapIndex, ScoreMatrix, forward_select, permutation_null, score_matrix
from fmiqa._progress import progress_bar
from fmiqa.datasets import Demo
from fmiqa.selection import grouped_folds, held_out


def closed() -> io.TextIOBase:
    stream = io.StringIO()
    stream.close()
    return stream


class Full(io.StringIO):
    """Standard error in a file on a full disk."""

    def write(self, text: str) -> int:
        raise OSError(28, "No space left on device")

    def flush(self) -> None:
        raise OSError(28, "No space left on device")


STREAMS = {
    "none": lambda: None,
    "closed": closed,
    "full": Full,
    "ascii": lambda: io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="strict"),
}


@pytest.fixture(params=STREAMS)
def bad_stderr(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", STREAMS[request.param]())


def test_a_bar_is_shown_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(progress_bar([3, 1, 4], show=True, desc="counting", unit="thing")) == [3, 1, 4]
    printed = capsys.readouterr()
    assert "counting" in printed.err
    assert "3/3" in printed.err
    assert printed.out == ""
    assert list(progress_bar([3, 1, 4], show=False, desc="counting")) == [3, 1, 4]
    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("bad_stderr")
def test_a_bar_that_cannot_be_shown_goes_through_everything() -> None:
    assert list(progress_bar([3, 1, 4], show=True, desc="zählt", unit="Bild")) == [3, 1, 4]
    with progress_bar(show=True, total=5, initial=1, desc="zählt") as bar:
        bar.update(2)
        assert bar.disable or bar.n == 3


@pytest.mark.usefixtures("bad_stderr")
def test_long_work_ends_with_its_result(tmp_path: Path) -> None:
    targets = torch.linspace(0, 1, 24, dtype=torch.float64)
    values = torch.rand(24, 3, generator=torch.Generator().manual_seed(0)) * 0.3 + targets[:, None].float()
    groups = [f"r{i % 4}" for i in range(24)]
    scores = ScoreMatrix(values, MapIndex.of_layers({"conv1": 3}), targets, groups, [f"i{i}" for i in range(24)])
    selection = forward_select(scores, progress=True)
    assert selection.maps == forward_select(scores).maps
    assert permutation_null(scores, permutations=2, max_maps=1, progress=True).null.shape == (2, 1)
    found = held_out(scores, forward_select, splits=grouped_folds(groups, folds=2), progress=True)
    assert len(found.selected) == 2


@pytest.mark.usefixtures("bad_stderr")
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_data_set_of_any_name_is_checked_and_scored(tmp_path: Path) -> None:
    data = Demo(references=2, size=64, levels=1)
    data.write(tmp_path)
    from fmiqa.datasets import CSVDataset

    read = CSVDataset(tmp_path / "scores.csv", higher_is_better=True, name="Gjøvik")
    read.check(progress=True)
    extractor = FeatureExtractor("alexnet", weights=None, layers=["conv1"])
    scores = score_matrix(extractor, read, maps=["conv1:3"], progress=True)
    assert scores.values.shape == (len(data), 1)
