"""Maps chosen on one set and judged on another: the figures are those of each step by itself."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import fmiqa
from fmiqa import CrossDataset, FileFormatError, InputError, MapIndex, ScoreMatrix, cross_dataset
from fmiqa.selection.splits import mean_and_error

OPTIONS = {"network": "alexnet", "weights_sha256": "abc", "stage": "relu", "measure": {"name": "ssim"}}


def study(seed: int, telling: int, prefix: str, **options: Any) -> ScoreMatrix:
    """60 images of six references and eight maps, of which one tells most of the quality."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.rand(60, generator=generator, dtype=torch.float64)
    values = torch.rand(60, 8, generator=generator)
    values[:, telling] += 2 * targets
    values[:, 7] += targets
    groups = [f"{prefix}{i // 10}" for i in range(60)]
    names = [f"image{i}" for i in range(60)]
    maps = MapIndex.of_layers({"conv1": 3, "conv2": 5})
    return ScoreMatrix(values, maps, targets, groups, names, options={**OPTIONS, "dataset": prefix, **options})


@pytest.fixture(scope="module")
def matrices() -> dict[str, ScoreMatrix]:
    return {"first": study(0, 2, "a"), "second": study(1, 4, "b"), "third": study(2, 5, "A")}


@pytest.fixture(scope="module")
def found(matrices: dict[str, ScoreMatrix]) -> CrossDataset:
    return cross_dataset(matrices, folds=3, seed=4)


def test_the_matrix_is_that_of_each_selection_on_each_set(
    found: CrossDataset, matrices: dict[str, ScoreMatrix]
) -> None:
    for a, chosen_on in enumerate(matrices.values()):
        selection = fmiqa.forward_select(chosen_on)
        assert found.selected[a] == selection.maps
        for b, judged_on in enumerate(matrices.values()):
            combined = selection.combine(judged_on)
            # Fitted alone and in a batch agree to rounding.
            assert float(found.plcc[a, b]) == pytest.approx(float(fmiqa.plcc(combined, judged_on.targets)), abs=1e-9)
            assert float(found.srocc[a, b]) == pytest.approx(float(fmiqa.srocc(combined, judged_on.targets)), abs=1e-9)
        assert float(found.plcc[a, a]) == pytest.approx(selection.value, abs=1e-9)


def test_the_last_row_is_that_of_all_maps(found: CrossDataset, matrices: dict[str, ScoreMatrix]) -> None:
    assert found.plcc.shape == found.srocc.shape == (4, 3)
    for b, scores in enumerate(matrices.values()):
        assert float(found.plcc[-1, b]) == pytest.approx(float(fmiqa.plcc(scores.pool(), scores.targets)), abs=1e-9)
        assert float(found.srocc[-1, b]) == pytest.approx(float(fmiqa.srocc(scores.pool(), scores.targets)), abs=1e-9)


def test_held_out_is_the_whole_search_anew_in_each_fold(found: CrossDataset, matrices: dict[str, ScoreMatrix]) -> None:
    for a, scores in enumerate(matrices.values()):
        splits = fmiqa.grouped_folds(scores.groups, folds=3, seed=4)
        expected = fmiqa.held_out(scores, lambda part: fmiqa.forward_select(part), splits=splits)
        assert found.held_out_plcc[a].tolist() == pytest.approx(expected.plcc[:, -1].tolist(), abs=1e-9)
        assert found.held_out_srocc[a].tolist() == pytest.approx(expected.srocc[:, -1].tolist(), abs=1e-9)


def test_options_reach_every_search(matrices: dict[str, ScoreMatrix]) -> None:
    short = cross_dataset(matrices, folds=None, max_maps=1, pool="layer_geometric")
    assert [len(maps) for maps in short.selected] == [1, 1, 1]
    assert short.held_out_plcc.shape == (3, 0)
    first = next(iter(matrices.values()))
    expected = fmiqa.plcc(first.pool(pool="layer_geometric"), first.targets)
    assert float(short.plcc[-1, 0]) == pytest.approx(float(expected), abs=1e-9)
    assert "held out" not in str(short)


