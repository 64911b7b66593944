"""Grouped validation: batched folds equal folds run one by one, and held-out parts stay unseen."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import fmiqa
from fmiqa import forward_select
from fmiqa.selection.splits import grouped_folds
from fmiqa.selection.validation import Validation, cross_validate

GROUPS = [f"r{i // 12}" for i in range(96)]


def data(seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    y = torch.rand(96, generator=generator, dtype=torch.float64)
    values = 0.7 * torch.rand(96, 14, generator=generator, dtype=torch.float64)
    values[:, 2] += 0.6 * y
    values[:, 9] += 0.5 * y.square()
    return values, y


@pytest.mark.parametrize("options", [{"fit": None}, {"criterion": "srocc"}, {}])
def test_folds_in_one_batch_equal_folds_one_by_one(options: dict[str, object]) -> None:
    values, y = data()
    result = cross_validate(values, y, groups=GROUPS, folds=4, max_maps=4, **options)  # type: ignore[arg-type]
    for fold, split in enumerate(grouped_folds(GROUPS, folds=4)):
        alone = forward_select(values[split.train], y[split.train], max_maps=4, **options)  # type: ignore[arg-type]
        size = len(alone.maps)
        assert result.selected[fold] == alone.maps
        assert result.in_sample[fold, :size].tolist() == pytest.approx(alone.curve, abs=1e-9)  # weighted sums differ
        pooled = values[split.held_out][:, [m.channel for m in alone.maps]].mean(1)
        assert float(result.plcc[fold, size - 1]) == pytest.approx(float(fmiqa.plcc(pooled, y[split.held_out])))
        assert float(result.srocc[fold, size - 1]) == pytest.approx(float(fmiqa.srocc(pooled, y[split.held_out])))


def test_held_out_scores_do_not_reach_the_selection() -> None:
    values, y = data()
    splits = grouped_folds(GROUPS, folds=3)[:1]
    spoilt = y.clone()
    spoilt[splits[0].held_out] = torch.rand(len(splits[0].held_out), dtype=torch.float64)
    first = cross_validate(values, y, splits=splits, max_maps=4)
    second = cross_validate(values, spoilt, splits=splits, max_maps=4)
    assert first.selected == second.selected
    assert torch.equal(first.in_sample, second.in_sample)
    assert not torch.equal(first.plcc, second.plcc)


def test_noise_is_worth_nothing_held_out() -> None:
    """Greedy choice among 200 columns of noise looks good in sample, and only there."""
    generator = torch.Generator().manual_seed(1)
    values = torch.rand(96, 200, generator=generator, dtype=torch.float64)
    y = torch.rand(96, generator=generator, dtype=torch.float64)
    result = cross_validate(values, y, groups=GROUPS, folds=4, max_maps=6, fit=None)
    assert float(result.in_sample[:, -1].mean()) > 0.5
    # Spearman keeps its sign; four folds of 24 images scatter by about 1 / sqrt(96) = .1.
    assert abs(float(result.srocc[:, -1].mean())) < 0.3


def test_sizes_by_held_out_evidence(tmp_path: Path) -> None:
    values, y = data()
    result = cross_validate(values, y, groups=GROUPS, folds=4, max_maps=6)
    assert float(result.mean[result.best_size - 1]) == float(result.mean.max())
    assert result.one_standard_error_size <= result.best_size
    floor = result.mean[result.best_size - 1] - result.standard_error[result.best_size - 1]
    assert bool((result.mean[: result.one_standard_error_size - 1] < floor).all())
    result.save(tmp_path / "validation.json")
    loaded = Validation.load(tmp_path / "validation.json")
    assert str(loaded) == str(result)
    assert loaded.selected == result.selected
    assert "held-out" in result._repr_html_()
    pytest.importorskip("matplotlib")
    assert {line.get_label() for line in result.plot().get_lines()} >= {"in sample", "held out"}
    ranks = {line.get_label(): line for line in result.plot(figure="srocc").get_lines()}
    assert list(ranks["held out"].get_ydata()) == result.srocc.mean(0).tolist()
    assert "in sample" not in ranks  # there it is PLCC


def test_errors() -> None:
    values, y = data()
    with pytest.raises(fmiqa.InputError, match="no reference names"):
        cross_validate(values, y)
    with pytest.raises(fmiqa.InputError, match="a name for each of 96 images"):
        cross_validate(values, y, groups=GROUPS[:5])
    with pytest.raises(fmiqa.InputError, match="too few for a logistic fit"):
        cross_validate(values, y, groups=[str(i) for i in range(96)], folds="leave_one_out")


def test_any_search_is_validated_and_repeated_like_forward_selection() -> None:
    """Forward selection as one batch, and as any search: the same sets and figures, each at its own end."""
    values, y = data()

    def alone(part: fmiqa.ScoreMatrix) -> fmiqa.Selection:
        return forward_select(part, max_maps=3)

    batch = cross_validate(values, y, groups=GROUPS, folds=4, max_maps=3)
    each = cross_validate(values, y, groups=GROUPS, folds=4, search=alone)
    assert each.selected == batch.selected
    for name in ("in_sample", "plcc", "srocc"):
        assert getattr(each, name)[:, 0].tolist() == pytest.approx(getattr(batch, name)[:, -1].tolist(), abs=1e-9)
    assert each.predictions is not None
    assert batch.predictions is not None
    assert each.predictions.tolist() == pytest.approx(batch.predictions.tolist(), abs=1e-6)
    sets = [fmiqa.stability_selection(values, y, groups=GROUPS, subsamples=5, **how) for how in both(alone)]
    assert sets[0].selected == sets[1].selected
    # Without a fit, since the batch does not fit the best maps of a step globally, which can change the sets of noise.
    plain = [{"max_maps": 3, "fit": None}, {"search": partial(forward_select, max_maps=3, fit=None)}]
    nulls = [fmiqa.permutation_null(values, y, groups=GROUPS, permutations=4, **how) for how in plain]
    assert nulls[0].null[:, -1].tolist() == pytest.approx(nulls[1].null[:, -1].tolist(), abs=1e-9)
    ratings = torch.stack([y, y.square(), values[:, 2]], 1)
    studies = [fmiqa.observer_study(values, ratings, groups=GROUPS, folds=3, **how) for how in both(alone)]
    assert studies[0].selected == studies[1].selected
    assert studies[0].plcc.flatten().tolist() == pytest.approx(studies[1].plcc.flatten().tolist(), abs=1e-6)


def both(search: object) -> list[Any]:
    return [{"max_maps": 3}, {"search": search}]


def test_weighted_selections_are_validated() -> None:
    values, y = data()
    search = partial(fmiqa.weighted_select, groups=[f"r{i // 12}" for i in range(72)], folds=3)
    found = cross_validate(values, y, groups=GROUPS, folds=4, search=search)
    assert not found.grows
    assert found.options["search"] == "weighted"
    assert found.table()[0] == ("", "mean", "± s.e.")
    with pytest.raises(fmiqa.InputError, match="no curve by number of maps"):
        found.plot()


def test_options_of_a_search_of_its_own_are_refused() -> None:
    values, y = data()
    with pytest.raises(fmiqa.InputError, match="give them to the search"):
        cross_validate(values, y, groups=GROUPS, search=fmiqa.beam_select, max_maps=3)


@pytest.mark.parametrize("kind", ["validation", "null", "stability"])
def test_results_are_saved_and_loaded(kind: str, tmp_path: Path) -> None:
    values, y = data()
    found: Any = {
        "validation": lambda: cross_validate(values, y, groups=GROUPS, folds=3, max_maps=2),
        "null": lambda: fmiqa.permutation_null(values, y, groups=GROUPS, permutations=3, max_maps=2),
        "stability": lambda: fmiqa.stability_selection(values, y, groups=GROUPS, subsamples=4, max_maps=2),
    }[kind]()
    path = tmp_path / "result.json"
    found.save(path)
    again = type(found).load(path)
    assert again.to_dict() == found.to_dict()
    assert str(again) == str(found)
    assert found.options["direction"] == "rising"
    assert found.options["groups"] == "given"


def distorted() -> fmiqa.ScoreMatrix:
    """Map 2 says all of five distortion types and nothing of jpeg, of which the other maps say a little."""
    values, y = data()
    kinds = [("noise", "blur", "haze", "rain", "dust", "jpeg")[i % 6] for i in range(96)]
    jpeg = torch.tensor([kind == "jpeg" for kind in kinds])
    values = 0.5 * values + 0.05 * y[:, None]
    values[:, 2] = torch.where(jpeg, torch.rand(96, generator=torch.Generator().manual_seed(5)).double(), y)
    maps = fmiqa.MapIndex.of_layers({"conv1": 14})
    return fmiqa.ScoreMatrix(
        values.float(), maps, y, GROUPS, [str(i) for i in range(96)], kinds, {"dataset": "made up"}
    )


def test_leaving_out_distortion_types_shows_where_a_selection_fails() -> None:
    scores = distorted()
    with pytest.warns(UserWarning, match="of 6 distortion types .* lower SROCC than all maps: .*jpeg"):
        found = cross_validate(scores, groups="distortion", folds="leave_one_out", max_maps=1)
    assert found.leaves_one_out
    assert "jpeg" in found.failures
    assert "blur" not in found.failures
    assert "jpeg" in found.notes[0]
    assert {groups[0] for groups in found.held_out} == set(scores.distortions or ())
    table = {row[0]: row for row in found.by_group()[1:]}
    for fold, (kind,) in enumerate(found.held_out):
        images = scores.rows([i for i, other in enumerate(scores.distortions or ()) if other == kind])
        chosen, every = images.columns(found.selected[fold]).values.mean(1), images.values.double().mean(1)
        figures = [float(f(x, images.targets)) for f in (fmiqa.plcc, fmiqa.srocc) for x in (chosen, every)]
        assert [float(cell) for cell in table[kind][2:6]] == pytest.approx(figures, abs=1e-4)
        assert table[kind][-1] == ("below all maps" if figures[2] < figures[3] else "")
    assert "below all maps" in str(found)


def test_folds_of_several_groups_name_no_failures() -> None:
    found = cross_validate(distorted(), groups="reference", folds=4, max_maps=1)
    assert not found.leaves_one_out
    assert found.failures == ()
    assert found.warning == ""
    assert "Some folds judge only" in found.notes[1]
    assert "Held out is the figure to trust" in found.notes[-1]
    assert sorted(name for groups in found.held_out for name in groups) == sorted(set(GROUPS))
