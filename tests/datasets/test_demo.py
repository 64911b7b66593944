from __future__ import annotations

import itertools
import pickle
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch.utils.data import DataLoader

from fmiqa.datasets import CSVDataset, Demo, Sample
from fmiqa.datasets.distortions import DISTORTIONS, distort
from fmiqa.datasets.scenes import scene
from fmiqa.errors import InputError
from fmiqa.features.extractor import FeatureExtractor
from fmiqa.maps import MapIndex
from fmiqa.measures import SSIM


@pytest.fixture(scope="module")
def demo() -> Demo:
    return Demo()


@pytest.fixture(scope="module")
def small() -> Demo:
    return Demo(references=3, size=96, levels=2, seed=7)


def equal(a: Sample, b: Sample) -> bool:
    plain = ("score", "reference_id", "name", "distortion", "level", "score_std")
    return (
        all(getattr(a, field) == getattr(b, field) for field in plain)
        and torch.equal(a.reference, b.reference)
        and torch.equal(a.distorted, b.distorted)
    )


def test_sizes(demo: Demo) -> None:
    assert len(demo) == 16 * 6 * 5
    assert len(set(demo.names)) == len(demo)
    assert len(set(demo.reference_ids)) == 16
    assert demo.distortions is not None
    assert len(set(demo.distortions)) == 6
    assert demo.targets.shape == (480,)
    assert demo.targets.dtype == torch.float64
    sample = demo[-1]
    for image in (sample.reference, sample.distorted):
        assert image.shape == (3, 192, 192)
        assert image.dtype == torch.uint8
    assert (sample.name, sample.level) == (demo.names[-1], 5)
    with pytest.raises(IndexError):
        demo[480]


def test_its_scores_are_called_simulated(demo: Demo) -> None:
    assert demo.name == "Demo (simulated observer)"
    assert "simulated" in repr(demo)
    assert "simulated" in str(Demo.__doc__)


