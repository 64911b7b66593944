from __future__ import annotations

import json
import math

import pytest
import torch

from fmiqa import fit_logistic, krocc, plcc, rmse, srocc
from fmiqa.correlation.bootstrap import bootstrap
from fmiqa.correlation.krasula import pair_analysis
from fmiqa.correlation.significance import holm, meng_test, residual_f_test, williams_test, zou_interval
from fmiqa.errors import InputError
from fmiqa.evaluation.compare import compare
from fmiqa.evaluation.comparison import Comparison, Estimate

GROUPS = [f"I{i // 8:02d}" for i in range(96)]


def problem(images: int = 96) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    noise = torch.randn(4, images, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    quality = noise[0]
    scores = {
        "good": torch.tanh(quality) + 0.3 * noise[1],
        "twin": torch.tanh(quality) + 0.3 * noise[2],
        "poor": quality + 2.5 * noise[3],
    }
    return scores, quality


@pytest.fixture(scope="module")
def result() -> Comparison:
    return compare(*problem(), GROUPS, resamples=60, target_stds=torch.full((96,), 0.6), ratings=9)


def test_agreements_are_the_coefficients_with_bootstrap_intervals(result: Comparison) -> None:
    scores, quality = problem()
    for statistic, function in (("plcc", plcc), ("srocc", srocc), ("krocc", krocc), ("rmse", rmse)):
        for name, values in scores.items():
            found = bootstrap(values, quality, GROUPS, statistic=statistic, resamples=60)
            estimate = getattr(result[name], statistic)
            expected = [function(values, quality).item(), *(end.item() for end in found.interval())]
            # The same computations in batches of another size: the fit's tolerance.
            assert list(estimate) == pytest.approx(expected, abs=1e-6)


def test_differences_are_the_tests_of_fitted_scores(result: Comparison) -> None:
    scores, quality = problem()
    pairs = [("good", "twin"), ("good", "poor"), ("twin", "poor")]
    assert [(d.first, d.second) for d in result.differences] == pairs
    fitted = {name: fit_logistic(values, quality).predict(values) for name, values in scores.items()}
    p_values: dict[str, list[float]] = {"williams": [], "meng": [], "f": [], "bootstrap": []}
    for d in result.differences:
        a, b = fitted[d.first], fitted[d.second]
        r = plcc(a, quality, fit=None), plcc(b, quality, fit=None), plcc(a, b, fit=None)
        both = torch.stack((scores[d.first], scores[d.second]))
        paired = bootstrap(both, quality, GROUPS, resamples=60).difference(0, 1)
        tests = {
            "williams": williams_test(*r, 96),
            "meng": meng_test(*r, 96),
            "f": residual_f_test(quality - a, quality - b),
        }
        for name, test in tests.items():
            found = getattr(d, name)
            assert found.statistic == pytest.approx(test.statistic.item(), rel=1e-5)
            assert found.p_value == pytest.approx(test.p_value.item(), rel=1e-4)
            p_values[name].append(found.p_value)
        assert d.bootstrap.p_value == pytest.approx(paired.p_value().item(), rel=1e-4)
        p_values["bootstrap"].append(d.bootstrap.p_value)
        ends = [end.item() for end in paired.interval(method="t")]
        assert list(d.plcc) == pytest.approx([paired.estimate.item(), *ends], abs=1e-6)
        assert list(d.zou)[1:] == pytest.approx([end.item() for end in zou_interval(*r, 96)], abs=1e-6)
    for name, values in p_values.items():
        corrected = [getattr(d, name).corrected for d in result.differences]
        assert corrected == pytest.approx(holm(torch.tensor(values, dtype=torch.float64)).tolist(), rel=1e-9)


def test_verdicts_follow_the_corrected_bootstrap(result: Comparison) -> None:
    for d in result.differences:
        assert d.real == (d.bootstrap.corrected < 0.05)
    verdicts = [d.verdict for d in result.differences]
    assert verdicts == ["no difference shown", "better: good", "better: twin"]


def test_groups_decide_and_not_images() -> None:
    """All images of a reference repeat one image: 24 images that look like 480, and only the bootstrap notices."""
    quality, first, second = torch.randn(3, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(7))
    repeated = [v.repeat_interleave(20) for v in (quality, quality + 0.8 * first, quality + 1.1 * second)]
    groups = torch.arange(24).repeat_interleave(20)
    scores = {"one": repeated[1], "other": repeated[2]}
    (d,) = compare(scores, repeated[0], groups, fit=None, resamples=200).differences
    assert d.williams.corrected < 0.001
    assert d.bootstrap.corrected > 0.05
    assert not d.real
    (d,) = compare(scores, repeated[0], fit=None, resamples=200).differences
    assert d.real  # without groups it has to believe in 480 images


def test_krasula_figures(result: Comparison) -> None:
    scores, quality = problem()
    expected = pair_analysis(torch.stack(list(scores.values())), quality, torch.full((96,), 0.2))
    for i, agreement in enumerate(result.agreements):
        assert agreement.auc_different == pytest.approx(expected.auc_different[i].item(), rel=1e-12)
        assert agreement.auc_better == pytest.approx(expected.auc_better[i].item(), rel=1e-12)
        assert agreement.correct == pytest.approx(expected.correct[i].item(), rel=1e-12)


def test_baseline_is_compared_with_each_other_metric() -> None:
    scores, quality = problem()
    found = compare(scores, quality, GROUPS, baseline="twin", fit=None, resamples=40)
    assert [(d.first, d.second) for d in found.differences] == [("good", "twin"), ("poor", "twin")]
    assert found.differences[1].plcc.value < 0
    assert found.differences[1].verdict == "better: twin"


def test_equal_metrics_are_not_told_apart() -> None:
    scores, quality = problem()
    (d,) = compare({"a": scores["good"], "b": 3 * scores["good"]}, quality, GROUPS, resamples=30).differences
    assert d.verdict == "no difference shown"
    assert d.bootstrap.p_value > 0.5


def test_one_metric_has_no_differences() -> None:
    scores, quality = problem()
    found = compare({"good": scores["good"]}, quality, resamples=20)
    assert found.differences == ()
    assert found.options["groups"] is None
    assert "96 images; logistic5 fit; 95 % intervals from 20 resamples of images." in str(found)
    assert "verdict" not in str(found)


def test_same_seed_same_bits(device: torch.device) -> None:
    scores, quality = problem()
    scores = {name: values.float().to(device) for name, values in scores.items()}
    one, again, other = (
        compare(scores, quality.float().to(device), GROUPS, resamples=20, seed=seed) for seed in (0, 0, 1)
    )
    assert one == again
    assert one != other


def test_text_and_markdown_hold_the_figures(result: Comparison) -> None:
    text = str(result)
    lines = text.split("\n")
    assert lines[0].split()[:5] == ["metric", "PLCC", "SROCC", "KROCC", "RMSE"]
    plain = result["good"].plcc
    assert f"{plain.value:.3f} [{plain.low:.3f}, {plain.high:.3f}]" in lines[1]
    starts = {line.index("[") for line in lines[1:4]}
    assert len(starts) == 1
    for line in (*lines[:4], *lines[5:9]):
        assert all(cell in result.to_markdown() for cell in line.split("  ") if cell.strip())
    assert "better: twin" in text
    assert "Holm-corrected for 3 comparisons" in text
    assert "bootstrap over groups decides" in text


def test_html_escapes_names() -> None:
    scores, quality = problem()
    found = compare({"<script>": scores["good"], "b": scores["poor"]}, quality, GROUPS, resamples=10, fit=None)
    assert "<script>" not in found._repr_html_()
    assert "&lt;script&gt;" in found._repr_html_()


def test_dictionary_is_json(result: Comparison) -> None:
    content = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert content["agreements"][0]["name"] == "good"
    assert content["agreements"][0]["plcc"] == list(result["good"].plcc)
    assert content["differences"][1]["williams"]["p_value"] == result.differences[1].williams.p_value
    assert content["differences"][1]["verdict"] == "better: good"
    assert content["options"]["groups"] == 12
    assert content["options"]["fit"] == "logistic5"
    unknown = Comparison((result["good"].__class__("x", *[Estimate(1.0, math.nan, 2.0)] * 4),), ())
    assert unknown.to_dict()["agreements"][0]["plcc"] == [1.0, None, 2.0]


def test_notes_warn_of_falling_scores_and_few_groups() -> None:
    scores, quality = problem()
    few = [i // 48 for i in range(96)]
    notes = compare({"distance": -scores["good"]}, quality, few, resamples=20).notes
    assert any("distance fall with quality" in note for note in notes)
    assert any("Only 2 groups" in note for note in notes)


def test_unknown_metric_is_named(result: Comparison) -> None:
    with pytest.raises(InputError, match=r"'best'.*'good'"):
        result["best"]


def test_wrong_input_is_refused_by_name() -> None:
    scores, quality = problem()
    broken = scores["poor"].clone()
    broken[3:5] = torch.nan
    for given, message in (
        ({**scores, "poor": broken}, "'poor' hold 2 NaN"),
        ({**scores, "poor": broken[:90]}, r"'poor' must be a tensor of shape \(96,\).*\(90,\)"),
        ({**scores, "flat": torch.ones(96)}, "'flat' are all 1"),
        ({**scores, "list": [1.0] * 96}, "'list' must be a tensor.*list"),
        ({}, "at least one metric"),
        ([scores["good"]], "mapping"),
    ):
        with pytest.raises(InputError, match=message):
            compare(given, quality)  # type: ignore[arg-type]
    bad = quality.clone()
    bad[0] = torch.inf
    for arguments, message in (
        ((scores, bad), "targets hold 1 NaN or infinite"),
        ((scores, torch.zeros(96)), "targets are all 0"),
        ((scores, quality.unsqueeze(0)), "targets must be"),
        ((scores, quality, GROUPS[1:]), "96 images, got 95"),
    ):
        with pytest.raises(InputError, match=message):
            compare(*arguments)
    deviations = torch.ones(96)
    for options, message in (
        ({"baseline": "best"}, r"'best' is no metric.*'good'"),
        ({"level": 95}, "level"),
        ({"target_stds": deviations}, "belong together"),
        ({"ratings": 5}, "belong together"),
        ({"target_stds": deviations, "ratings": 0}, "at least 1"),
        ({"target_stds": deviations[1:], "ratings": 5}, r"\(95,\)"),
    ):
        with pytest.raises(InputError, match=message):
            compare(scores, quality, resamples=2, fit=None, **options)


def test_a_comparison_is_drawn_with_intervals_and_verdicts(result: Comparison) -> None:
    upper, lower = result.plot().axes
    assert [label.get_text() for label in upper.get_yticklabels()] == [a.name for a in result.agreements]
    for row, agreement in enumerate(result.agreements):
        interval, value = upper.lines[2 * row : 2 * row + 2]
        assert list(interval.get_xdata()) == list(agreement.plcc[1:])
        assert list(value.get_xdata()) == [agreement.plcc.value]
    assert [text.get_text() for text in lower.texts] == [d.verdict for d in result.differences]
    ranks = result.plot(figure="srocc").axes[1]
    assert list(ranks.lines[1].get_xdata()) == [result.differences[0].srocc.value]
    assert not ranks.texts  # PLCC decides
    with pytest.raises(InputError, match="figure is 'plcc' or 'srocc', got 'krocc'"):
        result.plot(figure="krocc")  # type: ignore[arg-type]


def test_one_metric_has_no_panel_of_differences() -> None:
    quality = torch.linspace(0, 1, 40)
    found = compare({"only": quality.square()}, quality, resamples=20)
    assert len(found.plot().axes) == 1
