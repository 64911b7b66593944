"""The paper's tables anew: the published figures, what stands beside them, and what a run keeps."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import fmiqa
from fmiqa import FileFormatError, InputError, Reproduction, ResumeError, ScoreMatrix, Selection, Validation, reproduce
from fmiqa.datasets import CATALOGUE, Demo
from fmiqa.reproduction import PUBLISHED, TABLES, run
from fmiqa.reproduction.result import TableRow
from fmiqa.selection.splits import mean_and_error

pytestmark = pytest.mark.filterwarnings("ignore:.*random weights")

SMALL: dict[str, Any] = {"weights": None, "layers": ["conv1"], "folds": 2}


def small(seed: int = 0, name: str = "Small") -> Demo:
    demo = Demo(references=4, size=64, levels=2, seed=seed)
    demo.name = name
    return demo


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> Demo:
    """A set that has the name and the numbers of CSIQ, as they are believed to be here."""
    demo = small(name="CSIQ")
    monkeypatch.setitem(CATALOGUE, "csiq", replace(CATALOGUE["csiq"], images=len(demo), references=4))
    return demo


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that a finished run has left: a small set in place of TID2013."""
    folder = tmp_path_factory.mktemp("paper")
    reproduce("table1", {"tid2013": small(name="TID2013-S")}, out=folder, **SMALL)
    return folder


