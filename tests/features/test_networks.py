"""Networks of every build: what torch.fx makes of them must be what they compute themselves."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from fmiqa import FeatureExtractor, InputError


class Net(nn.Module):
    """Three convolutions and whatever the subclasses make of them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.c = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 5, 3)
        self.norm = nn.BatchNorm2d(4)
        self.norm.running_mean = torch.randn(4)
        self.norm.weight.data = torch.randn(4)
        self.act: nn.Module = nn.ReLU(inplace=True)


class FunctionalRelu(Net):
    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.c(F.relu(self.b(F.relu(self.a(x), True)), inplace=True)))


class MethodRelu(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.b(self.a(x).relu()).relu_())


class Statement(Net):
    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        F.relu_(x)
        y = self.b(x)
        self.act(y)
        z = self.c(y)
        z.mul_(2.0)
        return z


class Shared(Net):
    """One in-place module behind every convolution, one convolution used twice."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.a(x))
        x = self.act(self.norm(self.b(x)))
        return self.act(self.c(self.act(self.b(x))))


class Residual(Net):
    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.norm(self.a(x)))
        y = self.norm(self.b(x))
        y += x
        y = self.act(y)
        return self.c(y.add_(x))


class ReadBefore(Net):
    """A branch reads the convolution before it is rectified in place, another after."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        before = self.b(x)
        after = self.act(x)
        return self.c(before + after + x)


class InPlaceOnHandedOut(Net):
    """Writes into a layer's rectified maps after they are there."""

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.a(x))
        y = F.relu(self.b(x))
        x.mul_(3.0).add_(y)
        return self.c(x)


class Dense(Net):
    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.a(x))
        x = torch.cat([x[:, :2], self.b(x)[:, 2:]], 1)
        n, c, h, w = x.shape
        return self.c(F.interpolate(x.reshape(n, c, h, w), size=(h // 2, w // 2)))


class Leaky(Net):
    def __init__(self) -> None:
        super().__init__()
        self.act = nn.LeakyReLU(0.3, inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.act(self.b(self.act(self.a(x)))))


class NamedRelu(Leaky):
    """A module named `relu` that is none."""

    def __init__(self) -> None:
        super().__init__()
        self.relu = nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.relu(self.b(self.relu(self.a(x)))))


class Options(Net):
    def forward(self, x: Tensor, mask: Tensor | None = None, scale: float = 2.0, *, twice: bool = True) -> Tensor:
        x = self.a(x)
        if mask is not None:
            x = x * mask
        if twice:
            x = x * scale
        return self.c(self.b(x))


class Constants(Net):
    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.rand(1, 4, 1, 1))
        self.register_buffer("shift", torch.rand(1, 4, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.b(self.a(x) * self.gain + self.shift + torch.ones(1)))


class Nested(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.ModuleDict(
            {"one": nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 3)), nn.ReLU()), "two": Shared()}
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.inner["one"](x)[:, :3] + self.inner["two"](x)[:, :3]


class Standardised(nn.Conv2d):
    """A convolution with a forward of its own."""

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight - self.weight.mean((1, 2, 3), keepdim=True), self.bias)


NETS = [FunctionalRelu, MethodRelu, Statement, Shared, Residual, ReadBefore, InPlaceOnHandedOut, Dense]
NETS += [Leaky, NamedRelu, Options, Constants, Nested]


def own_convolutions(net: nn.Module, images: Tensor) -> list[Tensor]:
    """What each call of a convolution gives in the network's own forward pass, in order."""
    net = copy.deepcopy(net).eval()
    caught: list[Tensor] = []
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda m, i, o: caught.append(o.clone()))
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.no_grad():
        net((images - mean) / std)
    return caught


@pytest.fixture
def images() -> Tensor:
    return torch.rand(2, 3, 16, 18, generator=torch.Generator().manual_seed(1))


def assert_close(value: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-5)  # float32 through three convolutions


@pytest.mark.parametrize("kind", NETS)
def test_convolutions_are_the_networks_own(kind: type[nn.Module], images: Tensor) -> None:
    net = kind()
    state = copy.deepcopy(net.state_dict())
    extractor = FeatureExtractor(net, stage="conv")
    # All are handed out first, then compared: nothing may overwrite them meanwhile.
    for value, own in zip(extractor(images).values(), own_convolutions(net, images), strict=True):
        assert_close(value, own)
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())


@pytest.mark.parametrize("kind", NETS)
def test_rectified_maps(kind: type[nn.Module], images: Tensor) -> None:
    net = kind()
    extractor = FeatureExtractor(net)
    norms = {"Shared": {1}, "Residual": {0, 1}, "Nested": {2}}.get(kind.__name__, set())
    owned = own_convolutions(net, images)
    for i, (value, own) in enumerate(zip(extractor(images).values(), owned, strict=True)):
        norm = next(m for m in net.eval().modules() if isinstance(m, nn.BatchNorm2d)) if i in norms else nn.Identity()
        assert_close(value, norm(own).relu())


