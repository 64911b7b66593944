"""One rule for the whole library: tensors go in, and anything else is refused by a message that says what to do."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import fmiqa
from fmiqa import FeatureExtractor, InputError, MapIndex, ScoreMatrix, SelectedFeatureIQM, measures, visualize
from fmiqa._checks import check_picture, check_tensor, is_batched, is_count, is_number, is_positive, known_values
from fmiqa.correlation.bootstrap import bootstrap
from fmiqa.correlation.krasula import pair_analysis
from fmiqa.correlation.significance import holm, meng_test, residual_f_test, williams_test, zou_interval
from fmiqa.datasets import Sample

N = 20
Call = Callable[[Any], object]


def extractor() -> FeatureExtractor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return FeatureExtractor("alexnet", weights=None, layers=["conv1"])


EXTRACTOR = extractor()
IQM = SelectedFeatureIQM(EXTRACTOR, ["conv1:3"])
GENERATOR = torch.Generator().manual_seed(0)
SCORES = torch.rand(N, generator=GENERATOR)
OTHER = torch.rand(N, generator=GENERATOR)
VALUES = torch.rand(N, 3, generator=GENERATOR)
IMAGES = torch.rand(1, 3, 48, 48, generator=GENERATOR)
MAPS = torch.rand(1, 2, 48, 48, generator=GENERATOR)
MASK = torch.ones(48, 48, dtype=torch.bool)
NAMES = [f"{i}" for i in range(N)]


def matrix(**parts: Any) -> ScoreMatrix:
    own = {"values": VALUES, "targets": SCORES, "maps": MapIndex.of_layers({"c": 3}), "groups": NAMES, "names": NAMES}
    return ScoreMatrix(**{**own, **parts})


def sample(image: Any) -> Sample:
    return Sample(image, IMAGES[0], 1.0, "a", "a1")


OF_SCORES: dict[str, Call] = {
    "plcc": lambda x: fmiqa.plcc(x, OTHER),
    "plcc, y": lambda x: fmiqa.plcc(OTHER, x),
    "plcc without fit": lambda x: fmiqa.plcc(x, OTHER, fit=None),
    "rmse": lambda x: fmiqa.rmse(OTHER, x),
    "rmse without fit": lambda x: fmiqa.rmse(x, x, fit=None),
    "srocc": lambda x: fmiqa.srocc(x, x),
    "krocc": lambda x: fmiqa.krocc(x, OTHER),
    "fit_logistic": lambda x: fmiqa.fit_logistic(x, OTHER),
    "predict": lambda x: fmiqa.fit_logistic(SCORES, OTHER).predict(x),
    "holm": lambda x: holm(x),
    "residual_f_test": lambda x: residual_f_test(x, OTHER),
    "williams_test": lambda x: williams_test(x, 0.4, 0.5, 100),  # type: ignore[arg-type]
    "meng_test": lambda x: meng_test(0.3, x, 0.5, 100),  # type: ignore[arg-type]
    "zou_interval": lambda x: zou_interval(0.3, 0.4, x, 100),  # type: ignore[arg-type]
    "bootstrap": lambda x: bootstrap(x, OTHER, resamples=3),
    "bootstrap, y": lambda x: bootstrap(OTHER, x, resamples=3),
    "pair_analysis": lambda x: pair_analysis(x, OTHER, torch.ones(N)),
    "pair_analysis, targets": lambda x: pair_analysis(OTHER, x, torch.ones(N)),
    "pair_analysis, errors": lambda x: pair_analysis(OTHER, SCORES, x),
    "compare": lambda x: fmiqa.compare({"a": x}, OTHER, resamples=3),
    "compare, targets": lambda x: fmiqa.compare({"a": OTHER}, x, resamples=3),
    "compare, deviations": lambda x: fmiqa.compare({"a": OTHER}, SCORES, resamples=3, target_stds=x, ratings=5),
    "forward_select, targets": lambda x: fmiqa.forward_select(VALUES, x),
    "weighted_select, targets": lambda x: fmiqa.weighted_select(VALUES, x, groups=NAMES),
    "cross_validate, targets": lambda x: fmiqa.cross_validate(VALUES, x, groups=NAMES),
    "permutation_null, targets": lambda x: fmiqa.permutation_null(VALUES, x, groups=NAMES),
    "stability_selection, targets": lambda x: fmiqa.stability_selection(VALUES, x, groups=NAMES),
    "ScoreMatrix, targets": lambda x: matrix(targets=x),
    "metric, weights": lambda x: SelectedFeatureIQM(EXTRACTOR, ["conv1:3"], weights=x),
    "plot_agreement": lambda x: visualize.plot_agreement(matrix(), x),
}
OF_MATRICES: dict[str, Call] = {
    "forward_select": lambda v: fmiqa.forward_select(v, SCORES),
    "weighted_select": lambda v: fmiqa.weighted_select(v, SCORES, groups=NAMES),
    "floating_select": lambda v: fmiqa.floating_select(v, SCORES),
    "backward_eliminate": lambda v: fmiqa.backward_eliminate(v, SCORES),
    "beam_select": lambda v: fmiqa.beam_select(v, SCORES),
    "cross_validate": lambda v: fmiqa.cross_validate(v, SCORES, groups=NAMES),
    "permutation_null": lambda v: fmiqa.permutation_null(v, SCORES, groups=NAMES),
    "stability_selection": lambda v: fmiqa.stability_selection(v, SCORES, groups=NAMES),
    "observer_study": lambda v: fmiqa.observer_study(matrix(), v),
    "ScoreMatrix": lambda v: matrix(values=v),
    "pool_scores": lambda v: fmiqa.pool_scores(v, MapIndex.of_layers({"c": 3})),
}
OF_IMAGES: dict[str, Call] = {
    "extractor": lambda i: EXTRACTOR(i, ["conv1:3"]),
    "metric, test": lambda i: IQM(i, IMAGES),
    "metric, reference": lambda i: IQM(IMAGES, i),
    "prepare": lambda i: IQM.prepare(i),
    "viewing": lambda i: fmiqa.Viewing(factor=0.5)(i),
    **{
        f"{name}, {side}": (lambda m, f: lambda i: m(*((i, MAPS) if f else (MAPS, i))))(measure, side == "test")
        for name, measure in {
            **{n: make() for n, make in measures.MEASURES.items() if n != "piq"},
            **({"piq": measures.Piq("HaarPSI")} if find_spec("piq") else {}),
            "custom": measures.Custom(lambda x, y: (x - y).mean((-2, -1)), higher_is_better=False),
        }.items()
        for side in ("test", "reference")
    },
    "error map, test": lambda i: IQM.error_map(i, IMAGES),
    "error map, reference": lambda i: IQM.error_map(IMAGES, i),
    "ssim, local": lambda i: measures.SSIM().local(i, MAPS),
    "gms, local": lambda i: measures.GMS().local(i, MAPS),
}
OF_PICTURES: dict[str, Call] = {
    "score_matrix": lambda i: fmiqa.score_matrix(EXTRACTOR, [sample(i)], maps=["conv1:3"]),
    "evaluate": lambda i: fmiqa.evaluate(IQM, [sample(i)]),
    "prediction_difference": lambda i: visualize.prediction_difference(
        EXTRACTOR, i, ["conv1:3"], sampler=visualize.MarginalSampler([IMAGES[0]])
    ),
    "MarginalSampler": lambda i: visualize.MarginalSampler([i]),
    "exemplars": lambda i: visualize.exemplars(EXTRACTOR, [i], ["conv1:3"]),
    "mean_activations": lambda i: visualize.mean_activations(EXTRACTOR, [i], ["conv1:3"]),
    "local_quality": lambda i: visualize.local_quality(EXTRACTOR, i, IMAGES[0], ["conv1:3"]),
    "overlay_relevance": lambda i: visualize.overlay_relevance(i, MASK.float()),
    "overlay_error": lambda i: visualize.overlay_error(i, MASK.float()),
    "overlay_loss": lambda i: visualize.overlay_loss(i, MASK.float()),
    "outlined": lambda i: visualize.outlined(i, MASK),
    "picture_grid": lambda i: visualize.picture_grid([i]),
}


def others(value: Tensor) -> dict[str, Any]:
    """What is no tensor of ordinary numbers, made of one."""
    return {
        "array": value.numpy(),
        "list": value.tolist(),
        "None": None,
        "text": "scores.csv",
        "complex": value + 0j,
        "sparse": value.to_sparse(),
        "quantized": torch.quantize_per_tensor(value, 0.1, 0, torch.quint8),
        "8-bit float": value.to(torch.float8_e4m3fn),
        "meta": value.to("meta"),
    }


CASES = [
    pytest.param(call, given, id=f"{name}: {kind}")
    for calls, value in ((OF_SCORES, SCORES), (OF_MATRICES, VALUES), (OF_IMAGES, IMAGES), (OF_PICTURES, IMAGES[0]))
    for name, call in calls.items()
    for kind, given in others(value).items()
    if not (name in {"compare, deviations", "metric, weights"} and kind == "None")  # where None is the default
]


@pytest.mark.filterwarnings("ignore:.*quantize")
@pytest.mark.parametrize(("call", "given"), CASES)
def test_whatever_is_no_ordinary_tensor_is_refused(call: Call, given: Any) -> None:
    with pytest.raises(InputError):
        call(given)


@pytest.mark.parametrize(
    ("given", "advice"),
    [
        (np.ones(3), r"x must be a torch.Tensor, got ndarray; convert it with torch.as_tensor"),
        ([1.0], "got list; convert it"),
        (None, "got NoneType$"),
        (torch.ones(3).to_sparse(), r"convert it with .to_dense\(\)"),
        (torch.ones(3, dtype=torch.complex64), r"must be real.*\.real"),
        (torch.ones(3).to(torch.float8_e5m2), r"float8_e5m2; convert it with .float\(\)"),
        (torch.ones(3, device="meta"), "on the meta device"),
        (torch.nested.nested_tensor([torch.ones(3)]), "nested tensor"),
    ],
)
def test_the_message_says_what_to_do(given: object, advice: str) -> None:
    with pytest.raises(InputError, match=advice):
        check_tensor(given, "x")


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float16, torch.float64])
def test_scores_are_taken_in_any_real_dtype(dtype: torch.dtype) -> None:
    x, y = torch.tensor([0, 1, 0, 1, 1]).to(dtype), torch.tensor([0.0, 1.0, 0.2, 0.9, 0.8])
    assert fmiqa.srocc(x, y).item() == pytest.approx(fmiqa.srocc(x.double(), y).item())
    assert fmiqa.plcc(x, y, fit=None).item() == pytest.approx(fmiqa.plcc(x.double(), y, fit=None).item(), abs=1e-3)


def test_scores_that_require_a_gradient_can_be_selected_from() -> None:
    values, targets = VALUES.clone().requires_grad_(), SCORES.clone().requires_grad_()
    chosen = fmiqa.forward_select(values, targets, direction="any", max_maps=2)
    assert chosen.maps == fmiqa.forward_select(VALUES, SCORES, direction="any", max_maps=2).maps


@pytest.mark.parametrize(
    "shape", [(0, 3, 48, 48), (1, 1, 48, 48), (1, 4, 48, 48), (1, 48, 48, 3), (3, 48, 48), (48, 48, 3), ()]
)
def test_images_of_another_form_are_refused(shape: tuple[int, ...]) -> None:
    given = torch.rand(shape)
    for call in (lambda: EXTRACTOR(given), lambda: IQM(given, given), lambda: IQM(IMAGES, given)):
        with pytest.raises(InputError):
            call()


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64, torch.int8, torch.bool])
def test_images_of_integers_other_than_uint8_are_refused(dtype: torch.dtype) -> None:
    with pytest.raises(InputError, match="expected uint8 or floating point"):
        EXTRACTOR(torch.ones(1, 3, 48, 48).to(dtype))


@pytest.mark.parametrize("side", [1, 2, 3, 5, 8, 16])
@pytest.mark.parametrize("measure", [name for name in measures.MEASURES if name != "piq"])
def test_small_images_score_or_are_refused(side: int, measure: str) -> None:
    """A finite score, or an error of the library's own that says that the images are too small."""
    iqm = SelectedFeatureIQM(EXTRACTOR, ["conv1:3"], measure=measure)
    images = torch.rand(1, 3, side, side)
    try:
        assert iqm(images, images).isfinite().all()
    except InputError as error:
        assert "too small" in str(error)  # noqa: PT017, either is right


