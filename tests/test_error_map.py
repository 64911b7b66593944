"""Error maps: where a test image is judged worse."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate1d
from torch import Tensor, nn

from fmiqa import SSIM, FeatureExtractor, InputError, SelectedFeatureIQM, Viewing
from fmiqa.scoring.scorer import MapScorer

MAPS = ["3:5", "0:1", "3:0", "0:3"]


def network(normalized: bool = False) -> nn.Sequential:
    torch.manual_seed(0)
    between = nn.InstanceNorm2d(4) if normalized else nn.MaxPool2d(2)
    return nn.Sequential(nn.Conv2d(3, 4, 5, stride=2, padding=2), nn.ReLU(), between, nn.Conv2d(4, 6, 3), nn.ReLU())


def pair(count: int = 2, height: int = 72, width: int = 90) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    reference = torch.rand(count, 3, height, width, generator=generator)
    return (reference + 0.1 * torch.randn(reference.shape, generator=generator)).clamp(0, 1), reference


@pytest.mark.parametrize("measure", ["ssim", "gms", *(SSIM(window=5, data_range=r) for r in ("pair", "layer"))])
@pytest.mark.parametrize("viewing", [Viewing(), Viewing(factor=0.7)])
def test_equal_images_have_no_errors(measure: Any, viewing: Viewing) -> None:
    iqm = SelectedFeatureIQM(FeatureExtractor(network(), viewing=viewing), MAPS, measure=measure)
    test, reference = pair()
    for given in (test, test[:1].expand_as(test)):
        found = iqm.error_map(given, given)
        assert found.shape == (2, 1, 72, 90)
        assert found.max() <= 1e-6
    assert (iqm.error_map(test, reference) >= 0).all()
    assert iqm.error_map(test, reference[:1]).amax((1, 2, 3)).min() > 0.01


def test_errors_are_largest_where_a_patch_was_damaged() -> None:
    iqm = SelectedFeatureIQM(FeatureExtractor(network()), MAPS, measure=SSIM(window=3))
    _, reference = pair(1, 120, 160)
    for top, left in ((10, 12), (60, 90), (45, 40)):
        test = reference.clone()
        test[:, :, top : top + 20, left : left + 20] = 0.5
        found = iqm.error_map(test, reference)[0, 0]
        row, column = divmod(int(found.argmax()), 160)
        assert top <= row < top + 20
        assert left <= column < left + 20
        found[max(0, top - 16) : top + 36, max(0, left - 16) : left + 36] = 0  # beyond the reach of its windows
        assert found.max() <= 1e-6


@pytest.mark.parametrize("measure", ["ssim", "gms", SSIM(window=5, data_range="layer")])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_losses_of_layers_add_up_to_what_the_score_lacks(measure: Any, weighted: bool) -> None:
    """The closed form, before maps are enlarged: mean over windows, weighted mean over maps."""
    extractor = FeatureExtractor(network().double())
    weights = torch.tensor([0.5, 2.0, 1.0, 0.0], dtype=torch.float64) if weighted else None
    iqm = SelectedFeatureIQM(extractor, MAPS, measure=measure, weights=weights)
    test, reference = (side.double() for side in pair())
    shares = torch.full((4,), 0.25) if weights is None else weights / weights.sum()
    losses = MapScorer(extractor, MAPS, measure=measure).local_losses(test, reference, shares)
    assert {layer: loss.ndim for layer, loss in losses.items()} == {"0": 3, "3": 3}
    total = sum(loss.mean((-2, -1)) for loss in losses.values())
    torch.testing.assert_close(total, 1 - iqm(test, reference), rtol=0, atol=1e-9)


def test_the_mean_of_the_enlarged_map_is_near() -> None:
    iqm = SelectedFeatureIQM(FeatureExtractor(network()), MAPS, measure=SSIM(window=5))
    test, reference = pair()
    loss, found = 1 - iqm(test, reference), iqm.error_map(test, reference).mean((1, 2, 3))
    torch.testing.assert_close(found, loss, rtol=0.1, atol=0)  # borders count more


def test_against_an_independent_implementation() -> None:
    """One convolution in NumPy, SSIM by SciPy's filters, and np.interp between the centres of windows."""
    conv = nn.Conv2d(3, 2, 4, stride=4, bias=False, dtype=torch.float64)
    torch.manual_seed(3)
    nn.init.uniform_(conv.weight)
    extractor = FeatureExtractor(nn.Sequential(conv, nn.ReLU()))
    weights = torch.tensor([1.0, 3.0])
    iqm = SelectedFeatureIQM(extractor, ["0:0", "0:1"], measure=SSIM(window=3), weights=weights)
    test, reference = (side.double() for side in pair(1, 40, 52))
    mean, std = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)

    def maps(image: Tensor) -> np.ndarray:
        seen = (image[0].numpy() - mean[:, None, None]) / std[:, None, None]
        blocks = seen.reshape(3, 10, 4, 13, 4)
        return np.maximum(np.einsum("ciajb,ocab->oij", blocks, conv.weight.detach().numpy()), 0)

    taps = np.exp(-np.array([1.0, 0.0, 1.0]) / (2 * 1.5**2))
    taps /= taps.sum()

    def blurred(values: np.ndarray) -> np.ndarray:
        return correlate1d(correlate1d(values, taps, axis=0), taps, axis=1)[1:-1, 1:-1]

    expected = np.zeros((40, 52))
    for x, y, weight in zip(maps(test), maps(reference), (0.25, 0.75), strict=True):
        mx, my = blurred(x), blurred(y)
        vx, vy, cov = blurred(x * x) - mx * mx, blurred(y * y) - my * my, blurred(x * y) - mx * my
        c1, c2 = 0.01**2, 0.03**2
        local = (2 * mx * my + c1) * (2 * cov + c2) / ((mx * mx + my * my + c1) * (vx + vy + c2))
        rows, columns = (4 * (1 + np.arange(n)) + 1.5 for n in local.shape)  # the middle of the middle block
        across = np.stack([np.interp(np.arange(52), columns, row) for row in 1 - local])
        expected += weight * np.stack([np.interp(np.arange(40), rows, column) for column in across.T], 1)
    found = iqm.error_map(test, reference)[0, 0]
    torch.testing.assert_close(found, torch.from_numpy(expected), rtol=0, atol=1e-9)


