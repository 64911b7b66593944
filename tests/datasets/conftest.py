"""Writers of small trees in the true layout of each published set, with tiny pictures."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from fmiqa.datasets import CATALOGUE, ImageDataset


@dataclass
class Tree:
    """A set on disk, and what must be read from it: raw score, reference id, type and level by image name."""

    key: str
    root: Path
    expected: dict[str, tuple[float, str, str | None, int | None]] = field(default_factory=dict)

    def load(self, **options: object) -> ImageDataset:
        return CATALOGUE[self.key].load(self.root, **options)


@cache
def _encoded(suffix: str, grey: int) -> bytes:
    buffer = io.BytesIO()
    kind = {".bmp": "BMP", ".png": "PNG"}[suffix.lower()]
    Image.fromarray(np.full((6, 8, 3), grey, np.uint8)).save(buffer, kind)
    return buffer.getvalue()


def put(path: Path, grey: int = 0) -> None:
    """A picture of 8x6 pixels of one grey."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_encoded(path.suffix, grey))


def tid2008(root: Path, references: Iterable[int] = (1, 25), types: Iterable[int] = (1, 17)) -> Tree:
    tree = Tree("tid2008", root)
    names = {1: "additive Gaussian noise", 17: "contrast change"}
    lines = []
    for r in references:
        put(root / "reference_images" / ("i25.bmp" if r == 25 else f"I{r:02d}.BMP"), r)
        for t in types:
            for level in range(1, 5):
                put(root / "distorted_images" / f"i{r:02d}_{t:02d}_{level}.bmp", r)
                score = 6 - level + t / 100 + r / 1000
                lines.append(f"{score:.4f} I{r:02d}_{t:02d}_{level}.bmp")
                tree.expected[f"i{r:02d}_{t:02d}_{level}.bmp"] = (score, f"I{r:02d}", names.get(t), level)
    (root / "mos_with_names.txt").write_text("\n".join(lines))
    (root / "mos_std.txt").write_text("0.5\n" * len(lines))
    return tree


CSIQ_REFERENCES = re.findall(
    r"\w+",
    "1600 aerial_city boston bridge butter_flower cactus child_swimming couple elk family fisher foxy geckos "
    "lady_liberty lake log_seaside monument native_american redwood roping rushmore shroom snow_leaves sunset_sparrow "
    "sunsetcolor swarm trolley turtle veggies womanhat",
)
CSIQ_TYPES = {
    "noise": ("awgn", "AWGN", "additive white Gaussian noise"),
    "blur": ("blur", "BLUR", "Gaussian blur"),
    "contrast": ("contrast", "contrast", "global contrast decrements"),
    "fnoise": ("fnoise", "fnoise", "additive pink Gaussian noise"),
    "jpeg": ("jpeg", "JPEG", "JPEG compression"),
    "jpeg 2000": ("jpeg2000", "jpeg2000", "JPEG2000 compression"),
}


def csiq_rows(tree: Tree, references: Iterable[str] = ("1600", "boston")) -> list[list[object]]:
    """The images, and the rows of the sheet."""
    rows: list[list[object]] = []
    for n, reference in enumerate(references):
        put(tree.root / "src_imgs" / f"{reference}.png", n)
        for index, (kind, (folder, part, published)) in enumerate(CSIQ_TYPES.items(), start=1):
            # 866 images: of contrast, four references have three levels, the others four
            for level in range(1, (3 if n < 4 else 4) + 1) if kind == "contrast" else range(1, 6):
                file = f"{reference}.{part}.{level}.png"
                put(tree.root / "dst_imgs" / folder / file, n)
                dmos = round(level / 6 + index / 100 + n / 1000, 4)
                image: object = int(reference) if reference.isdigit() else reference
                rows.append([image, index, kind, level, 0.05, dmos])
                tree.expected[file.lower()] = (dmos, reference, published, level)
    return rows


def csiq_grid(rows: list[list[object]]) -> list[list[object]]:
    """The sheet as it is published: three rows and three columns of nothing, then the header."""
    head = ["image", "dst_idx", "dst_type", "dst_lev", "dmos_std", "dmos"]
    return [[], [None, "CSIQ"], [], *([None, None, None, *row] for row in [head, *rows])]


def csiq(root: Path, references: Iterable[str] = ("1600", "boston")) -> Tree:
    openpyxl = pytest.importorskip("openpyxl")
    tree = Tree("csiq", root)
    book = openpyxl.Workbook()
    book.active.title = "all_by_distortion"
    sheet = book.create_sheet("all_by_image")
    for row in csiq_grid(csiq_rows(tree, references)):
        sheet.append(row)
    book.save(root / "csiq.DMOS.xlsx")
    return tree


CIDIQ_TYPES = {
    "1_JPEG2000_Compression": "JPEG2000 compression",
    "2_JPEG_Compression": "JPEG compression",
    "3_Poisson_Noise": "Poisson noise",
    "4_Gaussian_Blur": "Gaussian blur",
    "5_SGCK_Gamut_Mapping": "SGCK gamut mapping",
    "6_DeltaE_Gamut_Mapping": "Delta E gamut mapping",
}