def test_images_that_viewing_makes_too_small_are_refused() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tiny = FeatureExtractor("alexnet", weights=None, viewing=fmiqa.Viewing(factor=0.05))
    with pytest.raises(InputError, match="2 wide and 2 high are too small"):
        tiny(IMAGES)


@pytest.mark.parametrize("prepared", [None, [], [None], IQM.prepare(IMAGES)[0], 2 * IQM.prepare(IMAGES)])
def test_what_prepare_did_not_give_is_refused(prepared: Any) -> None:
    with pytest.raises(InputError):
        IQM(IMAGES, prepared)


@pytest.mark.parametrize("name", [name for name in measures.MEASURES if name != "piq"])
def test_a_measure_compares_with_what_it_prepared_only(name: str) -> None:
    with pytest.raises(InputError, match="what prepare"):
        measures.get_measure(name).compare(MAPS, MAPS)


@pytest.mark.parametrize("wrong", ["a", None, [1], torch.tensor(3), np.ones(2), float("nan"), -1, True])
@pytest.mark.parametrize(
    "make",
    [
        lambda v: measures.SSIM(window=v),
        lambda v: measures.SSIM(sigma=v),
        lambda v: measures.SSIM(data_range=v),
        lambda v: measures.MSSSIM(window=v),
        lambda v: measures.MSSSIM(k2=v),
        lambda v: measures.PSNR(ceiling=v),
        lambda v: measures.GMS(c=v),
        lambda v: measures.HistogramIntersection(bins=v),
        lambda v: measures.PyramidIntersection(levels=v),
        lambda v: fmiqa.pixels_per_degree(distance=v, pixels_per_unit=1),
        lambda v: fmiqa.pool_scores(VALUES, MapIndex.of_layers({"c": 3}), power=v),
        lambda v: bootstrap(SCORES, OTHER, resamples=v),
        lambda v: bootstrap(SCORES, OTHER, statistic="srocc", resamples=3).interval(v),
        lambda v: fmiqa.forward_select(VALUES, SCORES, tol=v),
    ],
)
def test_options_that_are_no_fitting_number_are_refused(make: Call, wrong: Any) -> None:
    with pytest.raises(InputError):
        make(wrong)


