from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from fmiqa.datasets import PIPAL
from fmiqa.errors import DatasetError


def problems(root: Path) -> tuple[str, ...]:
    with pytest.raises(DatasetError) as caught:
        PIPAL(root, partial=True)
    return caught.value.problems


@pytest.mark.slow
def test_whole_set(trees: SimpleNamespace, tmp_path: Path) -> None:
    trees.pipal(tmp_path, range(200), algorithms=116)
    data = PIPAL(tmp_path)
    assert repr(data).startswith("<PIPAL: 23200 images, 200 references, 7 distortion types, ")
    assert len(set(data.records)) == 23200


@pytest.mark.parametrize(
    "folders",
    [
        ("Train_Dist_1", "Train_Dist_2", "Train_Dist_3", "Train_Dist_4"),
        ("Distortion_1", "Distortion_2"),
        ("Train_Distort_1", "Train_Distort_2"),
        ("Dist_Imgs",),
        ("train_dist",),
    ],
)
def test_images_in_several_folders(folders: tuple[str, ...], trees: SimpleNamespace, tmp_path: Path) -> None:
    tree = trees.pipal(tmp_path, folders=folders, algorithms=14)
    (tmp_path / "Val_Dist").mkdir()
    trees.put(tmp_path / "Val_Dist" / "A0005_00_00.bmp")  # of the validation part, which has no scores
    data = PIPAL(tmp_path, partial=True)
    assert set(data.names) == set(tree.expected)
    assert {record.distorted.parent.name for record in data.records} == set(folders)
    assert data.distortions is not None
    assert sorted(set(data.distortions)) == [f"group 0{n}" for n in range(7)]


def test_no_distorted_images(trees: SimpleNamespace, tmp_path: Path) -> None:
    trees.pipal(tmp_path, folders=("Pictures",))
    with pytest.raises(DatasetError, match=r"Train_Dist missing; .*Train_Dist_1"):
        PIPAL(tmp_path, partial=True)


def test_every_kind_of_damage_at_once(trees: SimpleNamespace, tmp_path: Path) -> None:
    trees.pipal(tmp_path, folders=("Train_Dist_1", "Train_Dist_2"), algorithms=8)
    trees.put(tmp_path / "Train_Dist_2" / "A0000_00_00.bmp")
    table = tmp_path / "Train_Label" / "A0000.txt"
    lines = table.read_text().splitlines()
    lines[1] = "A0000_01_00.bmp,high"
    lines[2] = "A0000_02_00.bmp 1400"
    lines[3] = "A0000_03_00.bmp,3.5"
    lines[4] = lines[5]
    lines[6] = "A0000_06_00.bmp,nan"
    table.write_text("\n".join(lines))
    found = problems(tmp_path)
    expected = [
        ("a0000_00_00.bmp is in ", "Train_Dist_1 and in ", "Train_Dist_2; keep one"),
        ("A0000.txt, line 2:", "expected 'A0000_00_00.bmp,1446.76', got 'A0000_01_00.bmp,high'"),
        ("A0000.txt, line 3:", "got 'A0000_02_00.bmp 1400'"),
        ("A0000.txt, line 4:", "a0000_03_00.bmp has the score 3.5, expected 900 to 1900"),
        ("A0000.txt, line 6:", "a0000_05_00.bmp has a second score", "line 5"),
        ("A0000.txt, line 7:", "a0000_06_00.bmp has the score nan"),
        ("a0000_01_00.bmp has an image but no score",),
        ("a0000_02_00.bmp has an image but no score",),
        ("a0000_04_00.bmp has an image but no score",),
    ]
    for words in expected:
        assert any(all(word in line for word in words) for line in found), words
    assert len(found) == len(expected)
