"""Why a score is what it is: shares, places, words, and the page that shows them."""

from __future__ import annotations

import copy
import os
import re
from pathlib import Path

import pytest
import torch
import torchvision
from torch import Tensor

import fmiqa
from fmiqa import Explanation, FeatureExtractor, InputError, SelectedFeatureIQM, Viewing, fit_logistic
from fmiqa.explanation.page import _limit

MAPS = ["conv1:27", "conv2:5", "conv1:3", "conv2:77"]


def pair(height: int = 192, width: int = 256) -> tuple[Tensor, Tensor]:
    """A test image that is noisy in the left quarter alone."""
    generator = torch.Generator().manual_seed(0)
    reference = torch.nn.functional.interpolate(torch.rand(1, 3, height // 8, width // 8, generator=generator),
                                                scale_factor=8, mode="bilinear")[0]  # fmt: skip
    noise = 0.15 * torch.randn(3, height, width, generator=generator)
    noise[..., width // 4 :] = 0
    return (reference + noise).clamp(0, 1), reference


@pytest.fixture(scope="module")
def metric() -> SelectedFeatureIQM:
    torch.manual_seed(0)
    extractor = FeatureExtractor(torchvision.models.alexnet(), layers=["conv1", "conv2"], viewing=Viewing(factor=0.9))
    return SelectedFeatureIQM(extractor, MAPS, weights=torch.tensor([1.0, 2.0, 0.5, 1.5]), power=2.0)


@pytest.fixture(scope="module")
def explanation(metric: SelectedFeatureIQM) -> Explanation:
    return fmiqa.explain(*pair(), metric=metric, maps=3, names=("a <b>.png", "ref.png"))


def test_shares_are_the_terms_of_the_loss(metric: SelectedFeatureIQM, explanation: Explanation) -> None:
    test, reference = (image[None] for image in pair())
    assert explanation.quality == metric(test, reference).item()
    scores = metric.map_scores(test, reference)[0].double()
    lost = torch.tensor([1.0, 2.0, 0.5, 1.5], dtype=torch.float64) / 5 * (1 - scores**2)
    assert explanation.loss == pytest.approx(float(lost.sum()), abs=1e-12)
    shares = {str(m.map): m.share for m in explanation.maps}
    assert [shares[m] for m in MAPS] == pytest.approx((lost / lost.sum()).tolist(), abs=1e-12)
    assert [m.share for m in explanation.maps] == sorted(shares.values(), reverse=True)
    assert [m.score for m in explanation.maps] == [float(scores[MAPS.index(str(m.map))]) for m in explanation.maps]


def test_losses_lie_where_the_image_was_damaged(metric: SelectedFeatureIQM, explanation: Explanation) -> None:
    assert explanation.error.shape == (192, 256)
    assert explanation.errors.shape == (3, 192, 256)
    for error in (explanation.error, *explanation.errors):
        assert error[:, :64].mean() > 5 * error[:, 192:].mean()
    shown = [m.map for m in explanation.maps[:3]]
    test, reference = (image[None] for image in pair())
    assert torch.equal(explanation.errors, metric.error_maps(test, reference, shown)[0])


def test_results_are_on_the_cpu(metric: SelectedFeatureIQM, explanation: Explanation, device: torch.device) -> None:
    other = copy.deepcopy(metric).to(device)
    found = fmiqa.explain(*(image.to(device) for image in pair()), metric=other, maps=3)
    assert {x.device.type for x in (found.test, found.reference, found.error, found.errors)} == {"cpu"}
    assert [m.words for m in found.maps] == [m.words for m in explanation.maps]
    # Scores of other processors differ by rounding: 1e-5 of 1, over a loss of 0.05 and more.
    assert [m.share for m in found.maps] == pytest.approx([m.share for m in explanation.maps], abs=2e-4)
    assert found.loss > 0.05


def test_images_with_and_without_a_batch_and_in_8_bits(metric: SelectedFeatureIQM, explanation: Explanation) -> None:
    test, reference = pair()
    batched = fmiqa.explain(test[None], reference, metric=metric, maps=3)
    assert batched.maps == explanation.maps
    whole = [(image * 255).round().to(torch.uint8) for image in (test, reference)]
    assert fmiqa.explain(*whole, metric=metric).quality == pytest.approx(explanation.quality, abs=0.02)


def test_a_ready_made_metric_is_rated(explanation: Explanation) -> None:
    test, reference = pair()
    found = fmiqa.explain(test, reference)
    metric = fmiqa.load_metric("fast")
    assert found.rating is not None
    assert found.rating.words == metric.rate(test[None], reference[None]).words
    assert f"Rated {float(found.rating.score):.0f} of 100: {found.rating.words[0]}" in found.to_html()
    assert len(found.maps) == len(metric.maps)
    assert found.metric == metric.signature
    assert explanation.rating is None
    assert f"Quality {explanation.quality:.4f}" in explanation.to_html()


def test_nothing_is_lost_between_equal_images(metric: SelectedFeatureIQM) -> None:
    _, reference = pair()
    found = fmiqa.explain(reference, reference, metric=metric)
    assert found.loss == 0
    assert [m.share for m in found.maps] == [0] * 4
    assert "No map sees a difference" in found.to_html()
    assert _limit(found.error) == 0.01  # so that rounding has no colour


def test_a_fitted_metric_shares_what_the_score_lacks_before_the_fit() -> None:
    fit = fit_logistic(torch.linspace(0, 1, 30), torch.linspace(0, 1, 30) ** 2 * 7, form="logistic4")
    extractor = FeatureExtractor(torchvision.models.alexnet(), layers=["conv1"])
    plain, fitted = (SelectedFeatureIQM(extractor, ["conv1:1", "conv1:2"], fit=f) for f in (None, fit))
    one, other = (fmiqa.explain(*pair(), metric=m) for m in (plain, fitted))
    assert (one.loss, one.maps) == (other.loss, other.maps)
    assert other.quality == fitted(*(image[None] for image in pair())).item() != one.quality


def test_a_print_is_a_short_table(explanation: Explanation) -> None:
    lines = str(explanation).splitlines()
    assert lines[0] == f"quality {explanation.quality:.4f}"
    assert lines[2].split() == ["of", "the", "loss", "score", "map", "detects"]
    assert len(lines) == 3 + 3 + 1
    assert lines[-1].endswith("1 other")
    assert explanation.to_dict()["maps"][0] == {
        "map": str(explanation.maps[0].map),
        "score": explanation.maps[0].score,
        "share": explanation.maps[0].share,
        "words": explanation.maps[0].words,
        "selectivity": explanation.maps[0].selectivity,
    }


def test_the_page_is_written_whole_and_needs_nothing_else(explanation: Explanation, tmp_path: Path) -> None:
    explanation.write(tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text("utf-8")
    assert text == explanation.to_html()
    assert re.findall(r"(?:src|href|url)\s*[=(]\s*[\"']?(?!data:)(\w+:|//)", text) == []
    assert text.count("a &lt;b&gt;.png") >= 3
    assert "<b>.png" not in text
    assert all(m.map.layer in text for m in explanation.maps[:3])
    assert "1 other map takes" in text
    assert "<iframe srcdoc=" in explanation._repr_html_()
    if os.geteuid():
        return
    with pytest.raises(OSError, match=r"page\.html"):
        explanation.write(tmp_path / "page.html" / "page.html")


def test_a_large_noisy_pair_makes_a_page_below_3_megabytes() -> None:
    generator = torch.Generator().manual_seed(0)
    _, reference = pair(704, 1000)
    test = (reference + 0.1 * torch.randn(reference.shape, generator=generator)).clamp(0, 1)
    assert len(fmiqa.explain(test, reference).to_html()) < 3e6


def test_bad_input_is_named(metric: SelectedFeatureIQM) -> None:
    test, reference = pair()
    with pytest.raises(InputError, match=r"the test image is one RGB image, .* got \(2, 3, 192, 256\)"):
        fmiqa.explain(test.expand(2, 3, 192, 256), reference, metric=metric)
    with pytest.raises(InputError, match=r"reference .* must be a torch.Tensor, got str"):
        fmiqa.explain(test, "a.png", metric=metric)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="one size"):
        fmiqa.explain(test, reference[:, :-1], metric=metric)
    with pytest.raises(InputError, match="a whole number from 1, got 0"):
        fmiqa.explain(test, reference, metric=metric, maps=0)
    with pytest.raises(InputError, match="no ready-made metric 'slow'"):
        fmiqa.explain(test, reference, metric="slow")
    with pytest.raises(InputError, match="SelectedFeatureIQM or a name, got int"):
        fmiqa.explain(test, reference, metric=3)  # type: ignore[arg-type]
    psnr = SelectedFeatureIQM(FeatureExtractor(torchvision.models.alexnet(), layers=["conv1"]), ["conv1:1"],
                              measure="psnr")  # fmt: skip
    with pytest.raises(InputError, match="psnr gives a map one value"):
        fmiqa.explain(test, reference, metric=psnr)
