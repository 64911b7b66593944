"""Weights that change after a metric was made: scores and records are those of the weights as they are."""

from __future__ import annotations

import copy
import functools
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune
from torch.utils.data import Subset

from fmiqa import (
    FeatureExtractor,
    InputError,
    ResumeError,
    SelectedFeatureIQM,
    Selection,
    Viewing,
    forward_select,
    score_matrix,
)
from fmiqa.datasets import Demo, ImageDataset, Record, Sample
from fmiqa.features.checkpoints import fingerprint, shared_names
from fmiqa.measures import Custom
from fmiqa.scoring import run as scoring
from fmiqa.scoring.matrix import check_same_computation
from fmiqa.scoring.parts import ScorePart

MAPS = ["conv2:3", "conv1:5"]


def seeded(seed: int = 0, **options: Any) -> FeatureExtractor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return FeatureExtractor("alexnet", weights=None, layers=["conv1", "conv2"], seed=seed, **options)


@pytest.fixture
def extractor() -> FeatureExtractor:
    return seeded()


@pytest.fixture
def images() -> Tensor:
    return torch.rand(2, 1, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def copied(p: Tensor, q: Tensor) -> None:
    p.data.copy_(q)


def replaced(p: Tensor, q: Tensor) -> None:
    p.data = q.detach().clone()


def averaged(p: Tensor, q: Tensor) -> None:
    p.data.mul_(0.25).add_(q.data, alpha=0.75)


def through_numpy(p: Tensor, q: Tensor) -> None:
    p.detach().numpy()[...] = q.detach().numpy()


def in_place(p: Tensor, q: Tensor) -> None:
    with torch.no_grad():
        p.copy_(q)


# Scores


@pytest.mark.parametrize("change", [copied, replaced, averaged, through_numpy, in_place])
@pytest.mark.parametrize("name", ["alexnet", "vgg11"])
def test_scores_are_those_of_the_weights_as_they_are(
    images: Tensor, name: str, change: Callable[[Tensor, Tensor], None]
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        one, other = (FeatureExtractor(name, weights=None, seed=seed) for seed in (0, 1))
    maps = [f"{one.layers[2]}:3", f"{one.layers[0]}:5"]
    used = SelectedFeatureIQM(one, maps)
    source = SelectedFeatureIQM(other, maps)
    fresh = copy.deepcopy(used)
    before = used(*images)
    used.prepare(images[1])
    for metric in (used, fresh):
        for p, q in zip(metric.parameters(), source.parameters(), strict=True):
            change(p, q)
    assert torch.equal(used(*images), fresh(*images))
    assert not torch.equal(used(*images), before)
    if change is not averaged:
        assert torch.equal(used(*images), source(*images))
        assert torch.equal(used(images[0], used.prepare(images[1])), source(*images))
    used.load_state_dict(source.state_dict())
    assert torch.equal(used(*images), source(*images))


def test_scores_follow_casts_pruning_and_parametrizations(extractor: FeatureExtractor, images: Tensor) -> None:
    used = SelectedFeatureIQM(extractor, MAPS)
    fresh = copy.deepcopy(used)
    used(*images)
    assert torch.equal(used.bfloat16().float()(*images), fresh.bfloat16().float()(*images))

    used(*images)
    first, second = (next(m for m in metric.modules() if isinstance(m, nn.Conv2d)) for metric in (used, fresh))
    prune.l1_unstructured(first, "weight", 0.9)
    with torch.no_grad():
        second.weight.copy_(first.weight)
    torch.testing.assert_close(used(*images), fresh(*images), rtol=0, atol=1e-6)  # all filters are run, or some
    prune.remove(first, "weight")
    assert torch.equal(used(*images), fresh(*images))

    class Halved(nn.Module):
        def forward(self, weight: Tensor) -> Tensor:
            return weight / 2

    parametrize.register_parametrization(first, "weight", Halved())
    with torch.no_grad():
        second.weight.div_(2)
    torch.testing.assert_close(used(*images), fresh(*images), rtol=0, atol=1e-6)


def test_a_pruned_network_is_taken_as_it_is(images: Tensor) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    prune.random_unstructured(net[0], "weight", 0.5)
    normalised = FeatureExtractor(nn.Sequential(nn.Identity(), *net)).normalize(images[0])
    torch.testing.assert_close(FeatureExtractor(net)(images[0])["0"], net(normalised))


def test_other_parameters_for_one_call(extractor: FeatureExtractor, images: Tensor) -> None:
    iqm, source = (SelectedFeatureIQM(e, MAPS) for e in (extractor, seeded(1)))
    expected = iqm(*images)
    changed = torch.func.functional_call(iqm, dict(source.named_parameters()), tuple(images))
    assert torch.equal(changed, source(*images))
    assert torch.equal(iqm(*images), expected)


# Records


def test_the_fingerprint_is_of_the_weights_as_they_are(extractor: FeatureExtractor) -> None:
    other = seeded(1)
    before = extractor.weights_sha256
    assert before == seeded().weights_sha256 != other.weights_sha256
    for parameter in extractor.parameters():
        parameter.data.add_(1e-3)
    changed = extractor.weights_sha256
    assert changed not in (before, other.weights_sha256)
    assert changed[:12] in repr(extractor)
    extractor.network.load_state_dict(other.network.state_dict())
    assert extractor.weights_sha256 == other.weights_sha256 == fingerprint(other.network.state_dict())


def test_a_kept_part_has_the_fingerprint_of_the_whole_while_it_is_unchanged(extractor: FeatureExtractor) -> None:
    part = extractor.keep(["conv1"])
    whole = extractor.weights_sha256
    assert part.weights_sha256 == part.keep(["conv1"]).weights_sha256 == whole
    for clone in (copy.deepcopy(part), pickle.loads(pickle.dumps(part)), copy.deepcopy(part).double()):
        assert clone.weights_sha256 == whole
    saved = {name: value.clone() for name, value in part.network.state_dict().items()}
    part.network.get_parameter("features.0.bias").data[0] += 1
    changed = part.weights_sha256
    assert changed == fingerprint(part.network.state_dict()) != whole
    assert part.keep(["conv1"]).weights_sha256 == changed
    part.network.load_state_dict(saved)
    assert part.weights_sha256 == whole
    for parameter in extractor.parameters():
        parameter.data.mul_(2)
    assert extractor.keep(["conv1"]).weights_sha256 == extractor.weights_sha256 != whole


def test_widening_changes_no_fingerprint_and_rounding_does(extractor: FeatureExtractor) -> None:
    before = extractor.weights_sha256
    double = copy.deepcopy(extractor).double()
    assert double.weights_sha256 == before
    next(double.network.parameters()).data.flatten()[0] += 1e-12  # not to be seen in float32
    assert double.weights_sha256 != before
    rounded = {copy.deepcopy(extractor).half().weights_sha256, copy.deepcopy(extractor).half().float().weights_sha256}
    assert len({before, *rounded}) == 3


def test_scoring_does_not_take_fingerprints(
    extractor: FeatureExtractor, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    iqm = SelectedFeatureIQM(extractor, MAPS)
    monkeypatch.setattr("fmiqa.features.checkpoints.fingerprint", None)
    iqm(images[0], iqm.prepare(images[1]))


def test_a_saved_metric_records_and_holds_the_changed_weights(
    extractor: FeatureExtractor, images: Tensor, tmp_path: Path
) -> None:
    iqm = SelectedFeatureIQM(extractor, MAPS)
    whole = iqm.source["weights_sha256"]
    iqm.save(tmp_path / "before")
    for parameter in iqm.parameters():
        parameter.data.mul_(0.9)
    assert iqm.source["weights_sha256"] != whole == extractor.weights_sha256
    iqm.save(tmp_path / "after")
    for name, expected in (("before", whole), ("after", iqm.source["weights_sha256"])):
        again = SelectedFeatureIQM.load(tmp_path / name)
        assert again.source["weights_sha256"] == expected
        next(again.parameters()).data.add_(1)
        assert again.source["weights_sha256"] != expected
    assert torch.equal(SelectedFeatureIQM.load(tmp_path / "after")(*images), iqm(*images))


def test_a_selection_is_refused_for_weights_that_have_changed_since(extractor: FeatureExtractor) -> None:
    scores = score_matrix(extractor, Demo(references=3, size=64, levels=2), maps=MAPS)
    selection = forward_select(scores)
    SelectedFeatureIQM.from_selection(extractor, selection)
    SelectedFeatureIQM.from_selection(copy.deepcopy(extractor).double(), selection)
    next(extractor.parameters()).data.mul_(1.01)
    with pytest.raises(InputError, match="weights_sha256"):
        SelectedFeatureIQM.from_selection(extractor, selection)


def test_the_normalisation_is_recorded_where_it_is_not_imagenets(
    extractor: FeatureExtractor, images: Tensor, tmp_path: Path
) -> None:
    usual = score_matrix(extractor, Demo(references=2, size=64, levels=2), maps=MAPS)
    assert usual.options["normalization"] is None
    other = copy.deepcopy(extractor)
    other.mean.fill_(0.5)
    other.std.fill_(0.25)
    iqm = SelectedFeatureIQM(other, MAPS)
    assert iqm.source["normalization"] == {"mean": [0.5] * 3, "std": [0.25] * 3}
    with pytest.raises(InputError, match=r"differently \(normalization: [^;]*\); compute"):
        check_same_computation(usual.options, iqm.source, name="one", other_name="other")
    iqm.save(tmp_path / "metric")
    assert torch.equal(SelectedFeatureIQM.load(tmp_path / "metric")(*images), iqm(*images))
    with pytest.raises(InputError, match="normalization"):
        SelectedFeatureIQM.from_selection(other, Selection(usual.maps, (), 0.5, source=usual.options))


def test_the_stage_cannot_be_changed_later(extractor: FeatureExtractor) -> None:
    with pytest.raises(AttributeError):
        extractor.stage = "conv"  # type: ignore[misc]
    assert extractor.stage == "relu"


def test_pickles_of_version_0_1(extractor: FeatureExtractor) -> None:
    """They hold the stage and the fingerprint as attributes."""
    state = extractor.__getstate__()
    del state["_identity"]
    old = FeatureExtractor.__new__(FeatureExtractor)
    old.__setstate__({**state, "stage": state.pop("_stage"), "weights_sha256": "of the whole"})
    assert (old.stage, old.weights_sha256) == ("relu", "of the whole")
    next(old.network.parameters()).data.add_(1)
    assert old.weights_sha256 == fingerprint(old.network.state_dict())


# Stopped runs


@pytest.fixture
def stop(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Runs a score matrix that is stopped after two parts."""

    def run(*args: Any, **options: Any) -> None:
        real = scoring._ScoreRun.compute

        def stopping(self: Any, numbers: Any) -> Any:
            for done, part in enumerate(real(self, numbers)):
                if done == 2:
                    raise KeyboardInterrupt
                yield part

        with monkeypatch.context() as patch:
            patch.setattr(scoring._ScoreRun, "compute", stopping)
            with pytest.raises(KeyboardInterrupt):
                score_matrix(*args, **options)

    return run


def doubled(extractor: FeatureExtractor) -> None:
    extractor.double()


def trained(extractor: FeatureExtractor) -> None:
    next(extractor.parameters()).data.add_(1e-4)


def seen_otherwise(extractor: FeatureExtractor) -> None:
    extractor.viewing = Viewing(factor=0.5)


def coarser(extractor: FeatureExtractor) -> None:
    extractor.precision = "bfloat16"


def normalised_otherwise(extractor: FeatureExtractor) -> None:
    extractor.mean.add_(0.1)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (trained, "weights_sha256"),
        (doubled, "dtype"),
        (seen_otherwise, "viewing"),
        (coarser, "precision"),
        (normalised_otherwise, "normalization"),
    ],
)
def test_a_stopped_run_does_not_go_on_with_another_network(
    stop: Callable[..., None],
    tmp_path: Path,
    extractor: FeatureExtractor,
    change: Callable[[FeatureExtractor], None],
    named: str,
) -> None:
    data = Demo(references=3, size=64, levels=2)
    stop(extractor, data, maps=MAPS, save=tmp_path / "x")
    changed = copy.deepcopy(extractor)
    change(changed)
    with pytest.raises(ResumeError, match=f"other {named}"):
        score_matrix(changed, data, maps=MAPS, save=tmp_path / "x")
    resumed = score_matrix(extractor, data, maps=MAPS, save=tmp_path / "x")
    assert torch.equal(resumed.values, score_matrix(extractor, data, maps=MAPS).values)


class Moded(nn.Module):
    def __init__(self, mode: str, gain: float = 1.0) -> None:
        super().__init__()
        self.mode = mode
        torch.manual_seed(0)
        self.conv, self.pool = nn.Conv2d(3, 4, 5), nn.MaxPool2d(2) if mode == "max" else nn.AvgPool2d(2)
        self.last = nn.Conv2d(4, 4, 3)
        self.register_buffer("gain", torch.tensor(gain), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x) * self.gain
        return self.last(self.pool(y.abs() if self.mode == "abs" else y.relu()))  # type: ignore[no-any-return]


def test_operations_and_constants_tell_networks_of_the_same_weights_apart(
    stop: Callable[..., None], tmp_path: Path
) -> None:
    networks = [FeatureExtractor(Moded(*given)) for given in (("max",), ("avg",), ("abs",), ("max", 2.0))]
    assert len({n.weights_sha256 for n in networks[:3]}) == 1  # older versions of torch count the last one's constant
    assert len({(n.operations_sha256, n.weights_sha256) for n in networks}) == len(networks)
    for same in (copy.deepcopy(networks[0]), pickle.loads(pickle.dumps(networks[0])), FeatureExtractor(Moded("max"))):
        assert same.operations_sha256 == networks[0].operations_sha256
    data = Demo(references=3, size=64, levels=2)
    stop(networks[0], data, save=tmp_path / "x")
    for other in networks[1:]:
        with pytest.raises(ResumeError, match=r"operations_sha256|weights_sha256"):
            score_matrix(other, data, save=tmp_path / "x")


def test_buffers_that_a_state_dict_leaves_out_are_saved_with_a_metric(images: Tensor, tmp_path: Path) -> None:
    iqm = SelectedFeatureIQM(FeatureExtractor(Moded("max", 3.0)), ["last:1"])
    iqm.save(tmp_path / "metric")
    again = SelectedFeatureIQM.load(tmp_path / "metric", model=Moded("max", 1.0))
    assert torch.equal(again(*images), iqm(*images))


def scaled(test: Tensor, reference: Tensor, scale: Any = 1.0) -> Tensor:
    return (scale * (test - reference)).abs().mean((-2, -1))


class Scaled(nn.Module):
    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale))

    def forward(self, test: Tensor, reference: Tensor) -> Tensor:
        return scaled(test, reference, self.scale)


def closing_over(scale: object) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda test, reference: scaled(test, reference, scale)


class Holding:
    def __init__(self, scale: float) -> None:
        self.options = {"scale": scale}

    def compare(self, test: Tensor, reference: Tensor) -> Tensor:
        return scaled(test, reference, self.options["scale"])


@pytest.mark.parametrize(
    "make",
    [
        lambda scale: functools.partial(scaled, scale=scale),
        lambda scale: functools.partial(scaled, scale=torch.tensor(scale)),
        Scaled,
        closing_over,
        lambda scale: closing_over([{"a": (scale, None)}]),
        lambda scale: Holding(scale).compare,
    ],
)
def test_what_a_measure_of_ones_own_holds_is_part_of_a_run(
    make: Callable[[float], Any], stop: Callable[..., None], tmp_path: Path, extractor: FeatureExtractor
) -> None:
    first, same, other = (Custom(make(scale), higher_is_better=False) for scale in (1.0, 1.0, 2.0))
    assert first.parameters_sha256 == same.parameters_sha256 != other.parameters_sha256
    if isinstance(first.function, functools.partial):
        data = Demo(references=3, size=64, levels=2)
        stop(extractor, data, maps=MAPS, measure=first, save=tmp_path / "x")
        with pytest.raises(ResumeError, match="measure_sha256"):
            score_matrix(extractor, data, maps=MAPS, measure=other, save=tmp_path / "x")
        score_matrix(extractor, data, maps=MAPS, measure=same, save=tmp_path / "x")


def test_a_measure_may_hold_itself() -> None:
    holding = Holding(1.0)
    holding.options["own"] = holding.compare  # type: ignore[assignment]
    assert len(Custom(holding.compare, higher_is_better=True).parameters_sha256) == 64


@pytest.fixture
def records(tmp_path: Path) -> list[Record]:
    """Three references with two test images each, as files."""
    made = []
    for r in range(3):
        for k, name in enumerate((f"r{r}", f"r{r}_a", f"r{r}_b")):
            pixels = torch.randint(0, 256, (64, 64, 3), generator=torch.Generator().manual_seed(10 * r + k))
            Image.fromarray(pixels.byte().numpy()).save(tmp_path / f"{name}.png")
            if k:
                made.append(Record(tmp_path / f"r{r}.png", tmp_path / f"{name}.png", r + k / 4, f"r{r}", name))
    return made


@pytest.mark.parametrize("file", ["r1_b.png", "r0.png", None])
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_stopped_run_notices_other_images_or_scores_under_the_same_names(
    stop: Callable[..., None],
    tmp_path: Path,
    extractor: FeatureExtractor,
    records: list[Record],
    file: str | None,
    wrapped: bool,
) -> None:
    def data() -> Any:
        images = ImageDataset(records, name="files")
        return Subset(images, [4, 0, 1, 2, 3]) if wrapped else images

    save = tmp_path / "out" / "x"
    stop(extractor, data(), maps=MAPS, save=save)
    if file is None:
        part = 1 if wrapped else 3
        records[part] = Record(**{**vars(records[part]), "score": 9.0})
    else:
        pixels = Image.open(tmp_path / file).transpose(Image.Transpose.FLIP_TOP_BOTTOM)
        pixels.save(tmp_path / file)
    if wrapped and file == "r1_b.png":  # in no finished part
        score_matrix(extractor, data(), maps=MAPS, save=save)
    else:
        with pytest.raises(ResumeError, match=r"has changed since part \d was finished"):
            score_matrix(extractor, data(), maps=MAPS, save=save)


def test_a_stopped_run_goes_on_where_files_were_only_moved(
    stop: Callable[..., None], tmp_path: Path, extractor: FeatureExtractor, records: list[Record]
) -> None:
    stop(extractor, ImageDataset(records, name="files"), maps=MAPS, save=tmp_path / "x")
    folder = tmp_path / "moved"
    folder.mkdir()
    for path in tmp_path.glob("*.png"):
        (folder / path.name).write_bytes(path.read_bytes())
        path.unlink()
    moved = [
        Record(folder / r.reference.name, folder / r.distorted.name, r.score, r.reference_id, r.name) for r in records
    ]
    data = ImageDataset(moved, name="files")
    resumed = score_matrix(extractor, data, maps=MAPS, save=tmp_path / "x")
    assert torch.equal(resumed.values, score_matrix(extractor, data, maps=MAPS).values)


def test_a_stopped_run_notices_other_samples_in_memory(
    stop: Callable[..., None], tmp_path: Path, extractor: FeatureExtractor
) -> None:
    images = torch.randint(0, 256, (7, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))

    def data() -> list[Sample]:
        return [Sample(images[i % 3], images[3 + i], float(i), f"r{i % 3}", f"i{i}") for i in range(4)]

    stop(extractor, data(), maps=MAPS, save=tmp_path / "x")
    images[6, 0, 0, 0] ^= 1  # the last item, which is in the first part
    with pytest.raises(ResumeError, match="item 3, 'i3', has changed since part 0"):
        score_matrix(extractor, data(), maps=MAPS, save=tmp_path / "x")
    images[6, 0, 0, 0] ^= 1
    score_matrix(extractor, data(), maps=MAPS, save=tmp_path / "x")


def test_parts_of_version_0_1_are_taken_up(
    stop: Callable[..., None], tmp_path: Path, extractor: FeatureExtractor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They have no digests, and their run says nothing of operations, measure and normalisation."""
    data = Demo(references=3, size=64, levels=2)
    new = ("operations_sha256", "measure_sha256", "normalization")
    real, kept = scoring._ScoreRun.describe, ScorePart.to_dict
    with monkeypatch.context() as patch:
        patch.setattr(
            scoring._ScoreRun, "describe", lambda s, **of: {k: v for k, v in real(s, **of).items() if k not in new}
        )
        patch.setattr(ScorePart, "to_dict", lambda s: {k: v for k, v in kept(s).items() if k != "digests"})
        stop(extractor, data, maps=MAPS, save=tmp_path / "x")
    resumed = score_matrix(extractor, data, maps=MAPS, save=tmp_path / "x")
    assert torch.equal(resumed.values, score_matrix(extractor, data, maps=MAPS).values)


def test_names_of_one_tensor() -> None:
    a, flat = torch.zeros(3), torch.zeros(4, 2)
    state = {"a": a, "b": a, "rows": flat[:2], "other rows": flat[2:], "meta": torch.zeros(3, device="meta")}
    assert shared_names({**state, "c": a.detach(), "turned": flat[:2].T}) == [["a", "b", "c"]]
