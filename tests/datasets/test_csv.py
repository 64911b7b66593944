from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from fmiqa.datasets import CSVDataset, ImageDataset, Record
from fmiqa.errors import DatasetError, InputError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a", "b", "a1", "a2", "b1", "b, the second"):
        Image.new("L", (8, 6), len(name) * 9).save(tmp_path / f"{name}.png")
    return tmp_path


def table(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    path = folder / "study.csv"
    path.write_bytes(text.encode(encoding))
    return path


def problems(path: Path, **options: object) -> tuple[str, ...]:
    with pytest.raises(DatasetError) as caught:
        CSVDataset(path, **options)  # type: ignore[arg-type]
    return caught.value.problems


PLAIN = 'reference,distorted,score\na.png,a1.png,3.5\na.png,a2.png,2\nb.png,"b, the second.png",-1e-1\n'


def test_plain(folder: Path) -> None:
    data = CSVDataset(table(folder, PLAIN))
    assert data.name == "study"
    assert data.targets.tolist() == [3.5, 2.0, -0.1]
    assert data.reference_ids == ["a", "a", "b"]
    assert data.names == ["a1.png", "a2.png", "b, the second.png"]
    assert data.distortions is None
    assert data[2].distorted.unique().tolist() == [13 * 9]
    assert (data[0].level, data[0].score_std) == (None, None)


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_dialects(folder: Path, delimiter: str, encoding: str, newline: str) -> None:
    # A comma inside the quoted name, and more commas than separators in a heading, must mislead nobody.
    rows = [
        ["reference", "distorted", '"score (0, 1, 2, 3, 4, 5)"', " who "],
        ["a.png", " a1.png ", "3", "Anna"],
        [],
        ["", " ", "", ""],
        ["b.png", '"b, the second.png"', "4", '"two\nlines"'],
    ]
    path = table(folder, newline.join(delimiter.join(row) for row in rows), encoding)
    data = CSVDataset(path, score="score (0, 1, 2, 3, 4, 5)", image_name="who")
    assert data.targets.tolist() == [3.0, 4.0]
    assert [r.distorted.name for r in data.records] == ["a1.png", "b, the second.png"]
    assert data.names[0] == "Anna"


def test_given_delimiter(folder: Path) -> None:
    path = table(folder, PLAIN.replace(",", ":").replace("b: the", "b, the"))
    assert len(CSVDataset(path, delimiter=":")) == 3


def test_direction(folder: Path) -> None:
    path = table(folder, PLAIN)
    up, down = CSVDataset(path), CSVDataset(path, higher_is_better=False)
    assert down.targets.tolist() == [-3.5, -2.0, 0.1]
    assert [r.raw_score for r in down.records] == [r.raw_score for r in up.records] == [3.5, 2.0, -0.1]
    assert down[0].score == -3.5


def test_columns(folder: Path) -> None:
    path = table(
        folder,
        "ref,dist,mos,group,label,kind,step,spread\n"
        "a.png,a1.png,3,beach,x,blur,1,0.5\n"
        "a.png,a2.png,2,beach,y,noise,2.0,\n"
        "b.png,b1.png,1,town,z,blur,,0\n",
    )
    data = CSVDataset(
        path,
        reference="ref",
        distorted="dist",
        score="mos",
        reference_id="group",
        image_name="label",
        distortion="kind",
        level="step",
        score_std="spread",
        name="Holidays",
    )
    assert data.reference_ids == ["beach", "beach", "town"]
    assert data.names == ["x", "y", "z"]
    assert data.distortions == ["blur", "noise", "blur"]
    assert [r.level for r in data.records] == [1, 2, None]
    assert [r.score_std for r in data.records] == [0.5, None, 0.0]
    assert repr(data) == "<Holidays: 3 images, 2 references, 2 distortion types, scores 1 to 3>"


def test_ratings_of_observers(folder: Path) -> None:
    path = table(
        folder,
        "reference,distorted,score,observer_1,observer_2,notes,anna\n"
        "a.png,a1.png,3.5,3,4,,1\n"
        "a.png,a2.png,2,,2,tired,5\n",
    )
    by_prefix = CSVDataset(path, ratings="observer_")
    assert by_prefix.ratings is not None
    assert by_prefix.ratings.dtype == torch.float64
    assert by_prefix.ratings[0].tolist() == [3, 4]
    assert by_prefix.ratings[1].isnan().tolist() == [True, False]
    named = CSVDataset(path, ratings=["anna", "observer_2"], higher_is_better=False)
    assert named.ratings is not None
    assert named.ratings.tolist() == [[-1, -4], [-5, -2]]  # turned round with the scores
    assert CSVDataset(path).ratings is None


def test_bad_ratings(folder: Path) -> None:
    text = "reference,distorted,score,o1,o2\na.png,a1.png,3,good,1\na.png,a2.png,3,inf,1\n"
    first, second = problems(table(folder, text), ratings="o")
    assert "line 2: column 'o1' holds 'good', expected a finite number" in first
    assert "line 3: column 'o1' holds 'inf'" in second
    with pytest.raises(DatasetError, match=r"no column 'o3'; columns there are: reference, "):
        CSVDataset(table(folder, text), ratings=["o1", "o3"])
    with pytest.raises(DatasetError, match=r"no column that begins with 'x'; columns there are: reference, "):
        CSVDataset(table(folder, text), ratings="x")
    with pytest.raises(DatasetError, match=r"two columns named 'o1'"):
        CSVDataset(table(folder, text.replace("o2", "o1")), ratings="o")


def test_roots(folder: Path, tmp_path: Path) -> None:
    for place, name in (("originals", "a.png"), ("deep/distorted", "a1.png"), ("deep/distorted", "a2.png")):
        (tmp_path / place).mkdir(parents=True, exist_ok=True)
        (folder / name).rename(tmp_path / place / name)
    text = "reference,distorted,score\na.png,a1.png,1\na.png,a2.png,2\n"
    path = table(folder, text)
    data = CSVDataset(path, reference_root=tmp_path / "originals", distorted_root=str(tmp_path / "deep/distorted"))
    assert len(data) == 2
    path = table(folder, text.replace("a.png", "originals/a.png").replace(",a", ",deep\\distorted\\a"))
    assert CSVDataset(path).records == [
        r.__class__(**{**vars(r), "reference_id": "originals/a", "name": f"deep/distorted/{r.name}"})
        for r in data.records
    ]
    (tmp_path / "tables").mkdir()
    moved = path.rename(tmp_path / "tables" / "study.csv")
    assert len(CSVDataset(moved, root=tmp_path)) == 2
    assert sum("no such file" in line for line in problems(moved)) == 3


def test_missing_columns_are_listed_with_those_there(folder: Path) -> None:
    path = table(folder, "ref;distorted;mos\na.png;a1.png;3\n")
    with pytest.raises(DatasetError, match=r"no column 'reference', 'score', 'kind'; .* ref, distorted, mos\."):
        CSVDataset(path, distortion="kind")


def test_column_named_twice(folder: Path) -> None:
    with pytest.raises(DatasetError, match=r"two columns named 'score'"):
        CSVDataset(table(folder, "reference,distorted,score,score\na.png,a1.png,1,2\n"))


def test_every_bad_row_with_its_line_number(folder: Path) -> None:
    path = table(
        folder,
        "reference;distorted;score;kind;step;spread\n"
        "a.png;a1.png;3,5;blur;1;0\n"
        "a.png;a1.png;good;blur;1;0\n"
        "a.png;a1.png;;blur;1;0\n"
        "a.png;a1.png;inf;blur;1;0\n"
        ";;1;;1.5;-1\n"
        "a.png;a1.png;1;blur;1\n"
        "\n"
        "a.png;gone.png;1;blur;1;0\n"
        "a.png;a1.png;1;blur;1;0\n"
        "a.png;a1.png;2;blur;1;0\n"
        "gone.png;a2.png;2;blur;1;0\n",
    )
    found = problems(path, distortion="kind", level="step", score_std="spread")
    expected = [
        ("line 2:", "'3,5'", "with a point"),
        ("line 3:", "'score'", "'good'"),
        ("line 4:", "'score' is empty"),
        ("line 5:", "'inf'", "finite"),
        ("line 6:", "'reference' is empty"),
        ("line 6:", "'distorted' is empty"),
        ("line 6:", "'kind' is empty"),
        ("line 6:", "'step'", "'1.5'", "whole number"),
        ("line 6:", "'spread'", "'-1'"),
        ("line 7:", "5 cells", "6", "';'"),
        ("line 9:", "gone.png", "no such file"),
        ("line 11:", "a1.png stands twice", "line 10"),
        ("reference of 1 image", "gone.png"),
    ]
    for words in expected:
        assert any(all(word in line for word in words) for line in found), words
    assert len(found) == len(expected)


def test_a_decimal_comma_in_a_comma_table_shifts_the_cells(folder: Path) -> None:
    (line,) = problems(table(folder, "reference,distorted,score\na.png,a1.png,3,5\n"))
    assert "line 2: 4 cells" in line
    assert "decimals with a point" in line


def test_tables_that_cannot_be_read(folder: Path) -> None:
    with pytest.raises(DatasetError, match=r"cannot read the table .*nowhere.csv: No such file"):
        CSVDataset(folder / "nowhere.csv")
    latin = table(folder, PLAIN.replace("a2", "ä2"), "latin-1")
    with pytest.raises(DatasetError, match=r"study.csv, line 3: not UTF-8 text \(byte 0xe4\); save it as 'CSV UTF-8'"):
        CSVDataset(latin)
    with pytest.raises(DatasetError, match=r"line 1: not UTF-8 text \(it holds null characters\)"):
        CSVDataset(table(folder, PLAIN, "utf-16-le"))  # without a byte order mark
    with pytest.raises(DatasetError, match="the file is empty"):
        CSVDataset(table(folder, ""))
    assert problems(table(folder, "reference,distorted,score\n")) == ("there are no scored images",)
    long = 'reference,distorted,score\na.png,"' + "a" * 200_000 + '",1\n'
    with pytest.raises(DatasetError, match="line 2: not a CSV table"):
        CSVDataset(table(folder, long))


def test_a_real_experiment(shared: Path) -> None:
    study = shared / "data" / "jpegtid"
    data = CSVDataset(
        study / "scores.csv",
        reference="ref",
        distorted="dist",
        score="mos",
        score_std="std",
        level="compression",
        ratings="observer_",
        reference_root=shared / "data" / "tid2013r" / "reference_images",
        distorted_root=study / "distorted_images",
        name="JPEG-TID",
    )
    assert repr(data) == "<JPEG-TID: 100 images, 10 references, scores 0 to 5.9>"
    sample = data[0]
    assert (sample.name, sample.reference_id, sample.level) == ("i01_jpeg_010.jpg", "I01", 10)
    assert (sample.score, sample.score_std) == (5.5, 0.527)
    assert sample.reference.shape == sample.distorted.shape == (3, 384, 512)
    assert data.ratings is not None
    assert data.ratings.shape == (100, 10)
    assert torch.allclose(data.ratings.mean(1), data.targets, atol=1e-4)  # the table has four decimals
    data.check()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("head", ["", "sep=;\r\n", '"sep=;"\n', "\n\n"])
def test_what_spreadsheets_save(folder: Path, encoding: str, head: str) -> None:
    text = head + 'reference; distorted;score ;\r\na.png ; "b, the second.png" ; 3 ;\r\n;;;\r\n\r\nb.png;b1.png;4;\r\n'
    data = CSVDataset(table(folder, text, encoding))
    assert data.names == ["b, the second.png", "b1.png"]
    assert data.targets.tolist() == [3, 4]


def test_line_separators_of_unicode_are_text(folder: Path) -> None:
    text = "reference,distorted,score,note\na.png,a1.png,1,x\u2028y\x0bz\na.png,a2.png,2,\n"
    assert CSVDataset(table(folder, text), distortion=None).targets.tolist() == [1, 2]


def test_a_row_is_named_by_its_first_line(folder: Path) -> None:
    text = 'reference,distorted,score,note\na.png,a1.png,1,"two\nlines"\na.png,a2.png,"x\ny",\n'
    (line,) = problems(table(folder, text))
    assert "study.csv, line 4: column 'score' holds 'x\\ny'" in line


@pytest.mark.parametrize("row", ['a.png,a2.png,2,"open', '"a.png,a2.png,2,open'])
def test_an_open_quote_does_not_take_in_the_rest(folder: Path, row: str) -> None:
    text = f"reference,distorted,score,note\na.png,a1.png,1,\n{row}\nb.png,b1.png,3,\n"
    with pytest.raises(DatasetError, match=r"study.csv, line 3: a quoted cell is not closed"):
        CSVDataset(table(folder, text))


@pytest.mark.parametrize("number", ["nan", "NaN", "inf", "-Infinity", "1_000", "3,5", "1.000,5", "0x10", "--"])
def test_scores_that_are_no_numbers(folder: Path, number: str) -> None:
    (line,) = problems(table(folder, f"reference;distorted;score\na.png;a1.png;1\na.png;a2.png;{number}\n"))
    assert f"study.csv, line 3: column 'score' holds '{number}', expected a finite number" in line
    assert ("with a point" in line) == (number == "3,5")


@pytest.mark.parametrize("delimiter", [";;", "", '"', "\n"])
def test_delimiters_that_cannot_be(folder: Path, delimiter: str) -> None:
    with pytest.raises(InputError, match="delimiter is a single character such as ';', got"):
        CSVDataset(table(folder, PLAIN), delimiter=delimiter)


def test_one_reference_under_several_paths_is_one_group(folder: Path) -> None:
    (folder / "sub").mkdir()
    (folder / "link.png").symlink_to(folder / "a.png")
    (folder / "far").symlink_to(folder)
    (folder / "hard.png").hardlink_to(folder / "a.png")
    paths = ["a.png", "./a.png", "sub/../a.png", "sub\\..\\a.png", "link.png", "far/a.png", "hard.png"]
    paths += [str(folder / "a.png"), "b.png"]
    for i in range(len(paths)):
        Image.new("L", (8, 6), i).save(folder / f"t{i}.png")
    text = "".join(f"{path},t{i}.png,1\n" for i, path in enumerate(paths))
    data = CSVDataset(table(folder, "reference,distorted,score\n" + text))
    assert data.reference_ids == ["a"] * 8 + ["b"]
    ids = table(folder, "reference,distorted,score,group\na.png,t1.png,1,x\nlink.png,t2.png,1,y\n")
    (line,) = problems(ids, reference_id="group")
    assert "line 3" in line
    assert "'y', others under 'x'; one file needs one id" in line


def test_one_image_under_two_spellings_is_listed_twice(folder: Path) -> None:
    (folder / "sub").mkdir()
    text = "reference,distorted,score\na.png,a1.png,1\na.png,sub/../a1.png,2\n"
    (line,) = problems(table(folder, text))
    assert "line 3: a1.png stands twice (first in study.csv, line 2)" in line
    (folder / "again.png").symlink_to(folder / "a1.png")  # a repetition of an image may have a score of its own
    assert len(CSVDataset(table(folder, text.replace("sub/../a1", "again")))) == 2


def test_records_with_two_ids_for_one_file(folder: Path) -> None:
    (folder / "sub").mkdir()
    records = [
        Record(folder / "a.png", folder / "a1.png", 1.0, "a", "a1"),
        Record(folder / "sub" / ".." / "a.png", folder / "a2.png", 1.0, "other", "a2"),
    ]
    with pytest.raises(DatasetError, match="one file needs one id"):
        ImageDataset(records, name="Study")
