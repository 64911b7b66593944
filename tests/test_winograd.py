"""Convolutions by Winograd's algorithm against PyTorch's own, in float64 where it counts."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fmiqa import features, winograd
from fmiqa.features import FeatureExtractor
from fmiqa.fusing import fusing
from fmiqa.precision import strict_float32

CHANNELS = 128


def convolution(padding: int = 1, *, bias: bool = True, filters: int = CHANNELS) -> nn.Conv2d:
    torch.manual_seed(0)
    return nn.Conv2d(CHANNELS, filters, 3, padding=padding, bias=bias).requires_grad_(False)


def maps(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1)).relu()


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("height", "width"), [(24, 32), (23, 31), (24, 31), (61, 40), (64, 515)])
@pytest.mark.parametrize(("padding", "bias"), [(1, True), (0, True), (1, False)])
def test_rounded_no_more_than_the_direct_convolution(
    height: int, width: int, padding: int, bias: bool, memory_format: torch.memory_format
) -> None:
    module = convolution(padding, bias=bias, filters=130)
    x = maps(2, CHANNELS, height, width).contiguous(memory_format=memory_format)
    assert winograd.suits_winograd(module, x)
    exact = torch.nn.functional.conv2d(
        x.double(), module.weight.double(), None if module.bias is None else module.bias.double(), padding=padding
    )
    found = winograd.convolve_winograd(module, x)
    assert found.shape == exact.shape
    assert found.is_contiguous(memory_format=torch.channels_last)
    with strict_float32("cpu"):
        direct = (module(x) - exact).abs().max()
    # The direct one sums 9 x 128 products, this one 128 and some of theirs; twice is room for other CPUs' orders.
    assert (found - exact).abs().max() <= 2 * direct


@pytest.mark.parametrize(
    "module",
    [
        nn.Conv2d(CHANNELS, CHANNELS, 5, padding=2),
        nn.Conv2d(CHANNELS, CHANNELS, 3, padding=2),
        nn.Conv2d(CHANNELS, CHANNELS, 3, padding="same"),
        nn.Conv2d(CHANNELS, CHANNELS, 3, stride=2),
        nn.Conv2d(CHANNELS, CHANNELS, 3, dilation=2),
        nn.Conv2d(CHANNELS, CHANNELS, 3, groups=2),
        nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(CHANNELS, 64, 3),
        nn.ConvTranspose2d(CHANNELS, CHANNELS, 3),
        nn.Conv2d(CHANNELS, CHANNELS, 3).double(),
    ],
    ids=str,
)
def test_leaves_other_modules_alone(module: nn.Module) -> None:
    assert not winograd.suits_winograd(module.requires_grad_(False), maps(1, CHANNELS, 32, 32))


def test_leaves_other_inputs_alone() -> None:
    module, x = convolution(), maps(1, CHANNELS, 32, 32)
    assert winograd.suits_winograd(module, x)
    assert not winograd.suits_winograd(module, x[0])
    assert not winograd.suits_winograd(module, x[..., :7, :7])  # too few tiles
    assert not winograd.suits_winograd(module, x.double())
    assert not winograd.suits_winograd(module, x.to("meta"))
    assert not winograd.suits_winograd(module, x.clone().requires_grad_())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not winograd.suits_winograd(module, x)
    handle = module.register_forward_hook(lambda *_: None)
    assert not winograd.suits_winograd(module, x)  # or the hook would not be called
    handle.remove()
    module.requires_grad_(True)
    assert not winograd.suits_winograd(module, x)
    with torch.no_grad():
        assert winograd.suits_winograd(module, x)


def test_follows_the_weights() -> None:
    module, x = convolution(), maps(1, CHANNELS, 32, 32)
    before = winograd.convolve_winograd(module, x)
    module.weight.mul_(2)
    assert module.bias is not None
    torch.testing.assert_close(winograd.convolve_winograd(module, x), 2 * before - module.bias[:, None, None])
    other = convolution()  # the weights that the first one had
    torch.testing.assert_close(winograd.convolve_winograd(other, x), before, rtol=0, atol=0)


def test_transforms_go_with_their_weights() -> None:
    kept = len(winograd._transformed)
    module = convolution()
    winograd.convolve_winograd(module, maps(1, CHANNELS, 32, 32))
    assert len(winograd._transformed) == kept + 1
    del module
    assert len(winograd._transformed) == kept


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.filterwarnings("ignore:alexnet has random weights", "ignore:torch.compile does not work")
def test_maps_of_a_network(compiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    extractor = FeatureExtractor("alexnet", weights=None)
    images = torch.rand(2, 3, 260, 300, generator=torch.Generator().manual_seed(0))
    used = []
    convolve = winograd.convolve_winograd
    monkeypatch.setattr(features, "convolve_winograd", lambda module, x: used.append(module) or convolve(module, x))
    with torch.inference_mode(), fusing(compiled):
        found = extractor(images)
    assert len(used) == 3  # conv3 to conv5
    exact = extractor.double()(images.double())
    for layer, expected in exact.items():
        # float32's own rounding through five layers
        assert (found[layer] - expected).abs().max() <= 1e-5 * expected.abs().max()