def test_in_sample_held_out_and_transfer_are_told_apart(found: CrossDataset) -> None:
    rows = found.table_rows()
    for a, name in enumerate(found.datasets):
        assert rows[a + 1][0] == name
        for b in range(3):
            assert ("in sample" in rows[a + 1][b + 2]) == ("held out" in rows[a + 1][b + 2]) == (a == b)
    assert "all maps" in rows[-1][0]
    for text in (str(found), found.to_markdown(), found._repr_html_()):
        assert "IN SAMPLE" in text
        assert "Held out: selected again" in text


def test_references_of_the_same_names_are_marked(found: CrossDataset) -> None:
    # "a0" and "A0" may be one picture; "b0" is another.
    assert found.shared.tolist() == [[6, 0, 6], [0, 6, 0], [6, 0, 6]]
    marked = [["†" in cell for cell in row[2:]] for row in found.table_rows()[1:]]
    assert marked == [[False, False, True], [False] * 3, [True, False, False], [False] * 3]
    assert [note for note in found.notes if "6 references of first and third bear the same names" in note]


def test_the_heat_map_shows_the_figures(found: CrossDataset) -> None:
    figure = pytest.importorskip("matplotlib.figure").Figure()
    ax = found.plot(figure.subplots(), figure="srocc")
    shown = torch.tensor(ax.images[0].get_array().tolist())
    expected = found.srocc.clone()
    for a in range(3):
        expected[a, a] = mean_and_error(found.held_out_srocc[a])[0]
    torch.testing.assert_close(shown, expected.to(shown), rtol=0, atol=1e-6)  # float32
    texts = [text.get_text() for text in ax.texts]
    assert len(texts) == 12
    assert texts[1] == f"{float(found.srocc[0, 1]):.3f}"
    assert "held out" in texts[0]
    assert f"({float(found.srocc[0, 0]):.3f} in sample)" in texts[0]
    assert len(ax.patches) == 3  # the diagonal is framed


def test_it_is_the_same_when_loaded(found: CrossDataset, tmp_path: Path) -> None:
    found.save(tmp_path / "t.json")
    loaded = CrossDataset.load(tmp_path / "t.json")
    assert loaded.to_dict() == found.to_dict()
    assert str(loaded) == str(found)


@pytest.mark.parametrize("damage", ["cut", "selected", "plcc"])
def test_a_damaged_file_is_refused(damage: str, found: CrossDataset, tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    found.save(path)
    content = json.loads(path.read_text())
    content.pop(damage, None)
    path.write_text(json.dumps(content) if damage != "cut" else path.read_text()[:200])
    with pytest.raises(FileFormatError, match=r"t\.json"):
        CrossDataset.load(path)


@pytest.mark.parametrize(
    ("option", "value"),
    [("network", "vgg16"), ("weights_sha256", "def"), ("stage", "conv"), ("measure", {"name": "mse"})],
)
def test_map_scores_that_do_not_go_together_are_refused_by_name(option: str, value: object) -> None:
    other = study(1, 4, "b", **{option: value})
    with pytest.raises(InputError, match=f"first and second hold map scores that were computed differently.*{option}"):
        cross_dataset({"first": study(0, 2, "a"), "second": other})


def test_joined_matrices_are_compared_source_by_source(matrices: dict[str, ScoreMatrix]) -> None:
    first, second = matrices["first"], matrices["second"]
    fine = {"one": ScoreMatrix.concat({"x": first}), "two": ScoreMatrix.concat({"x": second})}
    assert cross_dataset(fine, folds=None, max_maps=1).selected[0][0].source == "x"
    other = replace(second, options={**second.options, "stage": "conv"})
    with pytest.raises(InputError, match=r"x stage: 'relu' in one, 'conv' in two"):
        cross_dataset({**fine, "two": ScoreMatrix.concat({"x": other})})


def test_other_maps_and_single_sets_are_refused(matrices: dict[str, ScoreMatrix]) -> None:
    part = matrices["second"].columns(["conv1:0", "conv1:1"])
    with pytest.raises(InputError, match=r"second has other maps .*than first"):
        cross_dataset({"first": matrices["first"], "second": part})
    with pytest.raises(InputError, match="two data sets, got 1"):
        cross_dataset({"first": matrices["first"]})
    with pytest.raises(InputError, match="'plcc' or 'srocc', got 'rmse'"):
        cross_dataset(matrices, folds=None, max_maps=1).table_rows("rmse")  # type: ignore[arg-type]