def test_groups_may_be_names_numbers_or_a_tensor() -> None:
    numbers = torch.arange(N) // 4
    splits = [fmiqa.grouped_folds(g, folds=5) for g in (numbers, numbers.numpy(), numbers.tolist())]
    for split in splits:
        assert [s.held_out.tolist() for s in split] == [s.held_out.tolist() for s in splits[0]]
        # Each fold holds one whole group of four images out, although a tensor's items are all different objects.
        assert all(len(set(numbers[s.held_out].tolist())) == 1 and len(s.held_out) == 4 for s in split)
    judged = [
        fmiqa.cross_validate(VALUES, SCORES, groups=g, folds=2, direction="any", max_maps=1)  # type: ignore[arg-type]
        for g in (numbers, numbers.tolist())
    ]
    assert torch.equal(judged[0].plcc, judged[1].plcc)


@pytest.mark.parametrize("wrong", [None, 5, "ab", torch.tensor(1), [[1], [2]], np.ones((N, 2))])
def test_groups_that_name_nothing_are_refused(wrong: Any) -> None:
    with pytest.raises(InputError, match="groups"):
        fmiqa.grouped_folds(wrong)
    if wrong is not None:  # the default: each image is a group
        with pytest.raises(InputError, match="groups"):
            bootstrap(SCORES, OTHER, wrong, resamples=3)


