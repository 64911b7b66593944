"""Broden's layout, whole and damaged, on a small tree."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fmiqa import DatasetError
from fmiqa.visualize.dissection.broden import Broden

INDEX = """image,split,ih,iw,sh,sw,color,object,scene
dtd/stripes.jpg,train,8,12,4,6,dtd/stripes_color.png,,
ade/coast.jpg,train,8,12,4,6,ade/coast_color.png,ade/coast_o1.png;ade/coast_o2.png,300
ade/lost.jpg,val,8,12,4,6,,,300;301
"""
LABELS = """number,name,category,frequency,coverage,syns
1,red-c,color(2),2,0.5,
2,sea,object(5);color(1),6,0.7,ocean
300,coast,scene(2),2,2.0,"shore,bank"
301,beach,scene(1),1,1.0,
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    images = tmp_path / "images"
    for name in ("dtd/stripes.jpg", "ade/coast.jpg", "ade/lost.jpg"):
        (images / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (12, 8), (200, 30, 30)).save(images / name)
    for n, name in enumerate(["dtd/stripes_color", "ade/coast_color", "ade/coast_o1", "ade/coast_o2"]):
        pixels = np.zeros((4, 6, 3), np.uint8)
        pixels[n, :2] = (1, 0, 77)  # blue stands for nothing
        pixels[n, 2:4] = (300 % 256, 300 // 256, 0)
        Image.fromarray(pixels).save(images / f"{name}.png")
    (tmp_path / "index.csv").write_text(INDEX)
    (tmp_path / "label.csv").write_text(LABELS)
    (tmp_path / "category.csv").write_text(
        "name,first,last,count,frequency\ncolor,1,2,2,3\nobject,2,2,1,6\nscene,300,301,2,3\n"
    )
    return tmp_path


def test_labels_are_red_plus_256_green(root: Path) -> None:
    data = Broden(root)
    assert len(data) == 3
    assert data.names[0] == "dtd/stripes.jpg"
    assert data.sizes == [(8, 12)] * 3
    stripes = data[0]
    assert stripes.image.shape == (3, 8, 12)
    assert list(stripes.labels) == ["color"]
    assert stripes.label_maps().tolist() == [[[1, 1, 300, 300, 0, 0]] + [[0] * 6] * 3]


def test_several_layers_and_whole_image_labels(root: Path) -> None:
    data = Broden(root)
    coast = data[1]
    assert coast.label_maps().shape == (3, 4, 6)
    assert coast.whole_image() == [300]
    lost = data[2]
    assert lost.whole_image() == [300, 301]
    assert lost.label_size == (4, 6)  # not the image's 8 x 12


def test_numbers_beside_label_images_fill_a_layer(root: Path) -> None:
    (root / "index.csv").write_text(INDEX.replace("ade/coast_o2.png", "2"))
    layers = Broden(root)[1].labels["object"]
    assert layers.shape == (2, 4, 6)
    assert (layers[1] == 2).all()


def test_primary_category_by_coverage_else_by_images(root: Path) -> None:
    by_images = {c.name: c.categories for c in Broden(root).concepts}
    assert by_images["sea"] == ("object", "color")
    assert by_images["coast"] == ("scene",)
    (root / "c_color.csv").write_text("code,number,name,frequency,coverage\n1,2,sea,1,9.5\n")
    (root / "c_object.csv").write_text("code,number,name,frequency,coverage\n1,2,sea,5,0.2\n")
    assert next(c for c in Broden(root).concepts if c.name == "sea").category == "color"


def test_split(root: Path) -> None:
    assert Broden(root, split="val").names == ["ade/lost.jpg"]
    with pytest.raises(DatasetError, match="no image of split 'test'; there are train, val"):
        Broden(root, split="test")


def test_missing_files_are_all_named_or_left_out(root: Path) -> None:
    (root / "images/ade/lost.jpg").unlink()
    (root / "images/dtd/stripes_color.png").unlink()
    with pytest.raises(DatasetError) as error:
        Broden(root)
    assert len(error.value.problems) == 2
    assert "ade/lost.jpg" in str(error.value)
    assert "dtd/stripes_color.png" in str(error.value)
    assert Broden(root, partial=True).names == ["ade/coast.jpg"]
    (root / "images/ade/coast.jpg").unlink()
    with pytest.raises(DatasetError, match="no image is left"):
        Broden(root, partial=True)


def test_missing_tables_and_columns(root: Path) -> None:
    (root / "index.csv").write_text(INDEX.replace("sh,sw", "sx,sy").replace(",scene", ",places"))
    with pytest.raises(DatasetError, match="columns sh, sw, scene"):
        Broden(root)
    (root / "index.csv").unlink()
    (root / "label.csv").unlink()
    with pytest.raises(DatasetError) as error:
        Broden(root)
    assert [problem.split()[0] for problem in error.value.problems] == ["index.csv", "label.csv"]
    with pytest.raises(DatasetError, match="Broden is not at"):
        Broden(root / "absent")


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("index.csv", "train,8,12", "train,8,?", "line 2: ih, iw, sh and sw"),
        ("index.csv", "300;301", "300;999", "line 4: no such concept in label.csv: 999"),
        ("label.csv", "scene(2)", "scene", "line 4: expected a number and categories"),
        ("label.csv", "scene(2)", "place(2)", "line 4: no such category in category.csv: place"),
        ("label.csv", "301,beach", "1,beach", "line 5: number 1 stands twice"),
    ],
)
def test_malformed_rows_are_named(root: Path, file: str, old: str, new: str, message: str) -> None:
    text = (root / file).read_text()
    assert old in text
    (root / file).write_text(text.replace(old, new, 1))
    with pytest.raises(DatasetError, match=message):
        Broden(root)


def test_damaged_and_misshapen_images(root: Path) -> None:
    data = Broden(root)
    Image.new("RGB", (6, 6)).save(root / "images/dtd/stripes_color.png")
    with pytest.raises(DatasetError, match=r"stripes_color.png is 6 x 6 \(height x width\), index.csv says 4 x 6"):
        data[0]
    (root / "images/ade/coast.jpg").write_bytes(b"no image")
    with pytest.raises(DatasetError, match="not a readable image"):
        data[1]