def cidiq(root: Path, distance: int, *, seed: int | None = None) -> Tree:
    """All 690 images; with a seed, made in random order."""
    from scipy.io import savemat

    tree = Tree(f"cidiq{distance}", root)
    files = [root / "Images" / "Original" / f"final{image:02d}.bmp" for image in range(1, 24)]
    scores = []
    for d, (folder, published) in enumerate(CIDIQ_TYPES.items(), start=1):
        for image in range(1, 24):
            for level in range(1, 6):
                name = f"final{image:02d}_d{d}_l{level}.bmp"
                files.append(root / "Images" / "Reproduction" / folder / name)
                score = 1 + d + image / 100 + level / 1000 + distance / 1e6
                scores.append(score)
                tree.expected[name] = (score, f"final{image:02d}", published, level)
    order = range(len(files)) if seed is None else np.random.default_rng(seed).permutation(len(files))
    for i in order:
        put(files[i], int(files[i].name[5:7]))
    savemat(root / f"MOS{distance}.mat", {f"MOS{distance}": np.array(scores)[:, None]})
    return tree


def cidgd(root: Path) -> Tree:
    tree = Tree("cidgd", root)
    lines = ["reference,distorted,score,distortion,level,score_std,observer_1,observer_2"]
    for grey, reference in enumerate(("r1", "r2")):
        put(root / "Originals" / f"{reference}.png", grey)
        for level in (1, 2):
            name = f"images/{reference}_{level}.png"
            put(root / "Images" / f"{reference}_{level}.png", grey)
            lines.append(f"originals/{reference}.png,{name},{4 - level},seam carving,{level},0.5,{3 - level},")
            tree.expected[name] = (4 - level, f"originals/{reference}", "seam carving", level)
    (root / "scores.csv").write_text("\n".join(lines))
    return tree


def kadid10k(root: Path, references: Iterable[int] = (1, 81), types: Iterable[int] = (1, 25)) -> Tree:
    tree = Tree("kadid10k", root)
    names = {1: "Gaussian blur", 10: "JPEG compression", 25: "contrast change"}
    lines = ["dist_img,ref_img,dmos,var"]
    for r in references:
        put(root / "images" / f"I{r:02d}.png", r)
        for t in types:
            for level in range(1, 6):
                name = f"I{r:02d}_{t:02d}_{level:02d}.png"
                put(root / "images" / name, r)
                score = 5 - level / 2 - t / 100 - r / 10000
                lines.append(f"{name},I{r:02d}.png,{score:.4f},0.25")
                tree.expected[name.lower()] = (score, f"I{r:02d}", names.get(t), level)
    (root / "dmos.csv").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    return tree


LIVE_TYPES = {
    "jp2k": (227, 58, "JPEG2000 compression"),
    "jpeg": (233, 58, "JPEG compression"),
    "wn": (174, 29, "white noise"),
    "gblur": (174, 29, "Gaussian blur"),
    "fastfading": (174, 29, "fast fading"),
}


def live(root: Path, table: str = "dmos_realigned.mat") -> Tree:
    """All 982 images; in each folder the hidden originals are spread, and info.txt is in an order of its own."""
    from scipy.io import savemat

    tree = Tree("live", root)
    references = ["studentsculpture", "bikes", *(f"picture{n}" for n in range(27))]
    for n, reference in enumerate(references):
        put(root / "refimgs" / f"{reference}.bmp", n)
    dmos, orgs = [], []
    for t, (kind, (count, hidden, published)) in enumerate(LIVE_TYPES.items()):
        originals = set(np.random.default_rng(t).permutation(count)[:hidden] + 1)
        lines = []
        for number in range(1, count + 1):
            n = number % 29
            put(root / kind / f"img{number}.bmp", n)
            lines.append(f"{references[n]}.bmp img{number}.bmp {number / 100} ")
            original = number in originals
            dmos.append(0.0 if original else 10 * t + number / 10)
            orgs.append(int(original))
            if not original:
                tree.expected[f"{kind}/img{number}.bmp"] = (10 * t + number / 10, references[n], published, None)
        (root / kind / "info.txt").write_text("\r\n".join(lines[::-1]))
    content = {"dmos_new": dmos, "dmos_std": np.full(982, 2.5)} if table != "dmos.mat" else {"dmos": dmos}
    savemat(root / table, {**content, "orgs": orgs})
    return tree


def pipal(
    root: Path, references: Iterable[int] = (0, 249), folders: tuple[str, ...] = ("Train_Dist",), algorithms: int = 2
) -> Tree:
    """Seven groups; the images dealt to the folders in turn."""
    tree = Tree("pipal", root)
    (root / "Train_Label").mkdir(parents=True)
    for r in references:
        put(root / "Train_Ref" / f"A{r:04d}.bmp", r % 256)
        lines = []
        for i in range(algorithms):
            name = f"A{r:04d}_{i % 7:02d}_{i // 7:02d}.bmp"
            put(root / folders[i % len(folders)] / name, r % 256)
            score = 1800.5 - i - r / 1000
            lines.append(f"{name},{score:.3f}")
            tree.expected[name.lower()] = (score, f"A{r:04d}", f"group {i % 7:02d}", None)
        (root / "Train_Label" / f"A{r:04d}.txt").write_text("\n".join(lines))
    return tree


def cidiq50(root: Path) -> Tree:
    return cidiq(root, 50)


def cidiq100(root: Path) -> Tree:
    return cidiq(root, 100)


@pytest.fixture(scope="session")
def trees() -> SimpleNamespace:
    """What writes a small tree of each set (of CID:IQ and LIVE, whose tables know no parts, all of it)."""
    writers = (tid2008, csiq, cidiq, cidiq50, cidiq100, cidgd, kadid10k, live, pipal)
    return SimpleNamespace(
        **{f.__name__: f for f in (*writers, put, csiq_rows, csiq_grid, Tree)}, names=CSIQ_REFERENCES
    )