@pytest.mark.parametrize("wrong", [None, 5, EXTRACTOR.network, "alexnet"])
def test_what_is_no_extractor_is_refused(wrong: Any) -> None:
    with pytest.raises(InputError, match="extractor must be a FeatureExtractor"):
        fmiqa.score_matrix(wrong, [sample(IMAGES[0])])
    with pytest.raises(InputError, match="extractor must be a FeatureExtractor"):
        visualize.maximize_activation(wrong, ["conv1:3"])


@pytest.mark.parametrize("wrong", [None, 5, {}, "folder", [], torch.rand(3), [1], [None]])
def test_what_is_no_data_set_is_refused(wrong: Any) -> None:
    for call in (lambda: fmiqa.score_matrix(EXTRACTOR, wrong), lambda: fmiqa.evaluate(IQM, wrong)):
        with pytest.raises(InputError):
            call()


def test_numbers_and_counts() -> None:
    given = [1, 0, True, 0.5, float("inf"), float("nan"), "1", np.float32(2), np.int64(3), torch.tensor(1)]
    assert [is_number(v) for v in given] == [True, True, False, True, True, True, False, True, True, False]
    assert [is_count(v) for v in given] == [True, False, False, False, False, False, False, False, True, False]
    assert [is_positive(v) for v in given] == [True, False, False, True, False, False, False, True, True, False]
    assert is_count(0, least=0)


