"""What feature maps cost, against closed forms and against convolutions counted by hooks on torchvision's networks."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Mapping
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

from fmiqa import Costs, FeatureExtractor, InputError, MapIndex, ScoreMatrix, Viewing, layer_costs

CHAIN = {"a": 2.0, "b": 5.0, "c": 3.0}
BRANCHED = Costs(CHAIN, {"stem": ["a"], "left": ["a", "b"], "right": ["a", "c"]})


def counted(network: nn.Module, size: tuple[int, int]) -> dict[str, int]:
    """The multiplications of each convolution, by its path, as a run of the whole network calls it."""
    found: dict[str, int] = {}

    def hook(path: str) -> Any:
        def count(conv: nn.Conv2d, _: tuple[Tensor, ...], output: Tensor) -> None:
            taps = conv.kernel_size[0] * conv.kernel_size[1] * conv.in_channels // conv.groups
            found[path] = output.numel() * taps

        return count

    for path, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(hook(path))
    with torch.no_grad():
        network.eval()(torch.rand(1, 3, *size))
    return found


def scores(options: Mapping[str, Any], *layers: str) -> ScoreMatrix:
    maps = MapIndex.of_layers(dict.fromkeys(layers, 2))
    names = [str(i) for i in range(6)]
    return ScoreMatrix(torch.rand(6, len(maps)), maps, torch.arange(6.0), names, names, options=dict(options))


def test_alexnet_at_224_is_the_closed_form() -> None:
    # (outputs, filters, channels, taps) of torchvision's AlexNet
    shapes = [(55, 64, 3, 11), (27, 192, 64, 5), (13, 384, 192, 3), (13, 256, 384, 3), (13, 256, 256, 3)]
    own = [side**2 * filters * channels * taps**2 for side, filters, channels, taps in shapes]
    assert list(layer_costs("alexnet", (224, 224)).values()) == [sum(own[: k + 1]) for k in range(5)]


@pytest.mark.parametrize("size", [(384, 512), (97, 130)])
def test_a_chain_costs_what_hooks_count(size: tuple[int, int]) -> None:
    by_hook = list(counted(torchvision.models.alexnet(weights=None), size).values())
    assert list(layer_costs("alexnet", size).values()) == [sum(by_hook[: k + 1]) for k in range(5)]


def test_branches_are_paid_where_they_are_needed() -> None:
    by_hook = counted(torchvision.models.squeezenet1_1(weights=None), (120, 160))
    costs = Costs.of_network("squeezenet1_1", (120, 160))
    stem, fire = by_hook["features.0"], "features.3"
    squeeze, one, three = (by_hook[f"{fire}.{part}"] for part in ("squeeze", "expand1x1", "expand3x3"))
    assert costs.of(["features.0:1"]) == stem
    assert costs.of([f"{fire}.squeeze:0"]) == stem + squeeze
    assert costs.of([f"{fire}.expand1x1:0"]) == stem + squeeze + one
    assert costs.of([f"{fire}.expand3x3:0", f"{fire}.expand3x3:5"]) == stem + squeeze + three
    assert costs.of([f"{fire}.expand1x1:0", f"{fire}.expand3x3:0"]) == stem + squeeze + one + three
    next_squeeze = by_hook["features.4.squeeze"]  # of both branches side by side
    assert costs.of(["features.4.squeeze:3"]) == stem + squeeze + one + three + next_squeeze
    assert costs.all == sum(cost for path, cost in by_hook.items() if path != "classifier.1")


class Kinds(nn.Module):
    """Groups, strides, a side branch that is not needed, a convolution that runs twice, and a residual."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.grouped = nn.Conv2d(8, 8, (1, 3), groups=4, padding=(0, 1))
        self.side = nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.stem(x)
        once = self.grouped(x).relu()
        return self.side(x), (x + self.grouped(once)).relu()


def test_networks_of_ones_own() -> None:
    extractor = FeatureExtractor(Kinds())
    positions = 10 * 15
    stem, grouped, side = positions * 8 * 27, positions * 8 * 2 * 3, positions * 2 * 8
    assert layer_costs(extractor, (20, 30)) == {
        "stem": stem,
        "grouped": stem + grouped,
        "side": stem + side,
        "grouped#2": stem + 2 * grouped,
    }
    assert Costs.of_network(extractor, (20, 30)).all == stem + 2 * grouped + side
    assert Costs.of_network(extractor.keep(["grouped"]), (20, 30)).all == stem + grouped


@pytest.mark.filterwarnings("ignore:.*random weights")
def test_the_network_sees_what_the_viewing_makes() -> None:
    half = FeatureExtractor("alexnet", weights=None, viewing=Viewing(factor=0.5))
    assert layer_costs(half, (200, 300)) == layer_costs("alexnet", (100, 150))
    assert layer_costs(half.double(), (200, 300)) == layer_costs("alexnet", (100, 150))
    recorded = {"network": "alexnet", "viewing": {"factor": 0.5}}
    assert Costs.of_matrix(scores(recorded, "conv1"), (200, 300)).all == layer_costs("alexnet", (100, 150))["conv1"]


