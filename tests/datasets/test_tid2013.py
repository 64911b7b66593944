from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fmiqa.datasets import TID2013
from fmiqa.errors import DatasetError

# The names that the database's description gives to types 1, 8, 11 and 24.
PUBLISHED = {
    1: "additive Gaussian noise",
    8: "Gaussian blur",
    11: "JPEG2000 compression",
    24: "sparse sampling and reconstruction",
}


def make_tree(
    root: Path,
    references: range = range(1, 26),
    types: range | list[int] = range(1, 25),
    *,
    deviations: bool = True,
) -> list[str]:
    """The real layout, real spellings included, with tiny pictures; the names in the order of the table."""
    (root / "reference_images").mkdir(parents=True)
    (root / "distorted_images").mkdir()
    names, scores = [], []
    for r in references:
        picture = Image.fromarray(np.full((6, 8, 3), r, np.uint8))
        picture.save(root / "reference_images" / ("i25.bmp" if r == 25 else f"I{r:02d}.BMP"), "BMP")
        encoded = (root / "reference_images" / ("i25.bmp" if r == 25 else f"I{r:02d}.BMP")).read_bytes()
        for t in types:
            for level in range(1, 6):
                # The distributed files are i01_01_1.bmp, their names in the table I01_01_1.bmp.
                (root / "distorted_images" / f"i{r:02d}_{t:02d}_{level}.bmp").write_bytes(encoded)
                names.append(f"I{r:02d}_{t:02d}_{level}.bmp")
                scores.append(6 - level + t / 100 + r / 1000)
    (root / "mos_with_names.txt").write_text("".join(f"{s:.5f} {n}\n" for s, n in zip(scores, names, strict=True)))
    if deviations:
        (root / "mos_std.txt").write_text("".join(f"{0.1 + i / 1e5:.5f}\n" for i in range(len(names))))
    return names


def problems(root: Path, **options: bool) -> tuple[str, ...]:
    with pytest.raises(DatasetError) as caught:
        TID2013(root, **options)  # type: ignore[arg-type]
    return caught.value.problems


@pytest.fixture
def part(tmp_path: Path) -> Path:
    make_tree(tmp_path, range(1, 3), [1, 8])
    return tmp_path


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("whole")
    make_tree(root)
    return root


def test_whole_set(whole: Path) -> None:
    data = TID2013(whole)
    assert data.name == "TID2013"
    assert repr(data).startswith("<TID2013: 3000 images, 25 references, 24 distortion types, ")
    assert sorted(set(data.reference_ids)) == [f"I{r:02d}" for r in range(1, 26)]
    assert len(set(data.records)) == 3000
    record = data.records[-1]
    assert record.name == "i25_24_5.bmp"
    assert record.reference.name == "i25.bmp"
    assert (record.level, record.distortion) == (5, "sparse sampling and reconstruction")
    assert record.score == record.raw_score == pytest.approx(1.265)
    assert record.score_std == pytest.approx(0.1 + 2999 / 1e5)
    for kind, published in PUBLISHED.items():
        assert {r.distortion for r in data.records if f"_{kind:02d}_" in r.name} == {published}


def test_items(part: Path) -> None:
    sample = TID2013(part, partial=True)[13]
    assert (sample.name, sample.reference_id, sample.level) == ("i02_01_4.bmp", "I02", 4)
    assert sample.reference.unique().tolist() == [2]


def test_partial_has_a_name_that_says_so(part: Path) -> None:
    data = TID2013(part, partial=True)
    assert data.name == "TID2013 (partial, 20 of 3000)"
    assert data.distortions == (["additive Gaussian noise"] * 5 + ["Gaussian blur"] * 5) * 2
    assert TID2013(part, partial=True, name="TID2013-R").name == "TID2013-R"


def test_a_part_is_not_taken_for_the_whole(part: Path) -> None:
    (line,) = problems(part)
    for words in ("20 images", "3000", "25 references x 24 types x 5 levels", "partial=True"):
        assert words in line


def test_deviations_are_optional(tmp_path: Path) -> None:
    make_tree(tmp_path, range(1, 2), [1], deviations=False)
    assert {r.score_std for r in TID2013(tmp_path, partial=True).records} == {None}


def test_letter_case_of_everything(part: Path) -> None:
    expected = TID2013(part, partial=True)
    for old, new in {
        "reference_images": "REFERENCE_IMAGES",
        "distorted_images": "Distorted_Images",
        "mos_with_names.txt": "MOS_With_Names.TXT",
        "mos_std.txt": "MOS_STD.txt",
    }.items():
        (part / old).rename(part / new)
    (part / "Distorted_Images" / "i01_01_1.bmp").rename(part / "Distorted_Images" / "I01_01_1.BMP")
    (part / "REFERENCE_IMAGES" / "I02.BMP").rename(part / "REFERENCE_IMAGES" / "i02.Bmp")
    data = TID2013(part, partial=True)
    assert data.names == expected.names
    assert data.reference_ids == expected.reference_ids
    assert [r.score_std for r in data.records] == [r.score_std for r in expected.records]
    assert data[10].reference.unique().tolist() == [2]