def test_pictures_have_three_channels() -> None:
    assert torch.equal(check_picture(IMAGES[0], "x"), IMAGES[0])
    with pytest.raises(InputError, match=r"x is one RGB image \(3, H, W\), got \(1, 48, 48\)"):
        check_picture(IMAGES[0, :1], "x")


def test_known_values_are_those_of_the_batch_under_vmap() -> None:
    seen = []

    def look(x: Tensor) -> Tensor:
        values = known_values(x)
        assert values is not None
        assert is_batched(x)
        seen.append(values.clone())
        return x.sum()

    x = torch.rand(3, 4)
    torch.func.vmap(torch.func.grad(look))(x)
    assert torch.equal(seen[0], x)
    assert known_values(torch.ones(2, device="meta")) is None
    assert not is_batched(x)


@pytest.mark.parametrize("scale", [255.0, -2.0, float("nan")])
def test_the_range_of_images_is_checked_under_vmap_too(scale: float) -> None:
    with pytest.raises(InputError, match="float images lie in"):
        torch.func.vmap(lambda i: IQM(i[None], IMAGES)[0])(IMAGES * scale)


class Lambda(nn.Module):
    def __init__(self, function: Callable[..., Any], conv: nn.Module) -> None:
        super().__init__()
        self.function, self.conv = function, conv

    def forward(self, x: Tensor) -> Any:
        return self.function(self, x)


CONV = nn.Conv2d(3, 4, 3)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: torch.jit.script(nn.Sequential(CONV)), "TorchScript"),
        (lambda: torch.jit.trace(nn.Sequential(CONV), IMAGES), "TorchScript"),
        (lambda: nn.Sequential(CONV, torch.jit.script(nn.ReLU())), "holds TorchScript modules"),
        (lambda: nn.Sequential(nn.LazyConv2d(4, 3)), "lazy layers without weights"),
        (lambda: nn.Sequential(CONV, nn.LazyBatchNorm2d()), "lazy layers without weights"),
        (lambda: nn.Sequential(nn.Conv2d(3, 4, 3, dtype=torch.complex64)), "complex weights"),
        (lambda: nn.Sequential(nn.Conv2d(3, 4, 3, device="meta")), "on the meta device"),
        (lambda: nn.Identity(), "no nn.Conv2d"),
        (lambda: nn.Sequential(nn.Conv1d(3, 4, 3)), "no nn.Conv2d"),
        (lambda: nn.Sequential(nn.Conv3d(3, 4, 3)), "no nn.Conv2d"),
        (lambda: nn.ModuleList([CONV]), "cannot be traced"),
        (lambda: nn.Module(), "cannot be traced"),
        (lambda: Lambda(lambda s, x: s.conv(x) if x.mean() > 0 else x, CONV), "cannot be traced"),
        (lambda: [CONV], "nn.Module, got list"),
        (lambda: nn.Sequential, "nn.Module, got type"),
    ],
)
def test_networks_that_cannot_be_used_are_named(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        FeatureExtractor(make())


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (nn.Sequential(nn.Conv2d(1, 4, 3)), "takes RGB images"),
        (nn.Sequential(nn.Conv2d(4, 4, 3)), "takes RGB images"),
        (nn.Sequential(nn.Conv3d(3, 4, 3), CONV), "cannot run on images 48 wide"),
        (nn.Sequential(nn.Linear(7, 7), CONV), "cannot run on images 48 wide"),
        (Lambda(lambda s, x: s.conv(x.view(1, 3, 28, 28)), CONV), "cannot run on images 48 wide"),
        (Lambda(lambda s, x: s.conv({"x": x}), CONV), "cannot run on images 48 wide"),
        (nn.Sequential(nn.MaxPool2d(64), CONV), "too small for this network"),
    ],
)
def test_networks_that_do_not_take_these_images_are_named(network: nn.Module, message: str) -> None:
    with pytest.raises(InputError, match=message):
        FeatureExtractor(network)(IMAGES)


