"""What every loader of a published set promises, on a small tree in that set's true layout."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from fmiqa.datasets import CATALOGUE
from fmiqa.datasets.folders import Folder
from fmiqa.errors import DatasetError

# A distorted image of the small tree, its name in the data set, and its reference.
IMAGES = {
    "tid2008": ("distorted_images/i25_17_4.bmp", "i25_17_4.bmp", "reference_images/i25.bmp"),
    "csiq": ("dst_imgs/jpeg2000/boston.jpeg2000.5.png", "boston.jpeg2000.5.png", "src_imgs/boston.png"),
    "cidiq50": (
        "Images/Reproduction/6_DeltaE_Gamut_Mapping/final23_d6_l5.bmp",
        "final23_d6_l5.bmp",
        "Images/Original/final23.bmp",
    ),
    "cidiq100": (
        "Images/Reproduction/1_JPEG2000_Compression/final02_d1_l3.bmp",
        "final02_d1_l3.bmp",
        "Images/Original/final02.bmp",
    ),
    "cidgd": ("Images/r2_1.png", "images/r2_1.png", "Originals/r2.png"),
    "kadid10k": ("images/I81_25_05.png", "i81_25_05.png", "images/I81.png"),
    "live": ("wn/img170.bmp", "wn/img170.bmp", "refimgs/picture23.bmp"),
    "pipal": ("Train_Dist/A0249_01_00.bmp", "a0249_01_00.bmp", "Train_Ref/A0249.bmp"),
}
TABLES = {
    "tid2008": "mos_with_names.txt",
    "csiq": "csiq.DMOS.xlsx",
    "cidiq50": "MOS50.mat",
    "cidiq100": "MOS100.mat",
    "cidgd": "scores.csv",
    "kadid10k": "dmos.csv",
    "live": "dmos_realigned.mat",
    "pipal": "Train_Label",
}
LOWER_IS_BETTER = ("csiq", "live")


def problems(load: Callable[..., object], **options: object) -> tuple[str, ...]:
    with pytest.raises(DatasetError) as caught:
        load(**options)
    return caught.value.problems


@pytest.fixture(scope="module", params=list(IMAGES))
def kept(request: pytest.FixtureRequest, trees: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The small tree of a set, not to be changed."""
    return getattr(trees, request.param)(tmp_path_factory.mktemp(request.param))


@pytest.fixture
def tree(kept: Any, tmp_path: Path, trees: SimpleNamespace) -> Any:
    """A copy of it, to be damaged."""
    shutil.copytree(kept.root, tmp_path / "copy")
    return trees.Tree(kept.key, tmp_path / "copy", kept.expected)


def test_scores_references_types_and_levels(kept: Any) -> None:
    data = kept.load(partial=True)
    assert sorted(data.names) == sorted(kept.expected)
    sign = -1 if kept.key in LOWER_IS_BETTER else 1
    for record in data.records:
        raw, reference, distortion, level = kept.expected[record.name]
        # Tables are written with four decimals at least.
        assert record.raw_score == pytest.approx(raw, abs=1e-4)
        assert record.score == sign * record.raw_score
        assert (record.reference_id, record.level) == (reference, level)
        assert distortion in (None, record.distortion)
        assert record.reference.is_file()
        assert record.distorted.is_file()
        assert record.reference.stem.lower() == reference.rpartition("/")[2].lower()
        assert record.name.rpartition("/")[2] == record.distorted.name.lower()
    assert len({record.distorted for record in data.records}) == len(data)
    assert data.targets.tolist() == [record.score for record in data.records]


def test_images_stand_beside_their_own_reference(kept: Any) -> None:
    # The pictures of one reference are of one grey, which tells it from others.
    data = kept.load(partial=True)
    for i in range(0, len(data), 7):
        sample = data[i]
        assert torch.equal(sample.reference, sample.distorted)


def test_names_say_what_is_partial(kept: Any) -> None:
    data = kept.load(partial=True)
    whole = CATALOGUE[kept.key]
    part = whole.images is not None and len(data) < whole.images
    assert data.name == (f"{whole.name} (partial, {len(data)} of {whole.images})" if part else whole.name)
    assert kept.load(partial=True, name="mine").name == "mine"


def test_a_part_is_not_taken_for_the_whole(kept: Any) -> None:
    whole = CATALOGUE[kept.key].images
    if whole is None or len(kept.expected) == whole:
        kept.load()
        return
    with pytest.raises(DatasetError, match="partial=True") as caught:
        kept.load()
    assert any(f"{len(kept.expected)} scores, the whole set has {whole}" in line for line in caught.value.problems)


def test_no_such_folder(kept: Any) -> None:
    with pytest.raises(DatasetError, match=rf"{CATALOGUE[kept.key].name} is not at .*nowhere: there is no such folder"):
        CATALOGUE[kept.key].load(kept.root / "nowhere")


