from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from fmiqa.datasets import LIVE
from fmiqa.errors import DatasetError


def problems(root: Path, **options: bool) -> tuple[str, ...]:
    with pytest.raises(DatasetError) as caught:
        LIVE(root, **options)
    return caught.value.problems


@pytest.mark.parametrize("table", ["dmos_realigned.mat", "dmos.mat"])
def test_whole_set(table: str, trees: SimpleNamespace, tmp_path: Path) -> None:
    tree = trees.live(tmp_path, table)
    data = LIVE(tmp_path)
    assert data.name == "LIVE"
    assert (len(data), len(set(data.reference_ids))) == (779, 29)
    assert Counter(data.distortions) == {
        "JPEG2000 compression": 169,
        "JPEG compression": 175,
        "white noise": 145,
        "Gaussian blur": 145,
        "fast fading": 145,
    }
    assert set(data.names) == set(tree.expected)  # no hidden original among them
    assert {record.score_std for record in data.records} == {2.5 if table == "dmos_realigned.mat" else None}


def test_the_realigned_scores_come_first(trees: SimpleNamespace, tmp_path: Path) -> None:
    trees.live(tmp_path)
    expected = LIVE(tmp_path).records
    savemat(tmp_path / "dmos.mat", {"dmos": np.full(982, 50.0), "orgs": np.zeros(982)})
    assert LIVE(tmp_path).records == expected
    (tmp_path / "dmos_realigned.mat").unlink()
    assert len(LIVE(tmp_path, partial=True)) == 982


def test_scores_go_by_the_numbers_in_the_names(trees: SimpleNamespace, tmp_path: Path) -> None:
    # img2 comes before img10, which a sorted listing has the other way round.
    trees.live(tmp_path)
    content = loadmat(tmp_path / "dmos_realigned.mat")
    dmos, orgs = content["dmos_new"].ravel(), content["orgs"].ravel()
    by_name = {record.name: record.raw_score for record in LIVE(tmp_path).records}
    starts = {"jp2k": 0, "jpeg": 227, "wn": 460, "gblur": 634, "fastfading": 808}
    for name, raw in by_name.items():
        kind, _, file = name.partition("/")
        position = starts[kind] + int(file[3:-4]) - 1
        assert raw == dmos[position]
        assert orgs[position] == 0


def test_one_folder_alone_as_a_part(trees: SimpleNamespace, tmp_path: Path) -> None:
    trees.live(tmp_path)
    for kind in ("jp2k", "wn", "gblur", "fastfading"):
        (tmp_path / kind).rename(tmp_path.parent / f"{tmp_path.name}_{kind}")
    data = LIVE(tmp_path, partial=True)
    assert data.name == "LIVE (partial, 175 of 779)"
    assert set(data.distortions or ()) == {"JPEG compression"}


def test_damaged_lists_of_references(trees: SimpleNamespace, tmp_path: Path) -> None:
    tree = trees.live(tmp_path)
    rated = [name.partition("/")[2] for name in tree.expected if name.startswith("wn/")]
    info = tmp_path / "wn" / "info.txt"
    lines = {line.split()[1]: line for line in info.read_text().splitlines()}
    lines[rated[0]] = "bikes.bmp"
    lines[rated[1]] = f"twice.bmp {rated[2]} 0.5"
    info.write_text("\n".join(lines.values()))
    (tmp_path / "gblur" / "info.txt").unlink()
    found = problems(tmp_path)
    expected = [
        ("the whole set has 779",),
        ("wn/info.txt, line ", "expected 'bikes.bmp img1.bmp 0.5', got 'bikes.bmp'"),
        ("wn/info.txt, line ", f"{rated[2]} is of ", "keep one"),
        ("wn/info.txt does not name the reference of " + rated[0], "fetch it again"),
        ("wn/info.txt does not name the reference of " + rated[1],),
        ("gblur has no info.txt", "fetch it again"),
    ]
    for words in expected:
        assert any(all(word in line for word in words) for line in found), words
    # Without its list, no image of a folder has a reference: each is named.
    assert sum("gblur/info.txt does not name" in line for line in found) == 145
    assert len(found) == len(expected) + 145


def test_another_number_of_references(trees: SimpleNamespace, tmp_path: Path) -> None:
    trees.live(tmp_path)
    for kind in ("jp2k", "jpeg", "wn", "gblur", "fastfading"):
        info = tmp_path / kind / "info.txt"
        info.write_text(info.read_text().replace("bikes.bmp", "picture0.bmp"))
    (line,) = problems(tmp_path)
    assert "28 references, the whole set has 29" in line
    assert len(LIVE(tmp_path, partial=True)) == 779


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"dmos_new": np.ones(981)}, ("dmos_new has 981 values, expected 982 (227 + 233 + 174 + 174 + 174)", "whole")),
        ({"orgs": np.ones((2, 982))}, ("orgs has 1964 values",)),
        ({"dmos_std": np.ones(3)}, ("dmos_std has 3 values",)),
        ({"dmos_new": np.array(["low"] * 982)}, ("dmos_new holds <U3, expected numbers",)),
        ({"dmos_new": None}, ("no variable dmos_new; variables there are: dmos_std, orgs",)),
    ],
)
def test_tables_of_another_form(
    change: dict[str, object], words: tuple[str, ...], trees: SimpleNamespace, tmp_path: Path
) -> None:
    trees.live(tmp_path)
    content = {k: v for k, v in loadmat(tmp_path / "dmos_realigned.mat").items() if not k.startswith("__")} | change
    savemat(tmp_path / "dmos_realigned.mat", {k: v for k, v in content.items() if v is not None})
    (line,) = problems(tmp_path)
    assert "dmos_realigned.mat" in line
    assert all(word in line for word in words)


def test_scores_off_the_scale(trees: SimpleNamespace, tmp_path: Path) -> None:
    trees.live(tmp_path)
    content = loadmat(tmp_path / "dmos_realigned.mat")
    dmos, orgs = content["dmos_new"].ravel(), content["orgs"].ravel()
    first, second = np.flatnonzero(orgs == 0)[[0, 1]]
    dmos[first], dmos[second] = 1000, np.nan
    savemat(tmp_path / "dmos_realigned.mat", {"dmos_new": dmos, "orgs": orgs})
    off, missing = problems(tmp_path)
    assert f"score {first + 1}: jp2k/img{first + 1}.bmp has the score 1000, expected -20 to 130" in off
    assert f"jp2k/img{second + 1}.bmp has the score nan" in missing
