"""Feature extraction against the networks' own forward passes; what is run, and what is refused."""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import prune

from fmiqa import FeatureExtractor, InputError


def seeded(name: str, **options: Any) -> FeatureExtractor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return FeatureExtractor(name, weights=None, **options)


@pytest.fixture(scope="module")
def alexnet() -> FeatureExtractor:
    return seeded("alexnet")


@pytest.fixture
def images() -> Tensor:
    return torch.rand(2, 3, 67, 70, generator=torch.Generator().manual_seed(0))


VGG16 = ["conv1_1", "conv1_2", "conv2_1", "conv2_2", "conv3_1", "conv3_2", "conv3_3"]
VGG16 += ["conv4_1", "conv4_2", "conv4_3", "conv5_1", "conv5_2", "conv5_3"]


@pytest.mark.parametrize(
    ("name", "count", "layers"),
    [
        ("alexnet", 64 + 192 + 384 + 256 + 256, [f"conv{i}" for i in range(1, 6)]),
        ("vgg11", 64 + 128 + 2 * 256 + 4 * 512, ["conv1_1", "conv2_1", "conv3_1", "conv3_2", "conv4_1"]),
        ("vgg13", 2 * (64 + 128 + 256 + 512 + 512), ["conv1_1", "conv1_2", "conv2_1"]),
        ("vgg16", 4224, VGG16),
        ("vgg19", 2 * 64 + 2 * 128 + 4 * 256 + 8 * 512, [*VGG16[:7], "conv3_4", "conv4_1"]),
        # fire modules: squeeze s, expand e + e
        ("squeezenet1_1", 64 + sum(n * (s + 8 * s) for n, s in ((2, 16), (2, 32), (2, 48), (2, 64))), ["features.0"]),
    ],
)
def test_layers_and_counts(name: str, count: int, layers: list[str]) -> None:
    extractor = seeded(name)
    assert len(extractor.maps) == count
    assert extractor.layers[: len(layers)] == layers
    assert extractor.maps.layers == extractor.layers
    assert extractor.network_name == name


def own_forward(model: nn.Module, images: Tensor, stage: str) -> list[Tensor]:
    """What each convolution of a torchvision network gives, taken by hooks in torchvision's own forward pass."""
    caught: list[Tensor] = []
    hooks = [
        module.register_forward_hook(lambda m, i, o: caught.append(o.clone()))
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d) and not name.startswith("classifier")
    ]
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.no_grad():
        model.eval()((images - mean) / std)
    for hook in hooks:
        hook.remove()
    return [c.relu() if stage == "relu" else c for c in caught]


def assert_same_maps(value: Tensor, expected: Tensor, layer: Tensor | None = None) -> None:
    """To the rounding of float32 where kernels add up in another order, relative to the layer's largest value.

    Sums of up to 4608 products are off by some sqrt(4608) epsilons, 8e-6, and layers upon layers by a few times as
    much; maps of another channel, or of other weights, differ by about the largest value itself. On CUDA, where other
    numbers of filters choose other kernels too and TF32 is off, the least exact of them, Winograd's of 4 x 4 outputs,
    is off by some 3e-6 (Lavin & Gray 2016).
    """
    largest = (expected if layer is None else layer).abs().max().item()
    torch.testing.assert_close(value, expected, rtol=0, atol=1e-4 * largest)


@pytest.mark.parametrize("stage", ["relu", "conv"])
@pytest.mark.parametrize("name", ["alexnet", "vgg11", "squeezenet1_1"])
def test_every_layer_equals_torchvisions_own_forward(images: Tensor, name: str, stage: str) -> None:
    extractor = seeded(name, stage=stage)
    with torch.device("meta"):
        model = torchvision.models.get_model(name)
    model = model.to_empty(device="cpu").eval()
    for parameter in model.parameters():
        parameter.data.zero_()
    model.load_state_dict(extractor.network.state_dict(), strict=False)
    expected = own_forward(model, images, stage)
    features = extractor(images)
    assert len(expected) == len(features)
    for (layer, value), own in zip(features.items(), expected, strict=True):
        assert own.abs().max() > 0, layer
        assert_same_maps(value, own)  # other memory formats choose other kernels
        assert (value.min() >= 0) == (stage == "relu")