def test_entries_that_differ_in_case_only(part: Path) -> None:
    image = part / "distorted_images" / "i01_01_1.bmp"
    reference = part / "reference_images" / "I01.BMP"
    if (part / "MOS_WITH_NAMES.TXT").exists():
        pytest.skip("a file system that does not tell I from i")
    (part / "distorted_images" / "I01_01_1.BMP").write_bytes(image.read_bytes())
    (part / "reference_images" / "i01.bmp").write_bytes(reference.read_bytes())
    found = problems(part, partial=True)
    assert any("I01_01_1.BMP and i01_01_1.bmp" in line for line in found)
    assert any("I01.BMP and i01.bmp" in line for line in found)
    assert len(found) == 2

    (part / "Mos_With_Names.txt").touch()
    (part / "Reference_Images").mkdir()
    found = problems(part, partial=True)
    assert any("Mos_With_Names.txt and mos_with_names.txt" in line for line in found)
    assert any("Reference_Images and reference_images" in line for line in found)
    assert len(found) == 2


def test_other_files_do_not_matter(part: Path) -> None:
    for stray in ("Thumbs.db", "._i01_01_1.bmp", "i01_01_6.bmp", "i26_01_1.bmp", "i01_25_1.bmp"):
        (part / "distorted_images" / stray).touch()
    assert len(TID2013(part, partial=True)) == 20


def test_missing_images(part: Path, whole: Path) -> None:
    (part / "distorted_images" / "i02_08_5.bmp").unlink()
    data = TID2013(part, partial=True)
    assert len(data) == 19
    assert "i02_08_5.bmp" not in data.names

    image = whole / "distorted_images" / "i07_20_3.bmp"
    content = image.read_bytes()
    image.unlink()
    try:
        count, missing = problems(whole)
    finally:
        image.write_bytes(content)
    assert "found 2999 images and 3000 scores" in count
    assert "i07_20_3.bmp" in missing
    assert "no such file" in missing


def test_every_kind_of_damage_at_once(part: Path) -> None:
    lines = (part / "mos_with_names.txt").read_text().splitlines()
    lines[1] = "nan I01_01_2.bmp"
    lines[2] = "high I01_01_3.bmp"
    lines[3] = "3.5"
    lines[4] = lines[0]
    lines[5] = "3.5 I01_30_1.bmp"
    (part / "mos_with_names.txt").write_text("\n".join(lines))
    (part / "mos_std.txt").write_text("\n".join(["0.1"] * 18 + ["-1", "wide"]))
    (part / "reference_images" / "I02.BMP").unlink()
    (part / "distorted_images" / "i01_08_3.bmp").write_bytes(b"BM")
    found = problems(part, partial=True)
    for words in [
        ("i01_01_2.bmp", "nan"),
        ("line 3", "'high I01_01_3.bmp'"),
        ("line 4", "'3.5'"),
        ("line 5", "i01_01_1.bmp", "second score"),
        ("line 6", "I01_30_1.bmp"),
        ("i01_01_3.bmp", "no score"),
        ("i01_01_4.bmp", "no score"),
        ("i01_01_5.bmp", "no score"),
        ("i01_08_1.bmp", "no score"),
        ("mos_std.txt, line 19", "'-1'"),
        ("mos_std.txt, line 20", "'wide'"),
        ("I02.bmp", "no such file", "10 images"),
        ("i01_08_3.bmp", "not a readable image"),
    ]:
        assert any(all(word in line for word in words) for line in found), words
    assert len(found) == 13


def test_deviations_of_another_length(part: Path) -> None:
    (part / "mos_std.txt").write_text("0.1\n" * 19)
    (line,) = problems(part, partial=True)
    assert "19 lines" in line
    assert "20" in line


def test_byte_order_mark_and_blank_lines(part: Path) -> None:
    table = part / "mos_with_names.txt"
    table.write_bytes(b"\xef\xbb\xbf" + table.read_bytes().replace(b"\n", b"\r\n") + b"\r\n\r\n")
    assert len(TID2013(part, partial=True)) == 20


def test_wrong_folder_names_what_is_missing(part: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no such folder"):
        TID2013(tmp_path / "nowhere")
    (part / "mos_with_names.txt").unlink()
    with pytest.raises(DatasetError, match=r": mos_with_names.txt missing") as caught:
        TID2013(part, partial=True)
    assert len(caught.value.problems) == 3  # the layout
    with pytest.raises(DatasetError, match=r"reference_images, distorted_images, mos_with_names.txt missing"):
        TID2013(part / "reference_images")


def test_a_part_without_images(part: Path) -> None:
    for image in (part / "distorted_images").iterdir():
        image.unlink()
    assert problems(part, partial=True) == ("there are no scored images",)