def test_its_network_is_that_of_random_weights_without_the_warning() -> None:
    with pytest.warns(UserWarning, match="random weights"):
        expected = FeatureExtractor("alexnet", weights=None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Demo.extractor().weights_sha256 == expected.weights_sha256


def test_scores_span_the_scale_and_fall_with_level(demo: Demo) -> None:
    by_level = demo.targets.view(16, 6, 5).mean((0, 1))
    assert (by_level.diff() < 0).all()
    assert demo.targets.min() < 1.5
    assert demo.targets.max() > 8
    # A fair share of the images on each third of the scale.
    thirds = torch.histc(demo.targets.float(), bins=3, min=0, max=9) / len(demo)
    assert thirds.min() > 0.15
    assert thirds.max() < 0.65


def test_references_are_distinct_colourful_and_natural_in_their_spectrum(demo: Demo) -> None:
    scenes = [demo[i * 30].reference.double() for i in range(16)]
    for a, b in itertools.combinations(scenes, 2):
        assert (a - b).square().mean() > 500  # a PSNR under 22 dB
    for image in scenes:
        assert (image.amax(0) - image.amin(0)).mean() > 20  # apart from grey
        assert image.std() > 30
        power = torch.fft.fft2(image.mean(0) - image.mean()).abs().square().numpy()
        radius = np.hypot(np.fft.fftfreq(192)[:, None], np.fft.fftfreq(192)) * 192
        bands = ndimage.mean(power, np.digitize(radius, [2, 4, 8, 16, 32, 64]), range(1, 6))
        slope = np.polyfit(range(5), np.log2(bands), 1)[0]
        assert -4 < slope < -1  # natural images lie near -2: power falls with 1/f^2


def test_severity_grows_with_level(demo: Demo) -> None:
    errors = torch.tensor([(s.distorted.double() - s.reference.double()).square().mean() for s in demo])
    assert (errors.view(16, 6, 5).diff(dim=-1) > 0).all()
    assert errors.view(16, 6, 5)[..., 0].max() < 500
    assert errors.view(16, 6, 5)[..., 4].mean(0).min() > 500


def test_gaussian_blur_against_scipy() -> None:
    image = scene(0, 96, seed=0)
    blurred = DISTORTIONS["Gaussian blur"](image, 5, 5, np.random.default_rng(0))
    expected = ndimage.gaussian_filter(image.double().numpy(), (0, 4.5, 4.5), mode="mirror", radius=(0, 14, 14))
    assert np.abs(blurred.numpy() - expected).max() <= 0.5 + 1e-3  # rounding to 8 bits


def test_white_noise_has_its_deviation() -> None:
    image = torch.full((3, 96, 96), 128, dtype=torch.uint8)
    noise = DISTORTIONS["white noise"](image, 3, 5, np.random.default_rng(0)).double() - 128
    # The middle of 3 and 45 in geometric steps; standard error of a deviation: sigma / sqrt(2 N) = .05
    assert noise.std().item() == pytest.approx((3 * 45) ** 0.5, abs=0.2)
    assert abs(noise.mean()) < 0.3


def test_desaturation_ends_in_grey_of_the_same_luma() -> None:
    image = scene(4, 96, seed=0)
    grey = DISTORTIONS["desaturation"](image, 5, 5, np.random.default_rng(0)).double()
    assert torch.equal(grey[0], grey[1])
    luma = (image.double() * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(0)
    assert (grey[2] - luma).abs().max() <= 0.5 + 1e-3


def test_quantization_has_few_values() -> None:
    coarse = DISTORTIONS["quantization"](scene(4, 96, seed=0), 5, 5, np.random.default_rng(0))
    assert coarse.unique().tolist() == [64, 192]


def test_same_options_same_bits(small: Demo) -> None:
    again = Demo(references=3, size=96, levels=2, seed=7)
    assert torch.equal(again.targets, small.targets)
    assert all(equal(a, b) for a, b in zip(again, small, strict=True))


def test_seed_changes_scenes_noise_and_scores(small: Demo) -> None:
    other = Demo(references=3, size=96, levels=2, seed=8)
    assert not torch.equal(other.targets, small.targets)
    assert not torch.equal(other[0].reference, small[0].reference)
    residual = [(d[0].distorted.int() - d[0].reference.int()) for d in (other, small)]
    assert not torch.equal(*residual)


def test_scores_follow_the_stated_formula() -> None:
    options = {"references": 2, "size": 96, "levels": 2, "planted": ["conv1:5", "conv2:7"]}
    clean = Demo(noise=0, **options)  # type: ignore[arg-type]
    assert clean.planted == MapIndex(["conv1:5", "conv2:7"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        extractor = FeatureExtractor("alexnet", weights=None, seed=0)
    for sample, score in zip(clean, clean.targets.tolist(), strict=True):
        # Every map of one image alone, unlike the demo's batches of planted maps.
        test, reference = extractor(sample.distorted[None]), extractor(sample.reference[None])
        q = sum(SSIM()(test[m.layer], reference[m.layer])[0, m.channel].item() for m in clean.planted) / 2
        # Scores are rounded to 1e-4; they rise by at most 19 = 9 / (4 * .12) a unit of q, good to 1e-6.
        assert score == pytest.approx(9 / (1 + np.exp(-(q - 0.75) / 0.12)), abs=2e-4)
        assert sample.score == score


def test_noise_has_its_deviation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Demo, "_simulated_quality", lambda self: torch.full((len(self._items),), 0.75).double())
    noisy = Demo(references=40, size=96, noise=0.5)
    # 1200 draws: standard errors 0.014 of the mean and 0.010 of the deviation; four of each
    assert noisy.targets.mean().item() == pytest.approx(4.5, abs=0.06)
    assert noisy.targets.std().item() == pytest.approx(0.5, abs=0.04)


def test_warns_of_nothing(recwarn: pytest.WarningsRecorder) -> None:
    Demo(references=1, size=64, levels=1)
    assert not recwarn.list


def test_pickle_and_workers(small: Demo) -> None:
    copy = pickle.loads(pickle.dumps(small))
    assert copy.planted == small.planted
    assert torch.equal(copy.targets, small.targets)
    loaded = DataLoader(small, batch_size=None, num_workers=2)
    assert all(equal(a, b) and equal(a, c) for a, b, c in zip(small, copy, loaded, strict=True))


def test_check_has_nothing_to_do(small: Demo) -> None:
    small.check(progress=True)


def test_write_is_what_a_csv_data_set_reads(small: Demo, tmp_path: Path) -> None:
    table = small.write(tmp_path / "new" / "demo")
    again = CSVDataset(
        table,
        reference_id="reference_id",
        image_name="name",
        distortion="distortion",
        level="level",
        name=small.name,
    )
    again.check()
    assert repr(again) == repr(small)
    assert torch.equal(again.targets, small.targets)
    assert all(equal(a, b) for a, b in zip(again, small, strict=True))
    small.write(tmp_path / "new" / "demo")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"references": 0}, "at least one reference"),
        ({"levels": 0}, "at least one reference and one level"),
        ({"size": 63}, "at least 64 pixels a side, got 63"),
        ({"noise": -1}, "noise is a standard deviation"),
        ({"noise": float("nan")}, "noise is a standard deviation"),
        ({"seed": -1}, "seed is a whole number from 0"),
        ({"planted": ["conv9:1"], "references": 1, "size": 96}, "conv9:1"),
    ],
)
def test_options_out_of_range(options: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        Demo(**options)  # type: ignore[arg-type]


@pytest.mark.slow
def test_selection_finds_the_planted_maps_again(demo: Demo) -> None:
    from fmiqa.selection import forward_select

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        extractor = FeatureExtractor("alexnet", weights=None, seed=0)
    rows = []
    with torch.inference_mode():
        for start in range(0, len(demo), 30):
            samples = [demo[i] for i in range(start, start + 30)]
            images = torch.stack([samples[0].reference, *(s.distorted for s in samples)])
            rows.append(torch.cat([SSIM()(x[1:], x[:1]) for _, x in extractor.features(images)], 1))
    selection = forward_select(torch.cat(rows), demo.targets, max_maps=5)
    chosen = [extractor.maps[m.channel] for m in selection.maps]  # plain columns are named map:0, map:1, ...
    assert set(chosen[:4]) == set(demo.planted)
    # Each of them counts, and nothing is left for a fifth.
    gains = torch.tensor([float(value) for value in selection.curve]).diff()
    assert gains[:3].min() > 0.01
    assert gains[3:].sum() < 0.001


def test_construction_is_cheap() -> None:
    start = time.process_time()
    Demo(references=4)
    # A quarter of the default set: about 1 s of one core. The bound leaves room for slow machines.
    assert time.process_time() - start < 8


@pytest.mark.parametrize("kind", DISTORTIONS)
def test_distort_keeps_the_form_and_the_image(kind: str, device: torch.device) -> None:
    image = scene(0, 48, seed=0).to(device)
    before = image.clone()
    images = [distort(image, kind, level=level, levels=3) for level in (1, 2, 3)]
    assert torch.equal(image, before)
    assert all((x.shape, x.dtype, x.device) == (image.shape, torch.uint8, image.device) for x in images)
    errors = [(x.double() - image).square().mean().item() for x in images]
    assert 0 < errors[0] < errors[1] < errors[2]
    other = distort(image, kind, level=2, levels=3, seed=1)
    assert torch.equal(other, images[1]) == (kind != "white noise")


def test_distort_refuses_what_it_cannot_do() -> None:
    image = scene(0, 48, seed=0)
    for given, options, message in (
        (image, {"kind": "jpeg", "level": 1}, "kind is one of 'white noise', .*'JPEG', .*'quantization', got 'jpeg'"),
        (image / 255, {"kind": "JPEG", "level": 1}, "uint8 from 0 to 255, got torch.float32"),
        (image[None], {"kind": "JPEG", "level": 1}, r"got \(1, 3, 48, 48\)"),
        (image, {"kind": "JPEG", "level": 0}, "from 1 to levels, got level 0 of 5"),
        (image, {"kind": "JPEG", "level": 4, "levels": 3}, "got level 4 of 3"),
        (image, {"kind": "JPEG", "level": 1, "seed": -1}, "seed is a whole number from 0, got -1"),
        (image[:, :14], {"kind": "Gaussian blur", "level": 5}, "14x48 pixels is too small .* more than 14"),
    ):
        with pytest.raises(InputError, match=message):
            distort(given, **options)
    assert distort(image[:, :15], "Gaussian blur", level=5).shape == (3, 15, 48)
