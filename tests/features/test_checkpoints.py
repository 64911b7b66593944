"""Weights from every kind of source, without running anybody's code."""

from __future__ import annotations

import hashlib
import os
import pickle
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from scipy import stats
from torch import Tensor, nn

from fmiqa import FeatureExtractor, WeightsError
from fmiqa.features.checkpoints import _normal, fingerprint, fit_state, read_state, seeded_state
from fmiqa.features.networks import blank_network


@pytest.fixture(scope="module")
def whole() -> dict[str, Tensor]:
    """A state dict of a whole AlexNet; the classifier's large matrices are views of one number."""
    with torch.device("meta"):
        names = torchvision.models.alexnet().state_dict()
    generator = torch.Generator().manual_seed(5)
    return {
        name: torch.randn(value.shape, generator=generator) / 50
        if name.startswith("features")
        else torch.zeros(1).expand(value.shape)
        for name, value in names.items()
    }


@pytest.fixture(scope="module")
def features(whole: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in whole.items() if name.startswith("features.")}


def test_every_form_of_the_same_weights_has_one_fingerprint(
    tmp_path: Path, whole: dict[str, Tensor], features: dict[str, Tensor]
) -> None:
    bare = {name.removeprefix("features."): value for name, value in features.items()}
    torch.save(features, tmp_path / "features.pth")
    torch.save(features, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    save_file(bare, tmp_path / "bare.safetensors")
    torch.save({"epoch": 3, "optimizer": [1, 2], "state_dict": features}, tmp_path / "checkpoint.pth")
    module = torchvision.models.AlexNet()
    module.features.load_state_dict(bare)
    forms: list[Any] = [
        whole,
        features,
        bare,
        {f"module.{name}": value for name, value in whole.items()},
        {f"module.{name}": value for name, value in bare.items()},
        {"state_dict": {f"module.{name}": value for name, value in features.items()}},
        dict(reversed(features.items())),
        {
            name: value.to(memory_format=torch.channels_last) if value.ndim == 4 else value
            for name, value in bare.items()
        },
        tmp_path / "features.pth",
        str(tmp_path / "old.pt"),
        tmp_path / "bare.safetensors",
        tmp_path / "checkpoint.pth",
    ]
    fingerprints = [FeatureExtractor("alexnet", weights=form).weights_sha256 for form in forms]
    fingerprints.append(FeatureExtractor(module).weights_sha256)
    fingerprints.append(FeatureExtractor(module, stage="conv").weights_sha256)
    assert set(fingerprints) == {fingerprint(features)}


def test_fingerprint_tells_names_dtypes_shapes_and_values_apart() -> None:
    value = torch.arange(6.0)
    states = [
        {"a": value},
        {"b": value},
        {"a": value.view(2, 3)},
        {"a": value.double()},
        {"a": value.view(torch.int32)},
        {"a": value + 1e-6},
        {"a": value, "b": torch.tensor(1)},
    ]
    assert len({fingerprint(state) for state in states}) == len(states)


def test_missing_misshapen_and_unknown_tensors_are_named(features: dict[str, Tensor]) -> None:
    state = dict(features)
    del state["features.3.bias"]
    state["features.0.weight"] = state["features.0.weight"][:, :, :5]
    state["features.99.weight"] = torch.zeros(1)
    with pytest.raises(WeightsError) as error:
        FeatureExtractor("alexnet", weights=state)
    for finding in (
        "features.3.bias is missing",
        "features.0.weight has shape (64, 3, 5, 11), expected (64, 3, 11, 11)",
        "features.99.weight is not of this network",
    ):
        assert finding in str(error.value)


def test_weights_of_another_network_are_refused(features: dict[str, Tensor]) -> None:
    with pytest.raises(WeightsError, match="another network"):
        FeatureExtractor("vgg16", weights=features)


def test_layers_that_are_left_out_need_no_weights(features: dict[str, Tensor]) -> None:
    first = {name: value for name, value in features.items() if name.startswith("features.0.")}
    assert FeatureExtractor("alexnet", weights=first, layers=["conv1"]).layers == ["conv1"]
    with pytest.raises(WeightsError, match=r"features\.3\.weight is missing"):
        FeatureExtractor("alexnet", weights=first)


def test_half_precision_is_widened_and_double_kept(features: dict[str, Tensor]) -> None:
    images = torch.rand(1, 3, 70, 70)
    half = FeatureExtractor("alexnet", weights={name: value.half() for name, value in features.items()})
    widened = FeatureExtractor("alexnet", weights={name: value.half().float() for name, value in features.items()})
    assert half.dtype == torch.float32
    assert torch.equal(half(images)["conv5"], widened(images)["conv5"])
    double = FeatureExtractor("alexnet", weights={name: value.double() for name, value in features.items()})
    assert double(images)["conv5"].dtype == torch.float64


def test_given_tensors_are_copied() -> None:
    net = nn.Sequential(nn.Conv2d(3, 2, 3))
    state = net.state_dict()
    extractor = FeatureExtractor(net, weights=state)
    before = extractor(torch.ones(1, 3, 8, 8))["0"]
    state["0.weight"].zero_()
    assert torch.equal(extractor(torch.ones(1, 3, 8, 8))["0"], before)


class Wrapped(nn.Module):
    """Its names begin with `module.`, as DataParallel's do, and it makes a constant of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.module = nn.Conv2d(3, 2, 3)
        self.register_buffer("gain", torch.tensor(3.0), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.module(x * self.gain + torch.ones(1))
        return y


def test_weights_for_a_module_of_ones_own() -> None:
    other, net = Wrapped(), Wrapped()
    images = torch.rand(1, 3, 8, 8)
    expected = FeatureExtractor(other)(images)["module"]
    assert not torch.equal(FeatureExtractor(net)(images)["module"], expected)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    for state in (other.state_dict(), {f"module.{name}": value for name, value in other.state_dict().items()}):
        assert torch.equal(FeatureExtractor(net, weights=state)(images)["module"], expected)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


class Malicious:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("container", ["torch", "pickle"])
def test_a_malicious_pickle_does_nothing(tmp_path: Path, container: str) -> None:
    file, trace = tmp_path / "weights.pth", tmp_path / "was_here"
    payload = {"features.0.weight": Malicious(trace)}
    if container == "torch":
        torch.save(payload, file)
    else:
        file.write_bytes(pickle.dumps(payload))
    with pytest.raises(WeightsError, match=r"could run code.*state_dict\(\)"):
        FeatureExtractor("alexnet", weights=file)
    assert not trace.exists()
    pickle.loads(pickle.dumps(payload))  # it would have done something
    assert trace.exists()


def test_a_pickled_module_is_refused(tmp_path: Path) -> None:
    torch.save(nn.Conv2d(3, 2, 3), tmp_path / "net.pth")
    with pytest.raises(WeightsError, match=r"net\.pth is not a plain state dict"):
        read_state(tmp_path / "net.pth")


@pytest.mark.parametrize("name", ["x.pth", "x.safetensors"])
def test_damaged_and_missing_files_are_named(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with pytest.raises(WeightsError, match="no weights file"):
        read_state(path)
    for content in (b"", b"noise" * 50):
        path.write_bytes(content)
        with pytest.raises(WeightsError, match=re.escape(str(path))):
            read_state(path)


@pytest.mark.parametrize("content", [[1, 2], {"a": 1}, torch.zeros(2)])
def test_files_of_something_else_are_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(WeightsError, match="not a mapping of names to tensors"):
        read_state(tmp_path / "x.pth")


def test_many_findings_are_counted() -> None:
    expected = {f"{i}.weight": torch.zeros(1) for i in range(20)}
    with pytest.raises(WeightsError, match="and 8 more"):
        fit_state({}, expected)


def test_a_failed_download_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*args: object, **kwargs: object) -> None:
        raise OSError("network is unreachable")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", offline)
    with pytest.raises(WeightsError, match=r"unreachable.*weights='path/to/vgg16\.pth'"):
        FeatureExtractor("vgg16")


def test_a_download_is_used(monkeypatch: pytest.MonkeyPatch, whole: dict[str, Tensor]) -> None:
    asked: list[dict[str, object]] = []

    def served(url: str, **kwargs: object) -> dict[str, Tensor]:
        asked.append(kwargs)
        return whole

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", served)
    assert FeatureExtractor("alexnet").weights_sha256 == FeatureExtractor("alexnet", weights=whole).weights_sha256
    assert asked[0]["check_hash"] is True
    assert asked[0]["weights_only"] is True


def test_random_weights_are_seeded_and_said() -> None:
    with pytest.warns(UserWarning, match=r"alexnet has random weights \(seed 0\).*pass weights='DEFAULT'") as caught:
        first = FeatureExtractor("alexnet", weights=None)
    assert caught[0].filename == __file__
    before = torch.get_rng_state()
    with pytest.warns(UserWarning, match="seed 0"):
        second = FeatureExtractor("alexnet", weights=None)
    with pytest.warns(UserWarning, match="seed 1"):
        third = FeatureExtractor("alexnet", weights=None, seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    assert first.weights_sha256 == second.weights_sha256 != third.weights_sha256
    # 4 standard errors of the deviation of 23,232 numbers.
    assert first.network.state_dict()["features.0.weight"].std().item() == pytest.approx((2 / 363) ** 0.5, rel=0.02)


def test_random_weights_have_the_same_bits_on_every_processor() -> None:
    content = hashlib.sha256()
    for value in seeded_state(blank_network("alexnet"), 0).values():
        content.update(value.numpy().tobytes())
    assert content.hexdigest() == "8b96971844d75938af32d6dd179e6b2c41444a8f9e110b19e9779f24e2a2c206"


def test_random_weights_are_normal() -> None:
    values = _normal(100_000, torch.Generator().manual_seed(0))
    assert len(_normal(7, torch.Generator().manual_seed(0))) == 7
    assert stats.kstest(values.double().numpy(), "norm").pvalue > 0.001
    assert stats.pearsonr(values[:-1], values[1:]).pvalue > 0.001


def test_the_real_weights(shared: Path) -> None:
    extractor = FeatureExtractor("alexnet", weights=shared / "weights/alexnet_features.pth")
    assert len(extractor.maps) == 1152
    vgg = FeatureExtractor(
        "vgg16", weights=shared / "weights/vgg16_first4convs.pth", layers=["conv1_1", "conv1_2", "conv2_1", "conv2_2"]
    )
    assert len(vgg.maps) == 64 + 64 + 128 + 128
