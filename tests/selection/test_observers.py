"""Observers in one batch equal observers one by one; planted groups of observers show as blocks."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

import fmiqa
from fmiqa import forward_select
from fmiqa.selection.observers import ObserverStudy, observer_study
from fmiqa.selection.splits import grouped_folds
from fmiqa.selection.stability import stability

N, GROUPS = 72, [f"r{i // 9}" for i in range(72)]


def data(seed: int = 0) -> tuple[Tensor, Tensor]:
    """Ten maps; observers 1 to 3 see map 2, observers 4 and 5 see map 7, each with noise of their own."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.rand(N, 10, generator=generator, dtype=torch.float64)
    noise = 0.1 * torch.randn(N, 5, generator=generator, dtype=torch.float64)
    return values, values[:, [2, 2, 2, 7, 7]] + noise


def holes(ratings: Tensor) -> Tensor:
    """The same ratings, three tenths of them missing, none of observer 2's."""
    missing = torch.rand(ratings.shape, generator=torch.Generator().manual_seed(9)) < 0.3
    missing[:, 1] = False
    return torch.where(missing, torch.nan, ratings)


def test_planted_groups_show_as_blocks() -> None:
    values, ratings = data()
    study = observer_study(values, ratings, groups=GROUPS, folds=4, max_maps=1, fit=None)
    assert [str(maps[0]) for maps in study.selected] == ["map:2"] * 3 + ["map:7"] * 2
    assert study.frequency[[2, 7]].tolist() == [0.6, 0.4]
    first = torch.tensor([True, True, True, False, False])
    same = first[:, None] == first
    for figure in ("plcc", "srocc"):
        matrix = study.cross_prediction(figure)  # type: ignore[arg-type]
        assert float(matrix[same].min()) > 0.85  # by construction sqrt(1/12 / (1/12 + .01)) = .945
        assert float(matrix[~same].max()) < 0.65  # independent maps; the logistic flatters 18 held-out images
    # In a group all choose one map, so own maps win over those of the other group only.
    assert float(study.own_advantage("srocc").mean()) > 0.3
    # Without observer 4 three of the others see map 2: neither their maps nor their mean are observer 4's.
    left_out = study.left_out_srocc.mean(0)[:, 3]
    assert float(left_out[0]) < 0.4  # independent maps, four parts of 18 images: scatters by about 1 / sqrt(72) = .12
    assert float(left_out[2]) < 0.7  # by construction about 1 / sqrt(10) = .32
    assert float(study.cross_prediction("srocc")[3, 3]) > 0.85


CASES: list[tuple[bool, dict[str, object]]] = [
    (False, {"fit": None, "max_maps": 2}),
    (True, {"criterion": "srocc", "max_maps": 2}),
    (True, {"max_maps": 1}),  # the default logistic
    (True, {"pool": "layer_geometric", "fit": None, "max_maps": 2}),
]


@pytest.mark.parametrize(("gaps", "options"), CASES)
def test_batch_equals_one_by_one_without_missing_rows(gaps: bool, options: dict[str, object]) -> None:
    values, ratings = data(1)
    values, ratings = values[:, 2:8], (holes(ratings) if gaps else ratings)[:, [0, 1, 3]]
    study = observer_study(values, ratings, groups=GROUPS, folds=2, **options)  # type: ignore[arg-type]

    def alone(rows: Tensor, y: Tensor) -> fmiqa.Selection:
        rows = rows[y[rows].isfinite()]
        return forward_select(values[rows], y[rows], **options)  # type: ignore[arg-type]

    def scored(rows: Tensor, found: fmiqa.Selection) -> Tensor:
        return fmiqa.pool_scores(values[rows][:, [m.channel for m in found.maps]], found.maps, pool=found.pool)

    train, held = grouped_folds(GROUPS, folds=2)[1]
    for o in range(3):
        y = ratings[:, o]
        whole = alone(torch.arange(N), y)
        assert study.selected[o] == whole.maps
        assert float(study.in_sample[o]) == pytest.approx(whole.curve[-1], abs=1e-9)  # weighted sums differ
        assert int(study.ratings[o]) == int(y.isfinite().sum())

        own = alone(train, y)
        assert study.fold_selected[1][o] == own.maps
        judge = (o + 1) % 3
        rows = held[ratings[held, judge].isfinite()]
        x, target = scored(rows, own), ratings[rows, judge]
        # The logistic's search ends within a tolerance of its own; its batch sums in another order.
        assert float(study.plcc[1, o, judge]) == pytest.approx(float(fmiqa.plcc(x, target)), abs=1e-7)
        assert float(study.srocc[1, o, judge]) == pytest.approx(float(fmiqa.srocc(x, target)), abs=1e-9)

        mean = torch.cat([ratings[:, :o], ratings[:, o + 1 :]], 1).nanmean(1)
        rows = held[(y + mean)[held].isfinite()]
        predictions = [
            scored(rows, alone(train, mean)),
            fmiqa.pool_scores(values[rows], study.maps, pool=own.pool),
            mean[rows],
        ]
        expected = [float(fmiqa.srocc(x, y[rows])) for x in predictions]
        assert study.left_out_srocc[1, :, o].tolist() == pytest.approx(expected, abs=1e-9)
        assert float(study.left_out_plcc[1, 2, o]) == pytest.approx(float(fmiqa.plcc(mean[rows], y[rows])), abs=1e-7)