def test_layers_of_a_set_are_paid_once() -> None:
    costs = Costs.of_network("alexnet")
    layers = costs.layers
    assert costs.of(["conv1:0", "conv3:4", "conv3:7", "conv2:1"]) == layers["conv3"]
    assert (costs.of([]), costs.share([]), costs.share(["conv5:0"])) == (0, 0, 1)
    assert BRANCHED.of(["left:0", "right:0"]) == 10
    assert BRANCHED.keep(["stem", "left"]).all == 7


def test_sources_share_nothing() -> None:
    full, half = {"network": "alexnet", "viewing": {}}, {"network": "alexnet", "viewing": {"factor": 0.5}}
    one, other = scores(full, "conv1", "conv2"), scores(half, "conv1")
    joined = ScoreMatrix.concat({"full": one, "half": replaced(other, one)})
    costs, whole = Costs.of_matrix(joined), layer_costs("alexnet")
    halved = layer_costs("alexnet", (192, 256))
    assert costs.layers == {
        "full/conv1": whole["conv1"],
        "full/conv2": whole["conv2"],
        "half/conv1": halved["conv1"],
    }
    assert costs.all == whole["conv2"] + halved["conv1"]
    assert costs.of(["full/conv1:0", "half/conv1:0"]) == whole["conv1"] + halved["conv1"]
    assert costs.size == (384, 512)
    only = Costs.of_matrix(joined.columns(["half/conv1:0"]))
    assert only.layers == {"half/conv1": halved["conv1"]}


def replaced(matrix: ScoreMatrix, like: ScoreMatrix) -> ScoreMatrix:
    return ScoreMatrix(matrix.values, matrix.maps, like.targets, like.groups, like.names, options=matrix.options)


def test_milliseconds_are_measured_on_the_device(device: torch.device) -> None:
    extractor = FeatureExtractor(Kinds()).to(device)
    costs = Costs.of_network(extractor, (64, 64), unit="milliseconds")
    assert costs.unit == "milliseconds"
    assert set(costs.layers) == set(extractor.layers)
    assert all(cost > 0 for cost in costs.layers.values())
    assert costs.of(["stem:0"]) < costs.of(["grouped:0"]) < costs.of(["grouped#2:0"]) < costs.all
    assert costs.share(extractor.maps) == 1


def test_costs_are_values() -> None:
    costs = Costs.of_network("alexnet", (64, 64))
    again = Costs(dict(costs.parts), dict(costs.needs), costs.unit, costs.size)
    for same in (again, pickle.loads(pickle.dumps(costs)), copy.deepcopy(costs)):
        assert same == costs
        assert hash(same) == hash(costs)
    assert costs != Costs.of_network("alexnet", (96, 64))
    assert costs.to_dict() == {"unit": "multiplications", "size": [64, 64], "all": costs.all}
    with pytest.raises(TypeError):
        costs.parts["conv1"] = 0.0  # type: ignore[index]
    assert "5 layers" in repr(costs)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: layer_costs("resnet"), "no network 'resnet': give one of alexnet"),
        (lambda: layer_costs(nn.Conv2d(3, 3, 3)), "FeatureExtractor or one of alexnet.*got Conv2d"),  # type: ignore[arg-type]
        (lambda: layer_costs("alexnet", unit="seconds"), "unit is one of multiplications, milliseconds, got 'sec"),  # type: ignore[arg-type]
        (lambda: layer_costs("alexnet", unit="milliseconds"), r"give fmiqa.FeatureExtractor\('alexnet'\)"),
        (lambda: layer_costs("alexnet", (0, 5)), r"\(height, width\) of the images in pixels.*got \(0, 5\)"),
        (lambda: layer_costs("alexnet", 512), "got 512"),  # type: ignore[arg-type]
        (lambda: layer_costs("alexnet", (20, 20)), "too small for this network"),
        (lambda: BRANCHED.of(["middle:0"]), "known of stem, left, right; got middle"),
        (lambda: BRANCHED.keep(["middle"]), "got middle"),
        (lambda: Costs({"a": -1}, {"x": ["a"]}), r"at least 0, and not all 0; got \{'a': -1\}"),
        (lambda: Costs({"a": float("nan")}, {"x": ["a"]}), "finite numbers"),
        (lambda: Costs({"a": 0}, {"x": ["a"]}), r"not all 0; got \{'a': 0\}"),
        (lambda: Costs({"a": 1}, {"x": ["b"]}), "of a; got 'b'"),
        (lambda: Costs({"a": 1}, {}), "got no layer"),
        (lambda: Costs([1.0], {}), r"parts is a mapping from names.*got \[1.0\]"),  # type: ignore[arg-type]
        (lambda: Costs.joined({}), "one unit can be joined, got none"),
        (lambda: Costs.joined({"x": BRANCHED, "y": Costs({"a": 1}, {"x": ["a"]}, "ms")}), "got ms and multiplications"),
        (lambda: Costs.joined([BRANCHED]), "mapping from source names"),  # type: ignore[arg-type]
        (lambda: Costs.of_matrix(scores({}, "conv1")), "record no network to count .* pass costs="),
        (lambda: Costs.of_matrix(scores({"network": "Kinds"}, "stem")), "the network 'Kinds', which has no name"),
        (lambda: Costs.of_matrix(scores({"network": "alexnet"}, "conv9")), "got conv9"),
    ],
)
def test_errors_say_what_to_do(make: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()
