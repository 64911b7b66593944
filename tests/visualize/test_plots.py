"""The plots draw the numbers that they are given, on the axes that they are given."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

import fmiqa
from fmiqa.errors import InputError

mpl = pytest.importorskip("matplotlib")
mpl.use("Agg")

import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402
from matplotlib.axes import Axes  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402

from fmiqa.visualize import (  # noqa: E402
    plot_agreement,
    plot_correlation,
    plot_curve,
    plot_frequency,
    plot_layers,
    plot_weights,
)

IMAGES = 48


@pytest.fixture(autouse=True)
def no_figures_left() -> Iterator[None]:
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def scores() -> fmiqa.ScoreMatrix:
    """Maps that each see a part of the quality: a selection takes several steps."""
    generator = torch.Generator().manual_seed(0)
    parts = torch.rand(IMAGES, 6, generator=generator)
    noise = torch.rand(IMAGES, 6, generator=generator)
    return fmiqa.ScoreMatrix(
        values=parts + 0.3 * noise,
        maps=fmiqa.MapIndex.of_layers({"conv1": 2, "conv2": 4}),
        targets=parts.sum(1).double(),
        groups=[f"reference{i // 6}" for i in range(IMAGES)],
        names=[f"image{i}" for i in range(IMAGES)],
        distortions=[("blur", "noise", "jpeg")[i % 3] for i in range(IMAGES)],
        options={"dataset": "made up"},
    )


@pytest.fixture(scope="module")
def selection(scores: fmiqa.ScoreMatrix) -> fmiqa.Selection:
    return fmiqa.forward_select(scores, max_maps=4)


@pytest.fixture(scope="module")
def validation(scores: fmiqa.ScoreMatrix) -> fmiqa.Validation:
    return fmiqa.cross_validate(scores, folds=3, max_maps=4)


def labels(ax: Axes) -> list[str]:
    return [text.get_text() for text in ax.get_legend().get_texts()]


def line(ax: Axes, label: str) -> np.ndarray:
    (found,) = [li for li in ax.lines if li.get_label() == label]
    return np.asarray(found.get_ydata())


def heights(ax: Axes) -> list[float]:
    return [float(bar.get_height()) for bar in ax.patches]


def test_a_curve_alone_is_that_of_the_selection_and_says_in_sample(selection: fmiqa.Selection) -> None:
    ax = plot_curve(selection)
    assert line(ax, "in sample").tolist() == selection.curve
    assert len(selection.curve) == 4
    assert labels(ax) == ["in sample"]
    assert "in sample" in ax.get_ylabel()
    assert ax.get_xlabel()
    assert [text.get_text() for text in ax.texts] == [str(m) for m in selection.maps]


def test_a_validation_is_drawn_beside_it_under_other_labels(
    selection: fmiqa.Selection, validation: fmiqa.Validation
) -> None:
    ax = plot_curve(selection, validation=validation)
    assert line(ax, "in sample").tolist() == selection.curve
    mean, error = validation.plcc.numpy().mean(0), validation.plcc.numpy().std(0, ddof=1) / np.sqrt(3)
    assert line(ax, "held out, mean of 3 folds") == pytest.approx(mean)
    assert line(ax, "all maps, held out") == pytest.approx([float(validation.all_plcc.mean())] * 2)
    (band,) = ax.collections
    corners = band.get_paths()[0].vertices
    for size in range(4):
        at = corners[corners[:, 0] == size + 1, 1]
        assert [at.min(), at.max()] == pytest.approx([mean[size] - error[size], mean[size] + error[size]])
    assert "in sample" not in ax.get_ylabel()
    assert len(set(labels(ax))) == 4
    # Everything lies within the limits, though they were set for the in-sample curve first.
    low, high = ax.get_ylim()
    assert low < corners[:, 1].min()
    assert high > max(*selection.curve, corners[:, 1].max())


def test_a_rank_criterion_is_held_out_as_such(scores: fmiqa.ScoreMatrix) -> None:
    selection = fmiqa.forward_select(scores, criterion="srocc", max_maps=2)
    validation = fmiqa.cross_validate(scores, criterion="srocc", folds=3, max_maps=2)
    ax = plot_curve(selection, validation=validation)
    assert line(ax, "held out, mean of 3 folds") == pytest.approx(validation.srocc.mean(0).numpy())
    assert line(ax, "all maps, held out")[0] == pytest.approx(float(validation.all_srocc.mean()))
    assert ax.get_ylabel() == "SROCC"


def test_curves_that_cannot_be_compared_are_refused(
    scores: fmiqa.ScoreMatrix, selection: fmiqa.Selection, validation: fmiqa.Validation
) -> None:
    ranked = fmiqa.forward_select(scores, criterion="srocc", max_maps=2)
    with pytest.raises(InputError, match="criterion: srocc here, plcc in the validation"):
        plot_curve(ranked, validation=validation)
    plain = fmiqa.forward_select(scores, fit=None, max_maps=2)
    held = fmiqa.cross_validate(scores, fit=None, folds=3, max_maps=2)
    with pytest.raises(InputError, match="not plcc with fit None"):
        plot_curve(plain, validation=held)
    with pytest.raises(InputError, match="no steps"):
        plot_curve(replace(selection, steps=(), weights=torch.ones(len(selection))))


@pytest.mark.parametrize("coloured", [True, False])
def test_agreement_draws_every_image_and_its_residual(
    scores: fmiqa.ScoreMatrix, selection: fmiqa.Selection, coloured: bool
) -> None:
    given = scores if coloured else replace(scores, distortions=None)
    above, below = plot_agreement(given, selection)
    x = scores.columns(selection.maps).values.double().mean(1)
    assert selection.fit is not None
    residual = scores.targets - selection.fit.predict(x)
    for ax, y in ((above, scores.targets), (below, residual)):
        drawn = np.concatenate([np.asarray(points.get_offsets()) for points in ax.collections])
        wanted = np.stack([x.numpy(), y.numpy()], 1)
        assert drawn[drawn[:, 0].argsort()] == pytest.approx(wanted[wanted[:, 0].argsort()])
        assert len(ax.collections) == (3 if coloured else 1)
        assert ax.get_ylabel()
    curve = np.asarray(above.lines[0].get_xdata())
    assert [curve.min(), curve.max()] == pytest.approx([float(x.min()), float(x.max())])
    assert np.asarray(above.lines[0].get_ydata()) == pytest.approx(
        selection.fit.predict(torch.from_numpy(curve)).numpy()
    )
    assert "made up" in above.get_ylabel()
    assert "4 selected maps" in below.get_xlabel()
    assert labels(above) == [*(["blur", "jpeg", "noise"] if coloured else []), "logistic5 of the selection"]
    assert above.get_shared_x_axes().joined(above, below)


def test_each_distortion_has_its_own_colour_and_images(scores: fmiqa.ScoreMatrix) -> None:
    above, _ = plot_agreement(scores, scores.pool())
    assert scores.distortions is not None
    counts = Counter(scores.distortions)
    assert {points.get_label(): len(points.get_offsets()) for points in above.collections} == counts
    assert len({tuple(points.get_facecolor()[0]) for points in above.collections}) == 3
    eight = replace(scores, distortions=[f"type{i % 8}" for i in range(IMAGES)])
    above, _ = plot_agreement(eight, scores.pool())
    assert len({tuple(points.get_facecolor()[0]) for points in above.collections}) == 8
    nine = replace(scores, distortions=[f"type{i % 9}" for i in range(IMAGES)])
    above, _ = plot_agreement(nine, scores.pool())
    assert [len(points.get_offsets()) for points in above.collections] == [IMAGES]


def test_scores_of_any_metric_are_fitted_to_the_images(scores: fmiqa.ScoreMatrix) -> None:
    quality = scores.pool()
    above, below = plot_agreement(replace(scores, distortions=None), quality)
    fit = fmiqa.fit_logistic(quality, scores.targets)
    residual = np.asarray(below.collections[0].get_offsets())[:, 1]
    assert np.sqrt((residual**2).mean()) == pytest.approx(float(fit.rmse), rel=1e-6)
    assert labels(above) == ["logistic5 fitted to these images"]


def test_agreement_refuses_what_it_cannot_draw(scores: fmiqa.ScoreMatrix, selection: fmiqa.Selection) -> None:
    with pytest.raises(InputError, match="finite score for each of the 48 images"):
        plot_agreement(scores, torch.rand(7))
    with pytest.raises(InputError, match="finite score"):
        plot_agreement(scores, torch.full((IMAGES,), torch.nan))
    with pytest.raises(InputError, match="no such feature map"):
        plot_agreement(scores.columns(selection.maps[:1]), selection)
    with pytest.raises(InputError, match="axes of a grid"):
        plot_agreement(scores, selection, ax=Figure().add_axes((0.1, 0.1, 0.8, 0.8)))


def test_layers_count_the_chosen_maps_beside_chance() -> None:
    all_maps = fmiqa.MapIndex.of_layers({"conv1": 2, "conv2": 6, "conv3": 2})
    ax = plot_layers(["conv2:0", "conv1:1", "conv2:5"], all_maps)
    assert heights(ax) == pytest.approx([1, 2, 0, 0.6, 1.8, 0.6])
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["conv1", "conv2", "conv3"]
    assert ax.get_xlabel()
    assert ax.get_ylabel()
    assert labels(ax) == ["3 selected maps", "expected by chance from all 10 maps"]
    with pytest.raises(InputError, match="conv4:0"):
        plot_layers(["conv4:0"], all_maps)
    with pytest.raises(InputError, match="no selected maps"):
        plot_layers([], all_maps)


def test_layers_of_several_sources_stand_apart() -> None:
    ax = plot_layers(["half/conv1:0"], ["conv1:0", "half/conv1:0"])
    assert heights(ax) == [0, 1, 0.5, 0.5]


def test_frequency_draws_the_maps_chosen_most_often() -> None:
    maps = fmiqa.MapIndex.of_layers({"conv1": 5})
    member = torch.tensor([[1, 0, 1, 0, 0], [1, 0, 0, 1, 0], [1, 0, 1, 1, 0], [1, 0, 0, 1, 0.0]])
    selected = tuple(maps.at(row.nonzero().flatten().tolist()) for row in member)
    found = fmiqa.StabilitySelection(maps, selected)
    ax = plot_frequency(found, threshold=0.75)
    assert heights(ax) == [1, 0.75, 0.5]
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["conv1:0", "conv1:3", "conv1:2"]
    assert line(ax, "in at least 75%: 2 maps").tolist() == [0.75, 0.75]
    assert ax.get_xlabel()
    assert "4 subsamples" in ax.get_ylabel()
    without = plot_frequency(found, top=2, threshold=None)
    assert heights(without) == [1, 0.75]
    assert not without.lines
    for wrong in ({"top": 0}, {"threshold": 0.0}, {"threshold": 1.5}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            plot_frequency(found, **wrong)  # type: ignore[arg-type]


def test_correlation_is_numpys_on_a_scale_from_minus_one_to_one(scores: fmiqa.ScoreMatrix) -> None:
    flipped = replace(scores, values=torch.cat([scores.values[:, :5], -scores.values[:, :1]], 1))
    chosen = ["conv2:3", "conv1:0", "conv2:1"]
    ax = plot_correlation(flipped, chosen)
    (image,) = ax.images
    columns = flipped.values.double().numpy()[:, [5, 0, 3]]
    assert np.asarray(image.get_array()) == pytest.approx(np.corrcoef(columns, rowvar=False))
    assert image.get_clim() == (-1, 1)
    for axis in (ax.xaxis, ax.yaxis):
        assert [tick.get_text() for tick in axis.get_ticklabels()] == chosen
    assert image.colorbar is not None
    assert "48 images" in image.colorbar.ax.get_ylabel()


def test_correlation_refuses_maps_without_one(scores: fmiqa.ScoreMatrix) -> None:
    with pytest.raises(InputError, match="two maps"):
        plot_correlation(scores, ["conv1:0"])
    values = scores.values.clone()
    values[:, 1] = 0.5
    values[0, 2] = torch.nan
    with pytest.raises(InputError, match="conv1:1, conv2:0 are constant or not finite"):
        plot_correlation(replace(scores, values=values), scores.maps)


def test_weights_are_shares_of_their_sum(selection: fmiqa.Selection) -> None:
    weighted = replace(selection, weights=torch.tensor([6.0, 2.0, 1.0, 1.0]))
    ax = plot_weights(weighted, top=2)
    assert heights(ax) == pytest.approx([0.6, 0.2])
    assert "first 2 of 4" in ax.get_title()
    assert ax.get_xlabel()
    assert ax.get_ylabel()
    with pytest.raises(InputError, match="no weights"):
        plot_weights(selection)
    with pytest.raises(InputError, match="top"):
        plot_weights(weighted, top=0)


def test_given_axes_are_drawn_on_and_returned(
    scores: fmiqa.ScoreMatrix, selection: fmiqa.Selection, validation: fmiqa.Validation
) -> None:
    curve, layers, correlation, left = Figure(layout="constrained").subplots(1, 4)
    assert plot_curve(selection, validation=validation, ax=curve) is curve
    assert plot_layers(selection.maps, scores.maps, ax=layers) is layers
    assert plot_correlation(scores, scores.maps, ax=correlation) is correlation
    width = left.get_position().width
    above, below = plot_agreement(scores, selection, ax=left)
    assert above is left
    assert below.figure is left.figure
    # The two share the place that the one had, the residuals under the scatter.
    assert above.get_position().width == pytest.approx(below.get_position().width)
    assert above.get_position().width == pytest.approx(width, rel=0.01)
    assert below.get_position().y1 < above.get_position().y0
    assert not plt.get_fignums()
