"""Only what a window can touch is run, with the same result as whole images."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fmiqa import FeatureExtractor, InputError, MapIndex, Viewing
from fmiqa.visualize.replay import Replay

# Means over maps of hundreds of positions, summed in another order, of activations up to some tens.
CLOSE = {"rtol": 0, "atol": 2e-5}


def windows(height: int, width: int, device: str) -> tuple[Tensor, Tensor, Tensor]:
    """Windows in the corners, at borders and inside: three samples each."""
    generator = torch.Generator().manual_seed(0)
    tops = torch.tensor([0, 0, height - 10, height - 10, 33, 17, 40])
    lefts = torch.tensor([0, width - 10, 0, width - 10, 29, 0, 21])
    patches = torch.rand(len(tops), 3, 3, 10, 10, generator=generator)
    return patches.to(device), tops.to(device), lefts.to(device)


@pytest.mark.parametrize("stage", ["relu", "conv"])
@pytest.mark.parametrize("network", ["alexnet", "vgg11", "squeezenet1_1"])  # ceil-mode poolings and joined branches
@pytest.mark.filterwarnings("ignore:.*random weights")
def test_local_runs_equal_whole_images(network: str, stage: str, device: str) -> None:
    extractor = FeatureExtractor(network, weights=None, stage=stage).to(device)  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(1)
    maps = MapIndex([extractor.maps[i] for i in torch.randperm(len(extractor.maps), generator=generator)[:40].tolist()])
    image = torch.rand(3, 83, 97, generator=generator).to(device)
    changed = windows(83, 97, device)
    local = Replay(extractor, image, maps).mean_change(*changed)
    whole = Replay(extractor, image, maps, local=False).mean_change(*changed)
    assert whole.abs().max() > 1e-3
    torch.testing.assert_close(local, whole, **CLOSE)


def test_dilated_strided_grouped_and_lopsided_windows() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, (5, 3), stride=(3, 1), padding=(2, 0), dilation=(1, 2)),
        nn.BatchNorm2d(8),
        nn.ReLU(inplace=True),
        nn.AvgPool2d(3, stride=2, padding=1),
        nn.Conv2d(8, 12, 3, padding=2, dilation=2, groups=4),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, stride=2, ceil_mode=True),
        nn.Conv2d(12, 6, 1, stride=2),
        nn.ReLU(),
    )
    extractor = FeatureExtractor(network)
    image, changed = torch.rand(3, 71, 64), windows(71, 64, "cpu")
    local = Replay(extractor, image, extractor.maps, local=True).mean_change(*changed)
    whole = Replay(extractor, image, extractor.maps, local=False).mean_change(*changed)
    torch.testing.assert_close(local, whole, **CLOSE)


class Branches(nn.Module):
    """Convolutions, poolings, pointwise functions and joined branches, and one map that looks at one patch."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.one, self.other = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 3, padding=1)
        self.average, self.maximum = nn.AvgPool2d(2), nn.MaxPool2d(3, stride=1)
        self.eye = nn.Conv2d(16, 1, (22, 26))
        with torch.no_grad():
            kept = self.eye.weight[:, :, 9:12, 11:14].clone()
            self.eye.weight.zero_()[:, :, 9:12, 11:14] = kept

    def forward(self, x: Tensor) -> Tensor:
        x = torch.sigmoid(self.norm(self.stem(x)))
        x = torch.cat([torch.relu(self.one(x)), nn.functional.silu(self.other(x))], 1)
        out: Tensor = self.eye(self.maximum(self.average(x)))
        return out


@pytest.mark.parametrize("stage", ["relu", "conv"])
def test_a_window_beyond_the_reach_changes_nothing_at_all(stage: str, device: str) -> None:
    torch.manual_seed(0)
    extractor = FeatureExtractor(Branches(), weights=None, stage=stage).to(device)  # type: ignore[arg-type]
    replay = Replay(extractor, torch.rand(3, 48, 56, device=device), MapIndex(["eye:0"]), local=True)
    # Rows 9 to 11 of maxima over 3 of averages over 2: pixels 18 to 27, and 2 more each way for two convolutions.
    tops, lefts = (v.flatten().to(device) for v in torch.meshgrid(torch.arange(43), torch.arange(51), indexing="ij"))
    patches = torch.rand(len(tops), 3, 3, 6, 6, device=device)
    change = replay.mean_change(patches, tops, lefts)[:, 0]
    reached = (tops + 5 >= 18 - 2) & (tops <= 27 + 2) & (lefts + 5 >= 22 - 2) & (lefts <= 31 + 2)
    assert (change[~reached] == 0).all()  # products of 0 throughout, whatever the order of the sums
    if stage == "conv":
        assert (change[reached] != 0).float().mean() > 0.95  # at the rim, a maximum may pass a change over


class Centred(nn.Module):
    """Each position depends on all of the map."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        out: Tensor = self.second(x - x.mean((2, 3), keepdim=True))
        return out


def test_networks_that_are_not_local_run_whole_images() -> None:
    extractor = FeatureExtractor(Centred(), weights=None)
    image, deep = torch.rand(3, 40, 40), MapIndex([extractor.maps[-1]])
    assert not Replay(extractor, image, deep).local
    with pytest.raises(InputError, match="not known to be local"):
        Replay(extractor, image, deep, local=True)


@pytest.mark.filterwarnings("ignore:.*random weights")
def test_viewing_conditions_are_refused() -> None:
    extractor = FeatureExtractor("alexnet", weights=None, viewing=Viewing(factor=0.5))
    with pytest.raises(InputError, match="viewing"):
        Replay(extractor, torch.rand(3, 90, 90), MapIndex(["conv1:0"]))


class Standardised(nn.Conv2d):
    """A convolution with a forward of its own."""

    def forward(self, input: Tensor) -> Tensor:
        return self._conv_forward(input, self.weight - self.weight.mean((1, 2, 3), keepdim=True), self.bias)


@pytest.mark.parametrize("module", [Standardised(3, 4, 3), nn.BatchNorm2d(3, track_running_stats=False)])
def test_modules_that_compute_something_else_run_whole_images(module: nn.Module) -> None:
    extractor = FeatureExtractor(nn.Sequential(module, nn.Conv2d(4 if isinstance(module, nn.Conv2d) else 3, 4, 3)))
    image, changed = torch.rand(3, 60, 61), windows(60, 61, "cpu")
    replay = Replay(extractor, image, extractor.maps)
    assert not replay.local
    whole = Replay(extractor, image, extractor.maps, local=False).mean_change(*changed)
    torch.testing.assert_close(replay.mean_change(*changed), whole, rtol=0, atol=0)
