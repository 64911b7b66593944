"""A metric in other threads, replicas and processes gives what it gives at home."""

from __future__ import annotations

import copy
import importlib
import pickle
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fmiqa
from fmiqa import FeatureExtractor, SelectedFeatureIQM, Viewing


def seeded(name: str, **options: Any) -> FeatureExtractor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return FeatureExtractor(name, weights=None, **options)


def plain() -> SelectedFeatureIQM:
    return SelectedFeatureIQM(seeded("alexnet"), ["conv2:3", "conv1:5"], weights=torch.tensor([1.0, 2.0]))


def joined() -> SelectedFeatureIQM:
    networks = {"full": seeded("alexnet"), "half": seeded("squeezenet1_1", viewing=Viewing(factor=0.5))}
    return SelectedFeatureIQM(networks, ["half/features.0:3", "full/conv2:3", "full/conv1:5"], measure="gms")


def normalised() -> SelectedFeatureIQM:
    """On a network with buffers."""
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3))
    nn.init.uniform_(net[1].running_var)  # type: ignore[arg-type]
    return SelectedFeatureIQM(FeatureExtractor(net), ["3:1", "0:2"])


def ready() -> SelectedFeatureIQM:
    return fmiqa.load_metric("fast")


@pytest.fixture
def replicate(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What `nn.DataParallel` does before each call, with copies on the CPU for copies on several GPUs."""
    module = importlib.import_module("torch.nn.parallel.replicate")

    def broadcast(tensors: list[Tensor], devices: list[int], detach: bool = False) -> list[list[Tensor]]:
        return [[tensor.detach().clone() for tensor in tensors] for _ in devices]

    monkeypatch.setattr(module, "_broadcast_coalesced_reshape", broadcast)
    monkeypatch.setattr(module, "_get_device_index", lambda device, *rest: device)
    return lambda network: module.replicate(network, [0, 1])


@pytest.fixture
def images() -> Tensor:
    return torch.rand(2, 2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("make", [plain, joined, normalised, ready])
def test_replicas_give_the_same_bits(replicate: Any, images: Tensor, make: Any) -> None:
    iqm = make()
    expected = iqm(*images)
    for replica in replicate(iqm):
        assert torch.equal(replica(*images), expected)
        assert torch.equal(replica(images[0], replica.prepare(images[1])), expected)
        assert torch.equal(replica(images[0], iqm.prepare(images[1])), expected)
        assert replica.device == iqm.device
        assert replica.source == iqm.source


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_replicas_of_an_extractor(replicate: Any, images: Tensor, dtype: torch.dtype) -> None:
    extractor = seeded("alexnet").keep(["conv1", "conv2"]).to(dtype)
    for replica in replicate(extractor):
        assert (replica.dtype, replica.device) == (dtype, torch.device("cpu"))
        for layer, maps in extractor(images[0]).items():
            assert torch.equal(replica(images[0])[layer], maps)
        assert replica.layer_shapes(64, 64) == extractor.layer_shapes(64, 64)
        assert replica.weights_sha256 == extractor.weights_sha256


def test_a_network_without_parameters(images: Tensor) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    expected = FeatureExtractor(net)(images[0])["0"]
    conv = net[0]
    for name in ("weight", "bias"):
        value = getattr(conv, name).data
        delattr(conv, name)
        conv.register_buffer(name, value)
    extractor = FeatureExtractor(net)
    assert (extractor.dtype, extractor.device) == (torch.float32, torch.device("cpu"))
    assert torch.equal(extractor(images[0])["0"], expected)


def scores_elsewhere(iqm: SelectedFeatureIQM, images: Tensor, answers: Any) -> None:
    answers.put((iqm(*images).tolist(), iqm.source["weights_sha256"]))


def test_another_process_gives_the_same(images: Tensor) -> None:
    iqm = plain()
    expected = copy.deepcopy(iqm)(*images)
    iqm.share_memory()
    assert torch.equal(iqm(*images), expected)
    context = torch.multiprocessing.get_context("spawn")
    answers = context.SimpleQueue()
    process = context.Process(target=scores_elsewhere, args=(iqm, images, answers))
    process.start()
    scores, sha = answers.get()
    process.join(60)
    # Another process may use another number of threads, which add up in another order.
    torch.testing.assert_close(torch.tensor(scores), expected, rtol=0, atol=1e-5)
    assert sha == iqm.source["weights_sha256"]


@pytest.mark.parametrize("make", [plain, joined, normalised, ready])
@pytest.mark.parametrize("again", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["copy", "pickle"])
def test_copies_give_the_same_bits(images: Tensor, make: Any, again: Any) -> None:
    iqm = make()
    other = again(iqm)
    assert torch.equal(other(*images), iqm(*images))
    assert torch.equal(other(images[0], iqm.prepare(images[1])), iqm(*images))
    assert (type(other), other.definition()) == (type(iqm), iqm.definition())
    for value in other.parameters():
        value.zero_()
    assert bool((iqm(*images) != other(*images)).any())  # nothing is shared


@pytest.mark.parametrize("make", [plain, joined, normalised, ready])
def test_a_state_dict_makes_another_metric_this_one(images: Tensor, make: Any, tmp_path: Path) -> None:
    iqm, other = make(), make()
    for value in other.parameters():
        value.copy_(torch.rand(value.shape))
    assert not torch.equal(other(*images), iqm(*images))
    torch.save(iqm.state_dict(), tmp_path / "state.pth")
    other.load_state_dict(torch.load(tmp_path / "state.pth"))
    assert torch.equal(other(*images), iqm(*images))
    assert other.definition() == iqm.definition()


@pytest.mark.parametrize("make", [plain, ready])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast_changes_nothing(images: Tensor, make: Any, dtype: torch.dtype) -> None:
    iqm = make()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = iqm(*images.to(dtype))
        loss = iqm.as_loss("none")(*images.to(dtype))
    assert found.dtype == torch.float32
    assert torch.equal(found, iqm(*images.to(dtype)))
    assert torch.equal(loss, 1 - found)