@pytest.mark.parametrize("stage", ["relu", "conv"])
def test_subsets_equal_the_whole(images: Tensor, device: torch.device, stage: str) -> None:
    extractor = seeded("alexnet", stage=stage).to(device)
    images = images.to(device)
    whole = extractor(images)
    for asked in (["conv3:5"], ["conv1:63", "conv4:200", "conv1:2", "conv4:0"], ["conv5:255", "conv2:0"]):
        part = extractor(images, asked)
        channels: dict[str, list[int]] = {}
        for text in asked:
            layer, _, channel = text.partition(":")
            channels.setdefault(layer, []).append(int(channel))
        assert part.keys() == channels.keys()
        for layer, value in part.items():
            assert_same_maps(value, whole[layer][:, channels[layer]], whole[layer])


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The number of filters of every convolution that is run."""
    filters: list[int] = []
    real: Callable[..., Tensor] = F.conv2d

    def counting(images: Tensor, weight: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        filters.append(len(weight))
        return real(images, weight, *args, **kwargs)

    monkeypatch.setattr(F, "conv2d", counting)
    return filters


def test_only_what_is_needed_is_run(alexnet: FeatureExtractor, images: Tensor, ran: list[int]) -> None:
    alexnet(images)
    assert ran == [64, 192, 384, 256, 256]
    for asked, expected in (
        (["conv1:3"], [1]),
        (["conv1:3", "conv3:0", "conv3:9"], [64, 192, 2]),
        (["conv5:0"], [64, 192, 384, 256, 1]),
    ):
        ran.clear()
        alexnet(images, asked)
        assert ran == expected


def test_layers_come_one_by_one(alexnet: FeatureExtractor, images: Tensor, ran: list[int]) -> None:
    walk = alexnet.features(images)
    assert ran == []
    assert next(walk)[0] == "conv1"
    assert next(walk)[0] == "conv2"
    assert ran == [64, 192]


def test_filters_are_chosen_only_where_nothing_else_needs_the_layer(ran: list[int]) -> None:
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 5, 3), nn.Conv2d(4, 6, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.c(F.relu(self.a(x))).sum() + F.relu(self.b(x)).sum()

    extractor = FeatureExtractor(Branches())
    images = torch.rand(1, 3, 12, 12)
    whole = extractor(images)
    for asked, expected in (
        (["b:2"], [5 - 4]),
        (["c:1", "a:0"], [4, 1]),
        (["a:3", "b:1", "b:0"], [1, 2]),
        (["c:5", "b:4"], [4, 1, 1]),
    ):
        ran.clear()
        part = extractor(images, asked)
        assert sorted(ran) == sorted(expected)
        for layer, value in part.items():
            channels = [int(text.split(":")[1]) for text in asked if text.startswith(layer)]
            assert_same_maps(value, whole[layer][:, channels], whole[layer])


def test_layer_shapes_leave_the_network_alone() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 5, 3))
    prune.random_unstructured(network[0], "weight", 0.5)
    extractor = FeatureExtractor(network)
    tensors = {id(v) for m in extractor.network.modules() for v in (*m.parameters(), *m.buffers(), *vars(m).values())}
    assert extractor.layer_shapes(20, 30) == {"0": (4, 18, 28), "3": (5, 16, 26)}
    assert {
        id(v) for m in extractor.network.modules() for v in (*m.parameters(), *m.buffers(), *vars(m).values())
    } == tensors


def test_layer_shapes(alexnet: FeatureExtractor) -> None:
    shapes = alexnet.layer_shapes(67, 90)
    assert shapes == {layer: tuple(value.shape[1:]) for layer, value in alexnet(torch.rand(1, 3, 67, 90)).items()}
    assert alexnet.layer_shapes(15, 15, ["conv1:2"]) == {"conv1": (1, 3, 3)}
    with pytest.raises(InputError, match="too small"):
        alexnet.layer_shapes(15, 15)


def test_keep(alexnet: FeatureExtractor, images: Tensor) -> None:
    kept = alexnet.keep(["conv3", "conv1"])
    assert kept.layers == ["conv1", "conv3"]
    assert kept.weights_sha256 == alexnet.weights_sha256
    assert sum(isinstance(m, nn.Conv2d) for m in kept.network.modules()) == 3
    assert len(alexnet.layers) == 5
    assert torch.equal(kept(images)["conv3"], alexnet(images)["conv3"])
    for bad in ([], ["conv9"]):
        with pytest.raises(InputError, match="the network has conv1"):
            alexnet.keep(bad)


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda e: pickle.loads(pickle.dumps(e))])
def test_copies_and_pickles_do_the_same(alexnet: FeatureExtractor, images: Tensor, clone: Any) -> None:
    alexnet(images, ["conv2:1"])  # a plan is made before
    again = clone(alexnet)
    assert again.maps == alexnet.maps
    assert again.weights_sha256 == alexnet.weights_sha256
    for asked in (None, ["conv2:1"], ["conv4:3", "conv1:0"]):
        for a, b in zip(alexnet(images, asked).values(), again(images, asked).values(), strict=True):
            assert torch.equal(a, b)


def test_uint8_and_floats_are_the_same_images(alexnet: FeatureExtractor, device: torch.device) -> None:
    extractor = copy.deepcopy(alexnet).to(device)
    images = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8, device=device)
    for other in (images.float() / 255, (images.double() / 255), images.clone().permute(0, 1, 3, 2).mT):
        assert_same_maps(extractor(other)["conv5"], extractor(images)["conv5"])


def test_double_precision(alexnet: FeatureExtractor, images: Tensor) -> None:
    double = copy.deepcopy(alexnet).double()
    for a, b in zip(double(images).values(), alexnet(images).values(), strict=True):
        assert a.dtype == torch.float64
        assert_same_maps(a.float(), b)
    assert alexnet(images.double())["conv1"].dtype == torch.float32


def test_the_network_is_frozen_and_stays_in_evaluation_mode(images: Tensor) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Conv2d(4, 2, 3))
    extractor = FeatureExtractor(net)
    parent = nn.ModuleList([extractor]).train()
    first = extractor(images)["4"]
    assert torch.equal(extractor(images)["4"], first)
    assert not any(module.training for module in extractor.modules())
    assert not any(parameter.requires_grad for parameter in parent.parameters())
    # ... while the given module is as it was.
    assert all(module.training for module in net.modules())
    assert all(parameter.requires_grad for parameter in net.parameters())
    assert net[1].num_batches_tracked.item() == 0


def test_gradients_reach_the_images(alexnet: FeatureExtractor, images: Tensor) -> None:
    images = images.clone().requires_grad_()
    alexnet(images, ["conv3:7"])["conv3"].sum().backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0


BAD: list[tuple[Callable[[Tensor], object], str]] = [
    (lambda x: x[0], r"shape \(N, 3, H, W\), got \(3, 67, 70\)"),
    (lambda x: x[:, :1], r"got \(2, 1, 67, 70\).*repeat a grey channel"),
    (lambda x: torch.cat([x, x[:, :1]], 1), r"got \(2, 4, 67, 70\)"),
    (lambda x: x.permute(0, 2, 3, 1), r"got \(2, 67, 70, 3\)"),
    (lambda x: x[:0], r"got \(0, 3, 67, 70\)"),
    (lambda x: (x * 255).to(torch.int32), "uint8 or floating point, got torch.int32"),
    (lambda x: x > 0.5, "got torch.bool"),
    (lambda x: x.to(torch.complex64), "got torch.complex64"),
    (lambda x: x * 255, r"float images lie in \[0, 1\].*divide by 255"),
    (lambda x: (x - 0.5) / 0.2, "undo a mean/std normalisation"),
    (lambda x: x.index_fill(2, torch.tensor([3]), float("nan")), "got values from nan"),
    (lambda x: x.index_fill(2, torch.tensor([3]), float("inf")), "to inf"),
    (lambda x: x.numpy(), "must be a torch.Tensor.*got ndarray"),
    (lambda x: x.to("meta"), "images are on meta, the network is on cpu"),
    (lambda x: x[..., :14, :14], "14 wide and 14 high are too small.*larger images"),
]


@pytest.mark.parametrize(("spoil", "message"), BAD)
def test_bad_images_are_refused(
    alexnet: FeatureExtractor, images: Tensor, spoil: Callable[[Tensor], Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        alexnet(spoil(images))


def test_images_too_small_for_deep_layers_serve_for_early_ones(alexnet: FeatureExtractor, images: Tensor) -> None:
    assert alexnet(images[..., :15, :15], ["conv1:0"])["conv1"].shape == (2, 1, 3, 3)


def test_a_little_overshoot_is_let_through(alexnet: FeatureExtractor, images: Tensor) -> None:
    alexnet(images * 1.2 - 0.1, ["conv1:0"])


def test_wrong_requests_are_named(alexnet: FeatureExtractor, images: Tensor) -> None:
    with pytest.raises(InputError, match=r"conv1:64.*conv1 \(64\)"):
        alexnet(images, ["conv1:0", "conv1:64"])
    with pytest.raises(InputError, match="no feature maps asked for"):
        alexnet(images, [])
    with pytest.raises(InputError, match=r"no network 'resnet18': give one of alexnet.*or an nn\.Module"):
        FeatureExtractor("resnet18", weights=None)
    with pytest.raises(InputError, match="got int"):
        FeatureExtractor(3)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"stage must be 'relu'.*got 'pool'"):
        FeatureExtractor("alexnet", stage="pool", weights=None)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="layers to keep: conv7; the network has conv1, conv2"):
        FeatureExtractor("alexnet", layers=["conv7"], weights=None)


def test_plans_do_not_pile_up(alexnet: FeatureExtractor, images: Tensor) -> None:
    for channel in range(64):
        for layer in ("conv1", "conv2"):
            alexnet(images[..., :40, :40], [f"{layer}:{channel}"])
    assert len(alexnet._plans) <= 64