@pytest.fixture(scope="module")
def found(out: Path) -> Reproduction:
    return Reproduction.load(out / "table1.json")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each step is computed."""
    counted: Counter[str] = Counter()

    def counting(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def counts(*args: Any, **kwargs: Any) -> Any:
            counted[name] += 1
            return function(*args, **kwargs)

        return counts

    for name in ("score_matrix", "forward_select", "cross_validate"):
        monkeypatch.setattr(run, name, counting(name, getattr(run, name)))
    return counted


def test_the_published_figures_are_those_of_the_paper() -> None:
    # Maps chosen, non-linear PLCC of the selected / of all maps: AlexNet, VGG16.
    paper = {
        "CID:IQ 100 cm": ("2, .89 / .80", "35, .93 / .85"),
        "CID:IQ 50 cm": ("12, .87 / .68", "28, .92 / .80"),
        "CSIQ": ("16, .90 / .87", "25, .91 / .83"),
        "TID2013": ("9, .95 / .91", "24, .90 / .88"),
        "CID:GD": ("13, .75 / .61", "5, .71 / .62"),
    }
    assert TABLES == {"table1": "alexnet", "table2": "vgg16"}
    for column, network in enumerate(TABLES.values()):
        written = {
            CATALOGUE[key].name: f"{p.maps}, {p.plcc:.2f} / {p.all_plcc:.2f}".replace("0.", ".")
            for key, p in PUBLISHED[network].items()
        }
        assert list(written.items()) == [(name, cells[column]) for name, cells in paper.items()]
    page = (Path(__file__).parents[2] / "docs" / "guide" / "from-the-paper.md").read_text()
    assert all(f"| {' | '.join((name, *cells))} |" in page for name, cells in paper.items())


def test_sets_that_are_not_on_disk_are_listed_with_what_was_published(found: Reproduction) -> None:
    absent = [row for row in found.rows if row.measured is None]
    assert [row.dataset for row in absent] == ["CID:IQ 100 cm", "CID:IQ 50 cm", "CSIQ", "TID2013", "CID:GD"]
    assert [row.published for row in absent] == list(PUBLISHED["alexnet"].values())
    for text in (str(found), found.to_markdown(), found._repr_html_()):
        assert text.count("not on disk") == 2 * len(absent)  # in sample and held out
        assert "9 maps .95, all maps .91" in text


def test_figures_are_those_of_the_steps(found: Reproduction, out: Path) -> None:
    (row,) = found.measured
    measured = row.measured
    assert measured is not None
    scores = ScoreMatrix.load(out / "tid2013-alexnet" / "scores.safetensors")
    selection, every = fmiqa.forward_select(scores), scores.pool()
    assert (measured.images, measured.references) == (48, 4)
    assert measured.maps == selection.maps
    assert measured.plcc == selection.value
    assert measured.srocc == float(fmiqa.srocc(selection.combine(scores), scores.targets))
    assert measured.all_plcc == float(fmiqa.plcc(every, scores.targets))
    assert measured.all_srocc == float(fmiqa.srocc(every, scores.targets))


def test_held_out_is_the_whole_search_anew_in_each_fold(found: Reproduction, out: Path) -> None:
    measured = found.measured[0].measured
    assert measured is not None
    scores = ScoreMatrix.load(out / "tid2013-alexnet" / "scores.safetensors")
    splits = fmiqa.grouped_folds(scores.groups, folds=2)
    expected = fmiqa.held_out(scores, lambda part: fmiqa.forward_select(part), splits=splits)
    assert measured.held_out_maps == tuple(len(maps) for maps in expected.selected)
    # One batch of folds and one search after the other agree to rounding.
    assert measured.held_out_plcc == pytest.approx(expected.plcc[:, -1].tolist(), abs=1e-9)
    assert measured.held_out_srocc == pytest.approx(expected.srocc[:, -1].tolist(), abs=1e-9)
    every = scores.pool()
    of_all = [float(fmiqa.plcc(every[s.held_out], scores.targets[s.held_out])) for s in splits]
    assert measured.held_out_all_plcc == pytest.approx(of_all, abs=1e-9)


def test_mean_and_standard_error_are_those_of_folds() -> None:
    values = torch.tensor([0.8, 0.9, 0.85, 0.7], dtype=torch.float64)
    mean, error = mean_and_error(values)
    assert (float(mean), float(error)) == pytest.approx((float(values.mean()), float(values.std()) / 2))


def test_in_sample_and_held_out_are_told_apart_everywhere(found: Reproduction) -> None:
    assert [head.split(", ")[-1] for head in found.table_rows()[0]] == [
        "data set",
        "in sample",
        "in sample",
        "held out",
    ]
    content = found.to_dict()
    (measured,) = (row["measured"] for row in content["rows"] if row["measured"])
    assert set(measured) == {"images", "references", "in_sample", "held_out"}
    assert "published_in_sample" in content["rows"][0]
    pytest.importorskip("matplotlib")
    labels = found.plot().get_legend_handles_labels()[1]
    assert all("in sample" in label or "held out" in label for label in labels)
    figure = found.plot_maps()
    assert any("in sample" in text.get_text() for text in figure.findobj(pytest.importorskip("matplotlib.text").Text))


def test_the_published_set_stands_beside_the_published_figures(published: Demo) -> None:
    found = reproduce("table1", {"csiq": published}, **SMALL)
    (row,) = found.measured
    assert (row.dataset, row.published, row.remark) == ("CSIQ", PUBLISHED["alexnet"]["csiq"], "")
    assert len(found.rows) == 5


@pytest.mark.parametrize("other", ["name", "images", "references"])
def test_what_is_not_the_published_set_never_stands_beside_its_figures(
    other: str, published: Demo, monkeypatch: pytest.MonkeyPatch
) -> None:
    if other == "name":
        published.name = "CSIQ-R"
    else:
        monkeypatch.setitem(CATALOGUE, "csiq", replace(CATALOGUE["csiq"], **{other: 5}))
    found = reproduce("table1", {"csiq": published}, **SMALL)
    absent, row = (r for r in found.rows if r.key == "csiq")
    assert absent == TableRow("csiq", "CSIQ", PUBLISHED["alexnet"]["csiq"], None)
    assert row.published is None
    assert row.measured is not None
    label = f"{published.name}, in place of CSIQ"
    for text in (str(found), found.to_markdown(), found._repr_html_()):
        line = next(line for line in text.replace("<tr>", "\n").splitlines() if label in line)
        assert f"{label} [1]" in line
        assert ".90" not in line
        assert "not to be compared" in text
    assert label in found.plot_maps().axes[0].get_title()
    pytest.importorskip("matplotlib")
    ticks = [tick.get_text().replace("\n", " ") for tick in found.plot().get_yticklabels()]
    assert label in ticks
    assert "CSIQ (not on disk)" in ticks


def test_a_set_of_unknown_numbers_is_taken_by_its_name_and_that_is_said() -> None:
    found = reproduce("table1", {"cidgd": small(name="CID:GD")}, **SMALL)
    assert found.measured[0].published == PUBLISHED["alexnet"]["cidgd"]
    assert [note for note in found.notes if note.startswith("CID:GD is taken for the published set by its name")]


def test_too_few_references_are_found_before_the_work(calls: Counter[str]) -> None:
    with pytest.raises(InputError, match=r"folds is from 2 to the number of groups \(4\)"):
        reproduce("table1", {"tid2013": small()}, **{**SMALL, "folds": 5})
    assert not calls


def test_another_network_than_the_paper_s_is_said(found: Reproduction) -> None:
    assert "random weights" in found.title
    assert any("RANDOM" in note for note in found.notes)
    assert any("Only 64 of 1152 maps (conv1)" in note for note in found.notes)
    whole = replace(found, options={**found.options, "maps": {"conv1": 1152}, "random_weights": False})
    assert not any("RANDOM" in note or "Only" in note for note in whole.notes)


def test_the_folder_has_the_table_in_all_forms(found: Reproduction, out: Path) -> None:
    assert (out / "table1.md").read_text() == found.to_markdown()
    for name in ("table1.png", "table1-maps.png"):
        with Image.open(out / name) as picture:
            assert picture.width > 600
    steps = out / "tid2013-alexnet"
    selection = Selection.load(steps / "selected.json")
    validation = Validation.load(steps / "folds.json")
    fmiqa.visualize.plot_curve(selection, validation=validation)  # raises unless they are of one search


def test_the_picture_of_chosen_maps_counts_and_names_them(found: Reproduction) -> None:
    maps = fmiqa.MapIndex(["conv2:5", "conv1:7", "conv2:1"])
    row = found.measured[0]
    assert row.measured is not None
    row = replace(row, measured=replace(row.measured, maps=maps))
    two = replace(found, rows=(row,), options={**found.options, "maps": {"conv1": 64, "conv2": 192}})
    (panel,) = two.plot_maps().axes
    assert [bar.get_width() for bar in panel.patches] == [1, 2]
    assert [text.get_text() for text in panel.texts] == ["7", "5, 1"]


def test_a_finished_run_is_not_computed_again(calls: Counter[str], tmp_path: Path) -> None:
    data = {"tid2013": small()}
    first = reproduce("table1", data, out=tmp_path, **SMALL)
    assert calls == {"score_matrix": 1, "forward_select": 1, "cross_validate": 1}
    again = reproduce("table1", data, out=tmp_path, **SMALL)
    assert calls == {"score_matrix": 1, "forward_select": 1, "cross_validate": 1}
    assert again.to_dict() == first.to_dict() == Reproduction.load(tmp_path / "table1.json").to_dict()


@pytest.mark.parametrize("dies_in", ["score_matrix", "forward_select", "cross_validate"])
def test_a_stopped_run_goes_on_where_it_was(
    dies_in: str, calls: Counter[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    data, steps = {"tid2013": small()}, ("score_matrix", "forward_select", "cross_validate")
    with monkeypatch.context() as patch:
        patch.setattr(run, dies_in, dies)
        with pytest.raises(KeyboardInterrupt):
            reproduce("table1", data, out=tmp_path, **SMALL)
    assert not (tmp_path / "table1.json").exists()
    reproduce("table1", data, out=tmp_path, **SMALL)
    assert calls == dict.fromkeys(steps, 1)  # none a second time


@pytest.mark.parametrize(
    ("file", "step"),
    [("scores.safetensors", "score_matrix"), ("selected.json", "forward_select"), ("folds.json", "cross_validate")],
)
@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_a_step_that_is_lost_or_damaged_is_computed_again_and_no_other(
    file: str, step: str, damage: str, out: Path, found: Reproduction, calls: Counter[str], tmp_path: Path
) -> None:
    steps = tmp_path / "tid2013-alexnet"
    steps.mkdir()
    for path in (out / "tid2013-alexnet").iterdir():
        content = path.read_bytes()
        if path.name != file:
            (steps / path.name).write_bytes(content)
        elif damage == "cut":
            (steps / path.name).write_bytes(content[: len(content) // 2])
    again = reproduce("table1", {"tid2013": small(name="TID2013-S")}, out=tmp_path, **SMALL)
    assert calls == {step: 1}
    assert again.to_dict() == found.to_dict()
    assert sorted(path.name for path in steps.iterdir()) == sorted(p.name for p in (out / steps.name).iterdir())


def test_a_set_that_comes_later_joins_the_others(calls: Counter[str], tmp_path: Path) -> None:
    reproduce("table1", {"tid2013": small()}, out=tmp_path, **SMALL)
    both = reproduce("table1", {"tid2013": small(), "cidgd": small(1, "Other")}, out=tmp_path, **SMALL)
    assert [row.dataset for row in both.measured] == ["Small", "Other"]
    assert calls == {"score_matrix": 2, "forward_select": 2, "cross_validate": 2}
    assert [note[:4] for note in both.notes[:2]] == ["[1] ", "[2] "]


@pytest.mark.parametrize(
    ("seed", "name", "options", "said"),
    [
        (0, "TID2013-S", {"folds": 3}, "folds: then 2, now 3"),
        (0, "TID2013-S", {"pool": "layer_geometric"}, "pool: then 'mean'"),
        (0, "TID2013-S", {"seed": 1}, "weights_sha256"),
        (0, "Else", {}, "dataset: then 'TID2013-S', now 'Else'"),
        (1, "TID2013-S", {}, "images_and_scores_sha256"),
    ],
)
def test_steps_of_another_run_are_refused(seed: int, name: str, options: dict[str, Any], said: str, out: Path) -> None:
    with pytest.raises(ResumeError, match="other options") as error:
        reproduce("table1", {"tid2013": small(seed, name)}, out=out, **{**SMALL, **options})
    assert said in str(error.value)
    assert str(out / "tid2013-alexnet") in str(error.value)


def test_a_damaged_description_of_a_run_is_refused(out: Path, tmp_path: Path) -> None:
    (tmp_path / "tid2013-alexnet").mkdir()
    (tmp_path / "tid2013-alexnet" / "run.json").write_text("{")
    with pytest.raises(FileFormatError, match=r"run\.json"):
        reproduce("table1", {"tid2013": small()}, out=tmp_path, **SMALL)


@pytest.mark.parametrize(
    "damage", ["missing", "cut", "without rows", "without a figure", "with no maps", "of a selection"]
)
def test_a_damaged_file_is_refused(damage: str, out: Path, tmp_path: Path) -> None:
    content = json.loads((out / "table1.json").read_text())
    row = next(row for row in content["rows"] if row["measured"])
    if damage == "without rows":
        del content["rows"]
    elif damage == "without a figure":
        del row["measured"]["held_out"]["plcc"]
    elif damage == "with no maps":
        row["measured"]["in_sample"]["maps"] = ["conv1"]
    path = tmp_path / "table1.json"
    text = json.dumps(content)
    if damage != "missing":
        path.write_text(text[: len(text) // 2] if damage == "cut" else text)
    if damage == "of a selection":
        path.write_bytes((out / "tid2013-alexnet" / "selected.json").read_bytes())
    with pytest.raises(FileFormatError, match=r"table1\.json"):
        Reproduction.load(path)


@pytest.mark.parametrize(
    ("table", "keys", "said"),
    [
        ("table3", ["csiq"], r"table1 \(alexnet\), table2 \(vgg16\), got 'table3'"),
        ("table1", ["csiq", "kadid10k"], r"cidiq100, .*got kadid10k"),
        ("table1", [], "got none"),
    ],
)
def test_what_the_paper_has_not_is_refused(table: str, keys: list[str], said: str) -> None:
    with pytest.raises(InputError, match=said):
        reproduce(table, dict.fromkeys(keys, small()), **SMALL)
