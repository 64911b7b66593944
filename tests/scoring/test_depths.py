"""Images of 8 and of 16 bits beside each other: 16 bits are float32 in [0, 1], whatever they pass through."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from image_files import ADOBE_RGB, png, profile
from PIL import Image
from torch.utils.data import DataLoader

from fmiqa import AllFeatureIQM, FeatureExtractor, read_image, score_matrix
from fmiqa.datasets import Batch, CSVDataset, Sample, base
from fmiqa.errors import DatasetError
from fmiqa.evaluation.evaluate import _walk

DEPTHS = [(8, 8), (8, 16), (16, 8), (16, 16)]


@pytest.fixture(scope="module")
def extractor() -> FeatureExtractor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return FeatureExtractor("alexnet", weights=None, layers=["conv1"])


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> CSVDataset:
    """Two pairs of pictures in each combination of depths; 16-bit files have 257 times the values of the others."""
    folder, rng = tmp_path_factory.mktemp("study"), np.random.default_rng(0)
    lines = ["reference,distorted,score,group,name"]
    for number in range(2):
        for role in "rd":
            pixels = rng.integers(0, 256, (64, 72, 3), dtype=np.uint8)
            (folder / f"{role}{number}-8.png").write_bytes(png(pixels))
            (folder / f"{role}{number}-16.png").write_bytes(png(pixels.astype(np.uint16) * 257))
        lines += [f"r{number}-{a}.png,d{number}-{b}.png,{number + a / b},r{number},{number} {a} {b}" for a, b in DEPTHS]
    (folder / "scores.csv").write_text("\n".join(lines))
    return CSVDataset(folder / "scores.csv", reference_id="group", image_name="name")


def test_pixels_are_those_of_eight_bits(study: CSVDataset) -> None:
    study.check()
    assert study[1].distorted.dtype == torch.float32
    for eight, sixteen in ((study[0].reference, study[3].reference), (study[4].distorted, study[5].distorted)):
        assert torch.equal(eight.float() / 255, sixteen)  # v / 255 = 257 v / 65535, each rounded once


@pytest.mark.parametrize("workers", [0, 2])
def test_a_score_matrix_of_mixed_depths(extractor: FeatureExtractor, study: CSVDataset, workers: int) -> None:
    scores = score_matrix(extractor, study, workers=workers).values.unflatten(0, (2, 4))
    # The same numbers pass through the network, in batches of other sizes: as in test_run.py.
    torch.testing.assert_close(scores, scores[:, :1].expand_as(scores), rtol=0, atol=1e-3)
    assert (scores[0] - scores[1]).abs().max() > 1e-2
    floats = [
        Sample(s.reference.float() / 255 if s.reference.dtype == torch.uint8 else s.reference, s.distorted, s.score,
               s.reference_id, s.name)
        for s in study
    ]  # fmt: skip
    assert torch.allclose(score_matrix(extractor, floats).values, scores.flatten(0, 1), rtol=0, atol=1e-3)


def test_metrics_and_loaders(extractor: FeatureExtractor, study: CSVDataset) -> None:
    iqm = AllFeatureIQM(extractor)
    (batch,) = DataLoader(study, batch_size=8)
    assert isinstance(batch, Batch)
    assert batch.reference.dtype == batch.distorted.dtype == torch.float32
    assert torch.equal(batch.distorted[4], study[5].distorted)
    qualities = iqm(batch.distorted, batch.reference)
    single = torch.stack([iqm(s.distorted[None], s.reference[None])[0] for s in study])
    torch.testing.assert_close(qualities, single, rtol=0, atol=1e-3)  # as above
    assert iqm.error_map(study[1].distorted[None], study[1].reference[None]).shape == (1, 1, 64, 72)
    walked = _walk({"all": iqm}, study, progress=False)[0]["all"]
    torch.testing.assert_close(walked.float(), single, rtol=0, atol=1e-3)


def test_items_are_told_apart_by_how_files_become_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 4), dtype=np.uint8)
    for name, picture in zip("rd", pixels, strict=True):
        Image.fromarray(picture).save(tmp_path / f"{name}.png")
    (tmp_path / "scores.csv").write_text("reference,distorted,score\nr.png,d.png,1\n")
    with pytest.raises(DatasetError, match="transparent pixels"):
        CSVDataset(tmp_path / "scores.csv").check()
    white, black = (CSVDataset(tmp_path / "scores.csv", background=name) for name in ("white", "black"))
    assert torch.equal(white[0].distorted, read_image(tmp_path / "d.png", background=(255, 255, 255)))
    assert white.digest(0) == CSVDataset(tmp_path / "scores.csv", background="#fff").digest(0) != black.digest(0)
    before = black.digest(0)
    Image.fromarray(pixels[0]).save(tmp_path / "r.png", icc_profile=profile((563,), ADOBE_RGB))
    profiled = black.digest(0)
    monkeypatch.setattr("fmiqa.datasets.base.is_converted", lambda _: False)
    base._sha256.cache_clear()
    assert len({before, profiled, black.digest(0)}) == 3  # the last as earlier versions, which applied no profile