def test_held_out_ratings_do_not_reach_the_selection() -> None:
    values, ratings = data()
    split = grouped_folds(GROUPS, folds=3)[1]
    spoilt = ratings.clone()
    spoilt[split.held_out] = torch.rand(len(split.held_out), 5, dtype=torch.float64)
    first, second = (observer_study(values, r, groups=GROUPS, folds=3, max_maps=3, fit=None) for r in (ratings, spoilt))
    assert first.fold_selected[1] == second.fold_selected[1]
    assert first.fold_selected[0] != second.fold_selected[0]


def test_agreement_of_sets_is_nogueiras() -> None:
    values, ratings = data(2)
    study = observer_study(values, ratings, groups=GROUPS, folds=3, max_maps=3, fit=None)

    def member(sets: tuple[fmiqa.MapIndex, ...]) -> Tensor:
        return torch.tensor([[m in maps for m in study.maps] for maps in sets])

    assert float(study.stability.value) == pytest.approx(float(stability(member(study.selected)).value))
    between = [float(stability(member(fold)).value) for fold in study.fold_selected]
    assert study.stability_between.value.tolist() == pytest.approx(between)
    within = [float(stability(member(tuple(f[o] for f in study.fold_selected))).value) for o in range(5)]
    assert study.stability_within.value.tolist() == pytest.approx(within)


def test_images_that_one_observer_alone_rated_leave_the_comparison_with_the_others() -> None:
    values, ratings = data(3)
    ratings[::6, 1:] = torch.nan
    study = observer_study(values, ratings, groups=GROUPS, folds=2, max_maps=1, fit=None)
    held = grouped_folds(GROUPS, folds=2)[0].held_out
    common = held[held % 6 != 0]
    every = values.mean(1)
    assert float(study.left_out_srocc[0, 1, 0]) == pytest.approx(float(fmiqa.srocc(every[common], ratings[common, 0])))
    own = values[held][:, [m.channel for m in study.fold_selected[0][0]]].mean(1)
    assert float(study.srocc[0, 0, 0]) == pytest.approx(float(fmiqa.srocc(own, ratings[held, 0])))


def test_shown_and_saved(tmp_path: Path) -> None:
    values, ratings = data()
    names = ["ann", "bob", "cyd", "dan", "eve"]
    study = observer_study(values, ratings, names=names, groups=GROUPS, folds=3, max_maps=2, fit=None)
    study.save(tmp_path / "study.json")
    loaded = ObserverStudy.load(tmp_path / "study.json")
    assert str(loaded) == str(study)
    assert loaded.selected == study.selected
    assert loaded.fold_selected == study.fold_selected
    assert loaded.maps == study.maps
    assert loaded.options == study.options
    for name in ("plcc", "srocc", "left_out_plcc", "left_out_srocc", "in_sample"):
        assert torch.equal(getattr(loaded, name), getattr(study, name))
    table = study.table("srocc")
    assert [row[0] for row in table] == ["observer", *names, "mean"]
    assert table[2][4] == f"{float(study.srocc[:, [0, 2, 3, 4], 1].mean()):.4f}"
    assert study.cross_table()[1][2] == f"{float(study.plcc[:, 0, 1].mean()):.3f}"
    assert "<td>bob</td>" in study._repr_html_()
    pytest.importorskip("matplotlib")
    ax = study.plot(figure="srocc")
    assert [label.get_text() for label in ax.get_xticklabels()] == names
    assert len(ax.texts) == 25
    (tmp_path / "study.json").write_text('{"kind": "fmiqa observer study 1"}')
    with pytest.raises(fmiqa.FileFormatError, match="not a complete fmiqa observer study"):
        ObserverStudy.load(tmp_path / "study.json")


def test_errors() -> None:
    values, ratings = data()

    def fails(given: object, match: str, **options: object) -> None:
        with pytest.raises(fmiqa.InputError, match=match):
            observer_study(values, given, **{"groups": GROUPS, "folds": 3, **options})  # type: ignore[arg-type]

    fails(ratings[:, 0], r"tensor \(N, O\)")
    fails(ratings[:, :1], "O >= 2 observers")
    fails(ratings[:60], "a row for each of the 72 images")
    fails(ratings, "different name for each of 5 observers", names=["a", "a", "b", "c", "d"])
    fails(ratings, "no reference names", groups="reference")
    few, same, infinite, unlucky = (ratings.clone() for _ in range(4))
    few[4:, 2] = torch.nan
    fails(few, "observer 3 has 4 ratings in all images")
    fails(few, "cyd has 4 ratings", names=["ann", "bob", "cyd", "dan", "eve"])
    same[:, 3] = 2.0
    fails(same, r"observer 4 gave the same rating \(2\) to all images")
    infinite[5, 1] = math.inf
    fails(infinite, "ratings of observer 2 hold infinite values")
    held = grouped_folds(GROUPS, folds=3)[0].held_out
    unlucky[held[3:], 4] = torch.nan
    fails(unlucky, "observer 5 has 3 ratings in the held-out part of a fold")
    with pytest.raises(fmiqa.InputError, match="no map may join for observer 1"):
        observer_study(-ratings[:, :1], ratings[:, [0, 0]], groups=GROUPS, folds=3)
    study = observer_study(values, ratings, groups=GROUPS, folds=2, max_maps=1, fit=None)
    with pytest.raises(fmiqa.InputError, match="figure is 'plcc' or 'srocc'"):
        study.table("krocc")  # type: ignore[arg-type]
