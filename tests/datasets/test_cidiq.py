"""CID:IQ: the scores have no names, so everything hangs on their order."""

from __future__ import annotations

import random
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.io import savemat

import fmiqa
from fmiqa.datasets import CIDIQ
from fmiqa.errors import DatasetError, InputError


def problems(root: Path, distance: int = 50, **options: object) -> tuple[str, ...]:
    with pytest.raises(DatasetError) as caught:
        CIDIQ(root, distance=distance, **options)  # type: ignore[arg-type]
    return caught.value.problems


def assert_mapping(data: CIDIQ, distance: int) -> None:
    """Row r of the published vector is image r // 5 % 23 + 1 of folder r // 115 + 1 at level r % 5 + 1."""
    assert len(data) == 690
    for row, record in enumerate(data.records):
        folder, image, level = row // 115 + 1, row // 5 % 23 + 1, row % 5 + 1
        assert record.name == record.distorted.name == f"final{image:02d}_d{folder}_l{level}.bmp"
        assert record.distorted.parent.name.startswith(f"{folder}_")
        assert record.reference.name == f"final{image:02d}.bmp"
        assert record.score == pytest.approx(1 + folder + image / 100 + level / 1000 + distance / 1e6, abs=1e-9)
        assert record.level == level


@pytest.mark.parametrize("seed", [0, 1])
def test_files_made_in_any_order(seed: int, trees: SimpleNamespace, tmp_path: Path) -> None:
    trees.cidiq(tmp_path, 50, seed=seed)
    assert_mapping(CIDIQ(tmp_path, distance=50), 50)


@pytest.mark.parametrize("seed", [0, 1])
def test_directories_listed_in_any_order(
    seed: int, trees: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trees.cidiq(tmp_path, 100)
    listing = Path.iterdir
    shuffled: list[list[Path]] = []

    def in_any_order(path: Path) -> list[Path]:
        entries = list(listing(path))
        random.Random(seed + len(shuffled)).shuffle(entries)
        shuffled.append(entries)
        return entries

    monkeypatch.setattr(Path, "iterdir", in_any_order)
    # Even where nobody sorts what was listed.
    monkeypatch.setattr("fmiqa.datasets.folders.sorted", lambda entries: list(entries), raising=False)
    data = CIDIQ(tmp_path, distance=100)
    assert any(entries != sorted(entries) for entries in shuffled)
    assert_mapping(data, 100)


def test_a_part_keeps_each_score_with_its_image(trees: SimpleNamespace, tmp_path: Path) -> None:
    tree = trees.cidiq(tmp_path, 50)
    for path in list((tmp_path / "Images" / "Reproduction").rglob("*.bmp"))[::3]:
        path.unlink()
    data = CIDIQ(tmp_path, distance=50, partial=True)
    assert len(data) == 460
    for record in data.records:
        assert record.score == pytest.approx(tree.expected[record.name][0], abs=1e-9)


def test_both_distances_beside_each_other(trees: SimpleNamespace, tmp_path: Path) -> None:
    trees.cidiq(tmp_path, 50)
    trees.cidiq(tmp_path, 100)
    near, far = CIDIQ(tmp_path, distance=50), CIDIQ(tmp_path, distance=100)
    assert (near.name, far.name) == ("CID:IQ 50 cm", "CID:IQ 100 cm")
    assert near.names == far.names
    assert torch.allclose(far.targets - near.targets, torch.tensor(5e-5, dtype=torch.float64), atol=1e-9)
    with pytest.raises(InputError, match=r"50 or 100 \(cm\), got 75"):
        CIDIQ(tmp_path, distance=75)  # type: ignore[arg-type]


def test_ratings_of_the_observers(trees: SimpleNamespace, tmp_path: Path) -> None:
    trees.cidiq(tmp_path, 50)
    ratings = np.random.default_rng(0).integers(1, 10, (690, 17)).astype(float)
    ratings[3, 4] = np.nan
    savemat(tmp_path / "MOS50.mat", {"mos50": ratings})
    (tmp_path / "Images" / "Reproduction" / "1_JPEG2000_Compression" / "final01_d1_l1.bmp").unlink()
    data = CIDIQ(tmp_path, distance=50, partial=True)
    assert data.ratings is not None
    assert data.ratings.shape == (689, 17)
    assert np.array_equal(data.ratings.numpy(), ratings[1:], equal_nan=True)
    assert np.allclose(data.targets.numpy(), np.nanmean(ratings[1:], axis=1))
    assert data.records[2].score_std == pytest.approx(np.nanstd(ratings[3], ddof=1))


def test_ratings_feed_the_observer_study(trees: SimpleNamespace, tmp_path: Path) -> None:
    trees.cidiq(tmp_path, 50)
    generator = torch.Generator().manual_seed(0)
    values = torch.rand(690, 3, generator=generator, dtype=torch.float64)
    savemat(tmp_path / "MOS50.mat", {"MOS50": (1 + 8 * values[:, [0, 1]]).numpy()})
    data = CIDIQ(tmp_path, distance=50)
    assert data.ratings is not None
    study = fmiqa.observer_study(values, data.ratings, groups=data.reference_ids, folds=2, max_maps=1)
    assert [str(*maps) for maps in study.selected] == ["map:0", "map:1"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"MOS50": np.ones(689)}, ("MOS50.mat: MOS50 is 1 x 689", "expected 690 scores", "fetch the whole file")),
        ({"MOS50": np.ones((17, 690))}, ("MOS50 is 17 x 690", "690 x observers")),
        ({"MOS100": np.ones(690)}, ("no variable MOS50", "there are: mos100")),
        ({"MOS50": np.array(["good"] * 690)}, ("MOS50 holds <U4, expected numbers",)),
        ({"MOS50": np.full(690, 3.0).astype(object)}, ("MOS50 holds object, expected numbers",)),
    ],
)
def test_tables_of_another_form(
    content: dict[str, object], words: tuple[str, ...], trees: SimpleNamespace, tmp_path: Path
) -> None:
    trees.cidiq(tmp_path, 50)
    savemat(tmp_path / "MOS50.mat", content)
    (line,) = problems(tmp_path)
    assert all(word in line for word in words)


def test_scores_off_the_scale(trees: SimpleNamespace, tmp_path: Path) -> None:
    trees.cidiq(tmp_path, 50)
    scores = np.full((690, 2), 5.0)
    scores[0] = 0.5
    scores[114, 1] = 9.5
    scores[689] = np.nan
    savemat(tmp_path / "MOS50.mat", {"MOS50": scores})
    first, second, third = problems(tmp_path)
    assert "MOS50.mat, row 1: final01_d1_l1.bmp has the score 0.5, expected 1 to 9" in first
    assert "row 115: final23_d1_l5.bmp has the score 9.5" in second
    assert "row 690: final23_d6_l5.bmp has the score nan" in third


def test_files_that_are_no_mat(trees: SimpleNamespace, tmp_path: Path) -> None:
    trees.cidiq(tmp_path, 50)
    (tmp_path / "MOS50.mat").write_bytes(b"<html>not found</html>" * 20)
    with pytest.raises(DatasetError, match=r"MOS50.mat is not a readable .mat file .*fetch it again"):
        CIDIQ(tmp_path, distance=50)
    header = b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM"
    (tmp_path / "MOS50.mat").write_bytes(header + b"\x89HDF\r\n\x1a\n" + bytes(512))
    with pytest.raises(DatasetError, match=r"version 7.3; load it in MATLAB and save it with save\(..., '-v7'\)"):
        CIDIQ(tmp_path, distance=50)