@pytest.mark.parametrize("stage", ["relu", "conv"])
@pytest.mark.parametrize("kind", NETS)
def test_copies_pickles_and_subsets_do_the_same(kind: type[nn.Module], images: Tensor, stage: Any) -> None:
    extractor = FeatureExtractor(kind(), stage=stage)
    whole = extractor(images)
    for clone in (copy.deepcopy(extractor), pickle.loads(pickle.dumps(extractor))):
        assert all(torch.equal(value, whole[layer]) for layer, value in clone(images).items())
    for layer in extractor.layers:
        for part in (extractor, extractor.keep([layer]), pickle.loads(pickle.dumps(extractor.keep([layer])))):
            assert_close(part(images, [f"{layer}:2", f"{layer}:0"])[layer], whole[layer][:, [2, 0]])


def test_a_convolution_used_twice_has_a_name_for_each_use(images: Tensor) -> None:
    assert FeatureExtractor(Shared()).layers == ["a", "b", "b#2", "c"]
    assert FeatureExtractor(Shared()).keep(["b#2"])(images, ["b#2:3"])["b#2"].shape == (2, 1, 16, 18)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Standardised(3, 6, 3),
        lambda: nn.Conv2d(3, 6, 3, groups=3),
        lambda: nn.Conv2d(3, 6, 3, padding=1, padding_mode="reflect"),
        lambda: nn.Conv2d(3, 6, 3, padding="same", dilation=2, bias=False),
        lambda: parametrizations.weight_norm(nn.Conv2d(3, 6, 3)),
    ],
)
def test_chosen_filters_of_unusual_convolutions(make: Any, images: Tensor) -> None:
    net = nn.Sequential(make(), nn.ReLU())
    extractor = FeatureExtractor(net)
    (own,) = own_convolutions(net, images)
    assert_close(extractor(images)["0"], own.relu())
    assert_close(extractor(images, ["0:4", "0:1"])["0"], own[:, [4, 1]].relu())


def test_hooks_on_a_convolution_are_run(images: Tensor) -> None:
    net = nn.Sequential(nn.Conv2d(3, 6, 3))
    net[0].register_forward_hook(lambda m, i, o: 2 * o)
    # The hook that catches comes after the one that doubles.
    (own,) = own_convolutions(net, images)
    assert_close(FeatureExtractor(net, stage="conv")(images, ["0:4"])["0"], own[:, [4]])


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "mobilenet_v3_small", "shufflenet_v2_x0_5", "vgg11_bn"])
def test_torchvisions_other_networks(name: str, images: Tensor) -> None:
    torch.manual_seed(0)
    net = torchvision.models.get_model(name, weights=None)
    images = F.interpolate(images, 64)
    features = FeatureExtractor(net, stage="conv")(images)
    for value, own in zip(features.values(), own_convolutions(net, images), strict=True):
        # float32 through up to 50 convolutions with sums of up to 4608 products, in other memory formats.
        torch.testing.assert_close(value, own, rtol=0, atol=1e-4 * own.abs().max().item())
    assert all((value >= 0).all() for value in FeatureExtractor(net)(images).values())


def test_a_named_network_is_known_by_its_build() -> None:
    with torch.device("meta"):
        plain, fewer = torchvision.models.alexnet(), torchvision.models.alexnet(num_classes=5)
    changed = copy.deepcopy(plain)
    changed.features[2] = nn.AvgPool2d(3, 2)

    def name(model: nn.Module) -> str:
        return FeatureExtractor(model.to_empty(device="cpu")).network_name

    assert name(plain) == name(fewer) == "alexnet"
    assert name(changed) == "AlexNet"  # or its weights would be put into the plain network
    assert name(Net.__subclasses__()[0]()) == "FunctionalRelu"


class Branching(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.a(x) if x.sum() > 0 else self.a(-x)


class TwoInputs(Net):
    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        return self.a(x + other)


def test_networks_that_cannot_serve_are_refused() -> None:
    with pytest.raises(InputError, match=r"Branching cannot be traced by torch\.fx.*convolutional part alone"):
        FeatureExtractor(Branching())
    with pytest.raises(InputError, match="needs other beside the images"):
        FeatureExtractor(TwoInputs())
    with pytest.raises(InputError, match=r"no nn\.Conv2d"):
        FeatureExtractor(nn.Sequential(nn.Flatten(), nn.Linear(3, 3)))