def test_sources_add_up_by_the_shares_of_their_maps() -> None:
    whole, half = (FeatureExtractor(network(), viewing=viewing) for viewing in (Viewing(), Viewing(factor=0.5)))
    measures: dict[str, Any] = {"whole": SSIM(window=3), "half": "gms"}
    names = ["half/3:1", "whole/0:2", "half/0:0", "whole/3:4", "half/3:5"]
    weights = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])
    iqm = SelectedFeatureIQM({"whole": whole, "half": half}, names, measure=measures, weights=weights)
    test, reference = pair(1)
    expected = torch.zeros(1, 1, 72, 90)
    for name, weight in zip(names, weights, strict=True):
        source, _, own = name.partition("/")
        alone = SelectedFeatureIQM({"whole": whole, "half": half}[source], [own], measure=measures[source])
        expected += weight / weights.sum() * alone.error_map(test, reference)
    torch.testing.assert_close(iqm.error_map(test, reference), expected, rtol=0, atol=1e-6)


def test_layers_weigh_the_same_in_a_geometric_mean() -> None:
    extractor = FeatureExtractor(network())
    test, reference = pair(1)
    iqm = SelectedFeatureIQM(extractor, ["0:0", "0:1", "0:2", "3:0"], pool="layer_geometric")
    first, last = (SelectedFeatureIQM(extractor, maps) for maps in (["0:0", "0:1", "0:2"], ["3:0"]))
    expected = (first.error_map(test, reference) + last.error_map(test, reference)) / 2
    torch.testing.assert_close(iqm.error_map(test, reference), expected, rtol=0, atol=1e-6)


def test_a_network_that_is_not_local_has_its_maps_laid_on_the_image() -> None:
    extractor = FeatureExtractor(network(normalized=True))
    iqm = SelectedFeatureIQM(extractor, ["3:2"], measure=SSIM(window=3))
    _, reference = pair(1, 120, 160)
    test = reference.clone()
    test[:, :, 60:84, 100:124] = 0.5
    row, column = divmod(int(iqm.error_map(test, reference).argmax()), 160)
    assert 52 <= row < 92  # half of what a position sees beyond, whose place is not known
    assert 92 <= column < 132


def test_error_maps_are_differentiable_and_wide() -> None:
    iqm = SelectedFeatureIQM(FeatureExtractor(network()), MAPS)
    test, reference = pair(1)
    test.requires_grad_()
    iqm.error_map(test, reference).sum().backward()
    assert test.grad is not None
    assert test.grad.isfinite().all()
    assert test.grad.abs().max() > 0
    assert iqm.bfloat16().error_map(test, reference).dtype == torch.float32
    assert iqm.double().error_map(test, reference).dtype == torch.float64
    bytes_ = (test.detach() * 255).byte()
    assert iqm.error_map(bytes_, bytes_).max() <= 1e-6


def test_what_has_no_error_map_is_refused() -> None:
    extractor = FeatureExtractor(network())
    test, reference = pair()
    for measure in ("psnr", "mse", "gmsd", "ms-ssim"):
        with pytest.raises(InputError, match=rf"measure {measure} .*'ssim' or 'gms'"):
            SelectedFeatureIQM(extractor, MAPS, measure=measure).error_map(test, reference)
    iqm = SelectedFeatureIQM(extractor, MAPS)
    with pytest.raises(InputError, match="must have one size"):
        iqm.error_map(test, reference[..., :80])
    with pytest.raises(InputError, match=r"reference images .* must be a torch\.Tensor, got list"):
        iqm.error_map(test, iqm.prepare(reference))  # type: ignore[arg-type]


@pytest.mark.parametrize("measure", ["ssim", "gms", SSIM(window=5, data_range="layer")])
def test_the_maps_of_single_maps_average_to_the_error_map(measure: Any) -> None:
    extractor = FeatureExtractor(network().double(), viewing=Viewing(factor=0.8))
    weights = torch.tensor([0.5, 2.0, 1.0, 0.25], dtype=torch.float64)
    iqm = SelectedFeatureIQM(
        {"one": extractor, "two": extractor}, ["two/3:5", "one/0:1", "one/3:0", "two/0:3"], measure=measure,
        weights=weights,
    )  # fmt: skip
    test, reference = (side.double() for side in pair())
    found = iqm.error_maps(test, reference)
    assert found.shape == (2, 4, 72, 90)
    average = torch.einsum("nkhw,k->nhw", found, weights / weights.sum())[:, None]
    torch.testing.assert_close(average, iqm.error_map(test, reference))
    assert torch.equal(iqm.error_maps(test, reference, ["one/3:0", "two/3:5"]), found[:, [2, 0]])
    with pytest.raises(InputError, match="one/3:1"):
        iqm.error_maps(test, reference, ["one/3:1"])


def test_the_maps_of_single_maps_need_local_values() -> None:
    with pytest.raises(InputError, match="psnr gives a map one value"):
        SelectedFeatureIQM(FeatureExtractor(network()), MAPS, measure="psnr").error_maps(*pair())
