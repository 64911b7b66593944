"""`evaluate`: the metric's own scores, the data set's targets and groups, peers beside them."""

from __future__ import annotations

import pytest
import torch

import fmiqa
from fmiqa import FeatureExtractor, SelectedFeatureIQM, datasets
from fmiqa.evaluation.evaluate import evaluate, metric_scores
from fmiqa.evaluation.peers import peer_scores
from fmiqa.features.checkpoints import seeded_state
from fmiqa.features.networks import blank_network


@pytest.fixture(scope="module")
def data() -> torch.utils.data.Subset[datasets.Sample]:
    return torch.utils.data.Subset(datasets.Demo(references=5, levels=2), range(48))


@pytest.fixture(scope="module")
def iqm() -> SelectedFeatureIQM:
    state = seeded_state(blank_network("alexnet"), seed=0)
    return SelectedFeatureIQM(FeatureExtractor("alexnet", weights=state), ["conv1:44", "conv2:3"])


def test_scores_are_the_metrics(iqm: SelectedFeatureIQM, data: torch.utils.data.Subset[datasets.Sample]) -> None:
    found = metric_scores(iqm, data)
    for i in (0, 13, 47):
        alone = iqm(data[i].distorted[None], data[i].reference[None])
        # Maps in float32 differ between batches by some 1e-6 of their range, and SSIM by up to 100 times as much.
        assert float(found[i]) == pytest.approx(float(alone), abs=1e-4)


def test_table_agrees_with_the_coefficients(
    iqm: SelectedFeatureIQM, data: torch.utils.data.Subset[datasets.Sample]
) -> None:
    table = evaluate(iqm, data, resamples=20)
    targets = torch.tensor([data[i].score for i in range(len(data))], dtype=torch.float64)
    found = metric_scores(iqm, data)
    assert table.agreements[0].srocc.value == pytest.approx(float(fmiqa.srocc(found, targets)))
    assert table.agreements[0].plcc.value == pytest.approx(float(fmiqa.plcc(found, targets)))


def test_peers_are_turned_so_that_higher_is_better(data: torch.utils.data.Subset[datasets.Sample]) -> None:
    pytest.importorskip("piq")
    part = torch.utils.data.Subset(data, range(6))
    scores = peer_scores(part, ["PSNR", "GMSD"])
    mse = [float((part[i].distorted.double() - part[i].reference.double()).square().mean()) for i in range(6)]
    expected = 10 * torch.log10(255**2 / torch.tensor(mse, dtype=torch.float64))
    torch.testing.assert_close(scores["PSNR"], expected, atol=1e-3, rtol=0)  # piq adds 1e-8 to MSEs above 1e-4
    assert bool((scores["GMSD"] <= 0).all())


def test_errors(iqm: SelectedFeatureIQM, data: torch.utils.data.Subset[datasets.Sample]) -> None:
    with pytest.raises(fmiqa.InputError, match="nothing to evaluate"):
        evaluate({}, data)
    with pytest.raises(fmiqa.InputError, match="name of a peer"):
        evaluate({"SSIM": iqm}, data, peers=["SSIM"])
    with pytest.raises(fmiqa.InputError, match="no peer metric XYZ"):
        peer_scores(data, ["XYZ"])


def test_images_are_scored_in_batches_as_they_are_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    data = torch.utils.data.Subset(datasets.Demo(references=2, levels=2), range(20))
    extractor = FeatureExtractor("alexnet", weights=None, layers=["conv1"])
    metric = SelectedFeatureIQM(extractor, ["conv1:44", "conv1:3"])
    sizes: list[int] = []
    forward = SelectedFeatureIQM.forward
    monkeypatch.setattr(SelectedFeatureIQM, "forward", lambda s, t, r: sizes.append(len(t)) or forward(s, t, r))
    found = metric_scores(metric, data)  # type: ignore[arg-type]
    assert max(sizes) > 1
    assert sum(sizes) == len(data)
    alone = [float(metric(s.distorted[None], s.reference[None])) for s in data]
    # float32: sums over a map's positions in another order
    torch.testing.assert_close(found, torch.tensor(alone, dtype=torch.float64), rtol=0, atol=1e-6)
