"""Folders of references and test images, paired by name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fmiqa import DatasetError, InputError
from fmiqa.datasets.pairing import pair_folders


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """An empty folder of references and one of test images."""
    for name in ("ref", "test"):
        (tmp_path / name).mkdir()
    return tmp_path / "ref", tmp_path / "test"


def fill(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def paired(folders: tuple[Path, Path]) -> list[tuple[str, str]]:
    reference, test = folders
    return [(a.relative_to(reference).as_posix(), b.relative_to(test).as_posix()) for a, b in pair_folders(*folders)]


def problems(folders: tuple[Path, Path]) -> tuple[str, ...]:
    with pytest.raises(DatasetError) as raised:
        pair_folders(*folders)
    return raised.value.problems


def test_images_of_one_name_are_pairs(folders: tuple[Path, Path]) -> None:
    fill(folders[0], "b.png", "A.BMP", "sub/a.png", "Sub2/x.y.tif")
    fill(
        folders[1], "a.jpg", "B.PNG", "sub/A.webp", "sub2/X.Y.jpeg", "notes.txt", "Thumbs.db", ".hidden.png", "._a.jpg"
    )
    fill(folders[1], ".cache/b.png", "empty/readme")
    expected = [("A.BMP", "a.jpg"), ("b.png", "B.PNG"), ("sub/a.png", "sub/A.webp"), ("Sub2/x.y.tif", "sub2/X.Y.jpeg")]
    assert paired(folders) == expected
    assert pair_folders(str(folders[0]), str(folders[1])) == pair_folders(*folders)


def test_paths_are_written_as_the_folders_are_given(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(folders[0], "a.png")
    fill(folders[1], "a.png")
    monkeypatch.chdir(folders[0].parent)
    assert pair_folders("ref", "test") == [(Path("ref/a.png"), Path("test/a.png"))]


def test_letters_that_are_composed_in_two_ways_are_the_same(folders: tuple[Path, Path]) -> None:
    fill(folders[0], "caf\u00e9.png")
    fill(folders[1], "cafe\u0301.png")
    assert len(paired(folders)) == 1


def test_one_reference_has_many_test_images_that_begin_with_its_name(folders: tuple[Path, Path]) -> None:
    fill(folders[0], "i1.png", "i10.png", "sub/i1.png")
    fill(folders[1], "I1_2.png", "i1-jpeg_3.png", "i1.png", "i10_1.png", "sub/i1_1.png")
    assert paired(folders) == [
        ("i1.png", "i1.png"),
        ("i1.png", "i1-jpeg_3.png"),
        ("i1.png", "I1_2.png"),
        ("i10.png", "i10_1.png"),
        ("sub/i1.png", "sub/i1_1.png"),
    ]


def test_the_same_name_comes_before_a_beginning(folders: tuple[Path, Path]) -> None:
    fill(folders[0], "a.png", "a_b.png")
    fill(folders[1], "a_c.png", "a_b.png")
    assert paired(folders) == [("a.png", "a_c.png"), ("a_b.png", "a_b.png")]
    fill(folders[1], "a_b_1.png")
    (line,) = problems(folders)
    assert (
        line == f"1 test image with several references in {folders[0]}: a_b_1.png, which begins like a.png and a_b.png"
    )


def test_whatever_has_no_partner_is_named_and_counted(folders: tuple[Path, Path]) -> None:
    fill(folders[0], "a.png", *(f"r{k}.png" for k in range(3)))
    fill(folders[1], "a.png", "ab.png", "sub/a_1.png", *(f"t{k}.png" for k in range(6)))
    assert problems(folders) == (
        f"8 test images without a reference in {folders[0]}: ab.png; {Path('sub/a_1.png')}; t0.png; t1.png; t2.png and "
        "3 more",
        f"3 references without a test image in {folders[1]}: r0.png; r1.png; r2.png",
    )


def test_names_that_several_files_share_are_refused(folders: tuple[Path, Path]) -> None:
    fill(folders[0], "a.png", "b.png", "b.bmp")
    fill(folders[1], "a.png", "a.jpg", "b.png")
    assert problems(folders) == (
        f"1 name of {folders[0]} shared by several files: b.bmp and b.png",
        f"1 name of {folders[1]} shared by several files: a.jpg and a.png",
    )


def test_a_folder_without_images_is_named(folders: tuple[Path, Path]) -> None:
    fill(folders[1], "a.png", "b.txt")
    assert problems(folders) == (f"there are no images in {folders[0]}",)
    (folders[1] / "a.png").unlink()
    assert problems(folders) == tuple(f"there are no images in {folder}" for folder in folders)


def test_what_is_no_folder_is_refused(folders: tuple[Path, Path]) -> None:
    fill(folders[0], "a.png")
    for wrong in (folders[0] / "a.png", folders[0] / "missing"):
        with pytest.raises(InputError, match="is no folder"):
            pair_folders(wrong, folders[1])
        with pytest.raises(InputError, match="is no folder"):
            pair_folders(folders[0], wrong)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads everything")
def test_a_folder_that_cannot_be_read_is_an_error(folders: tuple[Path, Path]) -> None:
    fill(folders[0], "a.png", "closed/a.png")
    fill(folders[1], "a.png")
    (folders[0] / "closed").chmod(0)
    try:
        with pytest.raises(PermissionError):
            pair_folders(*folders)
    finally:
        (folders[0] / "closed").chmod(0o700)
