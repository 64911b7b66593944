"""Metrics as ONNX models give in onnxruntime what they give in PyTorch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fmiqa
from fmiqa import FeatureExtractor, InputError, SelectedFeatureIQM, Viewing, export_onnx
from fmiqa.features.checkpoints import seeded_state
from fmiqa.features.networks import blank_network
from fmiqa.measures import Custom

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
pytestmark = pytest.mark.skipif(
    tuple(map(int, torch.__version__.split(".")[:2])) < (2, 9),
    reason="this version of torch cannot record a metric whole",
)

# Both compute in float32 with convolutions that add up in another order: of up to 2400 products a filter, which random
# errors of 2**-24 each, over a windowed variance that is down to c2 = 9e-4 of the largest, take to some 1e-6 of a map's
# score. Seen: 1.5e-6 with AlexNet's, 1.7e-6 with those of `fast`.
CLOSE: dict[str, Any] = {"rtol": 0, "atol": 1e-5}


def images(count: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(height)
    reference = torch.rand(count, 3, height, width, generator=generator)
    return (reference + 0.1 * torch.randn(reference.shape, generator=generator)).clamp(0, 1), reference


def session(path: Path) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4  # refusals of images are errors to it
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def quality(model: Any, test: Tensor, reference: Tensor) -> Tensor:
    return torch.from_numpy(model.run(["quality"], {"test": test.numpy(), "reference": reference.numpy()})[0])


def alexnet(*maps: str, **options: Any) -> SelectedFeatureIQM:
    state = seeded_state(blank_network("alexnet"), 0)
    return SelectedFeatureIQM(FeatureExtractor("alexnet", weights=state, **options), maps)


@pytest.mark.parametrize(
    "maps",
    [("conv1:27", "conv1:3"), pytest.param(("conv5:5", "conv1:27", "conv2:3"), marks=pytest.mark.slow)],
    ids=["a layer", "three layers"],
)
def test_alexnet_in_several_sizes(tmp_path: Path, maps: tuple[str, ...]) -> None:
    iqm = alexnet(*maps)
    export_onnx(iqm, tmp_path / "metric.onnx")
    assert [p.name for p in tmp_path.iterdir()] == ["metric.onnx"]
    model = session(tmp_path / "metric.onnx")
    assert [(i.name, i.shape[1]) for i in model.get_inputs()] == [("test", 3), ("reference", 3)]
    metadata = model.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["definition"]) == iqm.definition()
    assert (metadata["fmiqa"], metadata["higher_is_better"]) == (fmiqa.__version__, "true")
    least = int(metadata["least_side"])
    for count, height, width in ((1, least, least), (3, 250, 231), (2, 333, 420)):
        given = images(count, height, width)
        torch.testing.assert_close(quality(model, *given), iqm(*given), **CLOSE)
    equal = images(1, 220, 240)[1]
    torch.testing.assert_close(quality(model, equal, equal), torch.ones(1), **CLOSE)
    # In PyTorch a smaller window sees smaller maps; the model has one window, and refuses them.
    for height, width in ((least - 1, 200), (200, least - 1)):
        with pytest.raises(Exception, match="shape"):
            quality(model, *images(1, height, width))
    assert str(Path(fmiqa.__file__).parent).encode() not in (tmp_path / "metric.onnx").read_bytes()


@pytest.mark.slow
def test_the_ready_made_metric_in_several_sizes(tmp_path: Path) -> None:
    iqm = fmiqa.load_metric("fast")
    export_onnx(iqm, tmp_path / "fast.onnx")
    model = session(tmp_path / "fast.onnx")
    # Among them sizes that are not resized at all, and one (2816 x 2827) whose longer side rounds a tie.
    for size in ((96, 128), (384, 500), (500, 384), (300, 420), (37, 200), (2816, 2827)):
        given = images(1 + (size[0] < 400), *size)
        torch.testing.assert_close(quality(model, *given), iqm(*given), **CLOSE)


@pytest.mark.slow
def test_other_viewings_round_sizes_as_in_pytorch(tmp_path: Path) -> None:
    iqm = alexnet("conv1:27", viewing=Viewing(pixels_per_degree=1.0, native_pixels_per_degree=3.0))
    export_onnx(iqm, tmp_path / "metric.onnx")
    model = session(tmp_path / "metric.onnx")
    for size in ((200, 301), (203, 205), (400, 250)):
        given = images(1, *size)
        torch.testing.assert_close(quality(model, *given), iqm(*given), **CLOSE)


def small(measure: Any = "ssim") -> SelectedFeatureIQM:
    torch.manual_seed(0)
    return SelectedFeatureIQM(FeatureExtractor(nn.Sequential(nn.Conv2d(3, 4, 5, 2))), ["0:1", "0:3"], measure=measure)


def test_a_measure_whose_operations_take_any_size_gives_nan_for_maps_that_are_too_small(tmp_path: Path) -> None:
    iqm = small("gms")
    export_onnx(iqm, tmp_path / "metric.onnx")
    model = session(tmp_path / "metric.onnx")
    least = int(model.get_modelmeta().custom_metadata_map["least_side"])
    given = images(2, least, least + 20)
    torch.testing.assert_close(quality(model, *given), iqm(*given), **CLOSE)
    assert quality(model, *images(2, least - 1, 60)).isnan().all()


def test_one_size(tmp_path: Path) -> None:
    iqm = small("gms")
    export_onnx(iqm, tmp_path / "metric.onnx", size=(40, 48))
    model = session(tmp_path / "metric.onnx")
    assert model.get_inputs()[0].shape[1:] == [3, 40, 48]
    for count in (1, 3):
        given = images(count, 40, 48)
        torch.testing.assert_close(quality(model, *given), iqm(*given), **CLOSE)
    with pytest.raises(Exception, match="invalid dimensions"):
        quality(model, *images(1, 48, 40))


def test_what_cannot_be_exported_leaves_no_file(tmp_path: Path) -> None:
    path = tmp_path / "metric.onnx"
    with pytest.raises(InputError, match=r"in other steps for other sizes; give the one size of all images"):
        export_onnx(small("gmsd"), path)
    with pytest.raises(InputError, match="too small"):
        export_onnx(small(), path, size=(4, 40))
    with pytest.raises(InputError, match=r"size is \(H, W\) in pixels, or None"):
        export_onnx(small(), path, size=(40.0, 40))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="got Sequential"):
        export_onnx(nn.Sequential(), path)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="cannot be written"):
        export_onnx(small(), tmp_path, size=(40, 40))
    strange = Custom(lambda x, y: torch.linalg.svdvals(x - y).mean(-1), higher_is_better=False, label="singular values")
    with pytest.raises(InputError, match="this metric cannot be converted to ONNX"):
        export_onnx(small(strange), path, size=(40, 40))
    assert list(tmp_path.iterdir()) == []