def test_each_missing_entry_is_named_with_what_it_holds(tree: Any) -> None:
    whole = tree.load(partial=True).whole
    for entry, what in whole.layout.items():
        there = next(path for name in entry.split(" or ") if (path := Folder(tree.root).find(name)))
        away = there.rename(tree.root.parent / "away")
        with pytest.raises(DatasetError) as caught:
            tree.load(partial=True)
        assert f"{tree.root}: {entry} missing" in str(caught.value)
        assert f"{entry}: {what}" in caught.value.problems
        away.rename(there)
    tree.load(partial=True)


def test_parts_may_be_missing_from_a_part_only(tree: Any) -> None:
    whole = tree.load(partial=True).whole
    if not whole.parts:
        pytest.skip("its images lie in one folder")
    before = len(tree.expected)
    for entry in list(whole.parts)[:-1]:
        shutil.rmtree(tree.root / entry)
        data = tree.load(partial=True)
        assert len(data) < before
        before = len(data)
        with pytest.raises(DatasetError, match=rf"{entry} missing .*partial=True takes a part"):
            tree.load()


def test_a_missing_image(tree: Any) -> None:
    image, name, _ = IMAGES[tree.key]
    (tree.root / image).unlink()
    assert sorted(tree.load(partial=True).names) == sorted(set(tree.expected) - {name})
    found = problems(tree.load)
    assert any(name in line and "no such file" in line for line in found)


def test_a_missing_reference(tree: Any) -> None:
    reference = IMAGES[tree.key][2]
    (tree.root / reference).unlink()
    (line,) = problems(tree.load, partial=True)
    assert Path(reference).name.lower() in line.lower()
    assert "no such file" in line
    assert line.startswith("reference of ")


def test_damaged_images(tree: Any) -> None:
    image, name, reference = IMAGES[tree.key]
    (tree.root / image).write_bytes(b"BM")
    (tree.root / reference).write_bytes(b"")
    found = problems(tree.load, partial=True)
    assert len(found) == 2
    assert any(name in line and "not a readable image" in line for line in found)
    assert any(line.startswith("reference of ") and "not a readable image" in line for line in found)


def test_letter_case_of_everything(tree: Any) -> None:
    expected = tree.load(partial=True)
    swapped = sorted(tree.root.rglob("*"), reverse=True)  # what lies deeper comes first
    for path in swapped:
        path.rename(path.with_name(path.name.swapcase()))
    data = tree.load(partial=True)
    assert sorted(zip(data.names, data.targets.tolist(), data.reference_ids, strict=True)) == sorted(
        zip(expected.names, expected.targets.tolist(), expected.reference_ids, strict=True)
    )
    assert data[0].reference.shape == (3, 6, 8)


def test_two_spellings_of_one_file(tree: Any) -> None:
    for path in (tree.root / IMAGES[tree.key][0], tree.root / IMAGES[tree.key][2]):
        twin = path.with_name(path.name.swapcase())
        if twin.exists():
            pytest.skip("a file system that does not tell I from i")
        twin.write_bytes(path.read_bytes())
    found = problems(tree.load, partial=True)
    assert len(found) == 2
    assert all("differ in letter case only; keep one" in line for line in found)
    table = TABLES[tree.key]
    (tree.root / table.swapcase()).touch()
    with pytest.raises(DatasetError, match="ambiguous") as caught:
        tree.load(partial=True)
    assert table in caught.value.problems[0]
    assert table.swapcase() in caught.value.problems[0]


# An image that a careless copy could add, and no score table knows.
@pytest.mark.parametrize(
    ("key", "extra", "name"),
    [
        ("tid2008", "distorted_images/i03_02_1.bmp", "i03_02_1.bmp"),
        ("csiq", "dst_imgs/contrast/1600.contrast.5.png", "1600.contrast.5.png"),
        ("cidiq50", "Images/Reproduction/2_JPEG_Compression/final24_d2_l1.bmp", "final24_d2_l1.bmp"),
        ("kadid10k", "images/I07_02_01.png", "i07_02_01.png"),
        ("live", "gblur/img175.bmp", "gblur/img175.bmp"),
        ("pipal", "Train_Dist/A0000_06_26.bmp", "a0000_06_26.bmp"),
    ],
)
def test_an_image_without_a_score(key: str, extra: str, name: str, trees: SimpleNamespace, tmp_path: Path) -> None:
    tree = getattr(trees, key)(tmp_path)
    trees.put(tmp_path / extra)
    (line,) = problems(tree.load, partial=True)
    assert f"{name} has an image but no score" in line
    assert "score table" in line


def test_other_files_do_not_matter(tree: Any) -> None:
    for folder in {path.parent for path in tree.root.rglob("*.*")}:
        for stray in ("Thumbs.db", "._i01_01_1.bmp", "readme.pdf"):
            (folder / stray).touch()
    assert len(tree.load(partial=True)) == len(tree.expected)
