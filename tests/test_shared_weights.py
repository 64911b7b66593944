"""Networks whose tensors share memory are saved, loaded and told apart as others are."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_model
from torch import Tensor, nn
from torch.nn.utils import prune, spectral_norm

from fmiqa import AllFeatureIQM, FeatureExtractor, SelectedFeatureIQM, WeightsError, score_matrix
from fmiqa._io import load_tensors, save_tensors
from fmiqa.datasets import Demo


class Shared(nn.Module):
    """Three convolutions, of which two have something in common."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.a, self.z, self.c = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 3)
        self.n, self.m = nn.BatchNorm2d(8), nn.BatchNorm2d(8)
        nn.init.uniform_(self.n.running_var)  # type: ignore[arg-type]
        if kind in ("weight", "everything"):
            self.c.weight = self.z.weight
        if kind in ("buffer", "everything"):
            self.m.running_var = self.n.running_var
        if kind == "everything":
            self.c.bias, self.m.weight = self.z.bias, self.n.weight
        if kind == "memory":  # two parameters, one storage
            self.c.weight = nn.Parameter(self.z.weight.data)
        if kind == "module":
            self.b = self.z  # and called twice
            self.c = self.b
        if kind == "rows of one tensor":
            flat = torch.randn(2, 8, 8, 3, 3) / 10
            self.z.weight, self.c.weight = nn.Parameter(flat[0]), nn.Parameter(flat[1])
        if kind == "overlapping":
            flat = torch.randn(12, 8, 3, 3) / 10
            self.z.weight, self.c.weight = nn.Parameter(flat[:8]), nn.Parameter(flat[4:])
        if kind == "turned":
            self.z.weight = nn.Parameter((torch.randn(3, 3, 8, 8) / 10).permute(3, 2, 0, 1))
            self.c.weight = nn.Parameter(self.z.weight.data.transpose(0, 1))
        if kind == "expanded":
            self.z.bias = nn.Parameter(torch.randn(1).expand(8))
        if kind == "channels last":
            self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if kind == "half":
            self.c.weight = self.z.weight
            self.half()
        if kind == "pruned":
            self.c.weight = self.z.weight
            prune.l1_unstructured(self.z, "weight", 0.5)
        if kind == "normalised":
            spectral_norm(self.z)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.c(torch.relu(self.n(self.z(torch.relu(self.a(x))))))
        return self.m(y)  # type: ignore[no-any-return]


KINDS = [
    "weight",
    "buffer",
    "everything",
    "memory",
    "module",
    "rows of one tensor",
    "overlapping",
    "turned",
    "expanded",
]
KINDS += ["channels last", "half", "pruned", "normalised"]


@pytest.fixture
def images() -> Tensor:
    return torch.rand(2, 1, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kind", KINDS)
def test_a_metric_comes_back_with_the_same_scores(kind: str, images: Tensor, tmp_path: Path) -> None:
    extractor = FeatureExtractor(Shared(kind))
    last = extractor.layers[-1]
    for metric in (SelectedFeatureIQM(extractor, [f"{last}:1", "a:2"]), AllFeatureIQM(extractor)):
        metric.save(tmp_path / "metric")
        again = SelectedFeatureIQM.load(tmp_path / "metric", model=Shared(kind))
        assert type(again) is type(metric)
        assert torch.equal(again(*images), metric(*images))
        assert again.source == metric.source
        assert len(list(again.parameters())) == len(list(metric.parameters()))
        for clone in (copy.deepcopy(again), pickle.loads(pickle.dumps(again))):
            assert torch.equal(clone(*images), metric(*images))


@pytest.mark.parametrize("kind", ["weight", "everything", "module"])
def test_joined_metrics_come_back(kind: str, images: Tensor, tmp_path: Path) -> None:
    shared = Shared(kind)
    one, two = FeatureExtractor(shared), FeatureExtractor(shared, stage="conv")
    last = one.layers[-1]
    metric = SelectedFeatureIQM({"one": one, "two": two}, [f"two/{last}:1", f"one/{last}:2", "one/a:2"])
    metric.save(tmp_path / "metric")
    again = SelectedFeatureIQM.load(tmp_path / "metric", model=Shared(kind))
    assert torch.equal(again(*images), metric(*images))


@pytest.mark.parametrize("kind", ["weight", "everything", "module"])
def test_loaded_layers_go_on_sharing(kind: str, images: Tensor) -> None:
    extractor = FeatureExtractor(Shared(kind), weights=Shared(kind).state_dict())
    extractor.half().float()  # by which tensors that only share memory part
    before = extractor(images[0])["z"]
    last = extractor.network.get_submodule("z" if kind == "module" else "c")
    last.weight.data.zero_()  # type: ignore[operator, union-attr]
    assert not torch.equal(extractor(images[0])["z"], before)


def test_weights_that_differ_are_not_made_one(images: Tensor) -> None:
    untied = Shared("none")
    extractor = FeatureExtractor(Shared("weight"), weights=untied.state_dict())
    expected = FeatureExtractor(untied)
    assert torch.equal(extractor(images[0])["c"], expected(images[0])["c"])


@pytest.mark.parametrize("kind", ["weight", "buffer", "everything", "module"])
def test_files_that_hold_shared_tensors_once_are_read(kind: str, images: Tensor, tmp_path: Path) -> None:
    net = Shared(kind)
    save_model(net, str(tmp_path / "once.safetensors"))
    torch.save({f"module.{name}": value for name, value in net.state_dict().items()}, tmp_path / "all.pth")
    expected = FeatureExtractor(net)
    for file in ("once.safetensors", "all.pth"):
        extractor = FeatureExtractor(Shared(kind), weights=tmp_path / file)
        assert extractor.weights_sha256 == expected.weights_sha256
        for layer, maps in expected(images[0]).items():
            assert torch.equal(extractor(images[0])[layer], maps)


def test_a_tensor_that_no_other_stands_for_is_still_missing() -> None:
    state = Shared("weight").state_dict()
    del state["z.weight"], state["z.bias"]  # c.weight stands for the first
    with pytest.raises(WeightsError, match=r"do not fit the network; .* z\.bias is missing$"):
        FeatureExtractor(Shared("weight"), weights=state)


def test_a_score_matrix_of_shared_weights(images: Tensor) -> None:
    extractor = FeatureExtractor(Shared("everything"))
    scores = score_matrix(extractor, Demo(references=2, size=64, levels=2))
    assert scores.options["weights_sha256"] == extractor.weights_sha256


def test_tensors_that_share_memory_are_written_each(tmp_path: Path) -> None:
    whole = torch.arange(12.0).view(3, 4)
    tensors = {"a": whole, "b": whole, "row": whole[1], "turned": whole.T, "part": whole[:2], "none": whole[:0]}
    save_tensors(tmp_path / "x", "kind", tensors, {})
    loaded, _ = load_tensors(tmp_path / "x", "kind")
    assert loaded.keys() == tensors.keys()
    assert all(torch.equal(loaded[name], value) for name, value in tensors.items())