@pytest.mark.parametrize(
    "network", [Lambda(lambda s, x: {"a": s.conv(x)}, CONV), Lambda(lambda s, x: (s.conv(x), x), CONV)]
)
def test_networks_may_return_anything(network: nn.Module) -> None:
    assert FeatureExtractor(network)(IMAGES)["conv"].shape == (1, 4, 46, 46)


@pytest.mark.parametrize("layers", ["conv1", 1, [1], [], ["conv9"], [None]])
def test_layers_are_a_list_of_names(layers: Any) -> None:
    with pytest.raises(InputError, match="layers to keep"):
        EXTRACTOR.keep(layers)


@pytest.mark.parametrize(
    "maps", ["conv1:3", 5, None, [None], [5], ["conv1:-1"], ["conv1:64"], ["conv9:0"], [], torch.ones(())]
)
def test_maps_that_are_not_there_are_refused(maps: Any) -> None:
    with pytest.raises(InputError):
        SelectedFeatureIQM(EXTRACTOR, maps)
    if maps is not None:
        with pytest.raises(InputError):
            EXTRACTOR(IMAGES, maps)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "make",
    [
        lambda: FeatureExtractor("alexnet", weights=5),  # type: ignore[arg-type]
        lambda: FeatureExtractor("alexnet", weights=None, seed="a"),  # type: ignore[arg-type]
        lambda: fmiqa.Viewing(factor="a"),  # type: ignore[arg-type]
        lambda: fmiqa.Viewing(short_side=True),
        lambda: fmiqa.Viewing(factor=torch.tensor(0.5)),  # type: ignore[arg-type]
        lambda: FeatureExtractor(nn.Sequential(CONV), viewing=0.5),  # type: ignore[arg-type]
        lambda: SelectedFeatureIQM(EXTRACTOR, ["conv1:3"], fit=5),  # type: ignore[arg-type]
        lambda: fmiqa.FeatureMap("a", 1, 5),  # type: ignore[arg-type]
        lambda: MapIndex.of_layers(["a"]),  # type: ignore[arg-type]
        lambda: MapIndex.of_layers({"a": -1}),
        lambda: MapIndex(["a:0"]).at([4]),
        lambda: matrix(names=None),
        lambda: matrix(options=5),
        lambda: matrix().rows([99]),
        lambda: matrix().rows(torch.ones(3, dtype=torch.bool)),
        lambda: ScoreMatrix.concat([matrix()]),  # type: ignore[arg-type]
        lambda: fmiqa.evaluate(EXTRACTOR, [sample(IMAGES[0])]),  # type: ignore[arg-type]
        lambda: measures.Custom(lambda x, y: x, higher_is_better="yes"),  # type: ignore[arg-type]
    ],
)
def test_arguments_of_another_kind_are_refused(make: Callable[[], Any]) -> None:
    with pytest.raises(InputError):
        make()


ARRAY = np.zeros((48, 56, 3), np.uint8)


@pytest.mark.parametrize("call", ["call", "prepare", "loss", "rate", "error_map", "measure"])
@pytest.mark.parametrize(
    "image",
    [ARRAY, Image.fromarray(ARRAY), torch.from_numpy(ARRAY), torch.from_numpy(ARRAY)[None]],
    ids=["array", "PIL", "HWC", "NHWC"],
)
def test_images_of_another_layout_are_refused_with_what_converts_them(image: object, call: str) -> None:
    iqm = fmiqa.load_metric()
    good = torch.zeros(1, 3, 48, 56)
    calls = {
        "call": [lambda: iqm(image, image), lambda: iqm(image, good), lambda: iqm(good, image)],
        "prepare": [lambda: iqm.prepare(image)],  # type: ignore[arg-type]
        "loss": [lambda: iqm.as_loss()(image, image)],  # type: ignore[arg-type]
        "rate": [lambda: iqm.rate(image, image)],  # type: ignore[arg-type]
        "error_map": [lambda: iqm.error_map(image, image)],  # type: ignore[arg-type]
        "measure": [lambda: fmiqa.SSIM()(image, image)],  # type: ignore[arg-type]
    }
    if call == "measure" and isinstance(image, torch.Tensor) and image.ndim == 4:
        pytest.skip("feature maps may be 3 wide")
    for one in calls[call]:
        with pytest.raises(InputError, match=r"fmiqa\.to_tensor\(\.\.\.\).*fmiqa\.read_image\(\.\.\.\)"):
            one()
