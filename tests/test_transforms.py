"""Metrics, extractors and measures under torch.func, torch.jit, torch.compile, torch.export and torch.fx.

Each gives the scores of a plain call, or an error of the library that says what to do instead.
"""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fmiqa
from fmiqa import AllFeatureIQM, FeatureExtractor, InputError, SelectedFeatureIQM, Viewing, fit_logistic, plcc, srocc
from fmiqa.measures import MEASURES as BY_NAME
from fmiqa.measures import (
    SSIM,
    Custom,
    DeepSimSSIM,
    HistogramIntersection,
    Piq,
)

# The same float32 operations, in other batches and orders: some tens of roundings of values up to 1 (2**-24 each).
CLOSE: dict[str, Any] = {"rtol": 1e-5, "atol": 3e-6}

records_whole = pytest.mark.skipif(
    tuple(map(int, torch.__version__.split(".")[:2])) < (2, 9),
    reason="this version of torch cannot record a metric whole",
)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 5, 2), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.BatchNorm2d(4), nn.Conv2d(4, 6, 3), nn.ReLU()
    )


def extractor(**options: Any) -> FeatureExtractor:
    return FeatureExtractor(network(), **options)


def make(measure: Any = "ssim", **options: Any) -> SelectedFeatureIQM:
    return SelectedFeatureIQM(extractor(), ["4:3", "0:1", "4:0"], measure=measure, **options)


def joined() -> SelectedFeatureIQM:
    sources = {"whole": extractor(), "half": extractor(viewing=Viewing(factor=0.5), stage="conv")}
    return SelectedFeatureIQM(sources, ["half/0:3", "whole/4:1"], measure={"whole": "ssim", "half": "mse"})


METRICS: dict[str, Callable[[], SelectedFeatureIQM]] = {
    "selected": make,
    "all": lambda: AllFeatureIQM(extractor()),
    "joined": joined,
    "weights": lambda: make(weights=torch.tensor([1.0, 2.0, 0.5])),
    "power": lambda: make(power=0.5),
    "layer_geometric": lambda: make(pool="layer_geometric"),
    "fit": lambda: make(fit=fit_logistic(torch.linspace(0, 1, 20), torch.linspace(0, 1, 20) ** 2)),
    "short side": lambda: SelectedFeatureIQM(extractor(viewing=Viewing(short_side=50)), ["0:1"]),
}
MEASURES: list[Any] = [
    *(kind() for name, kind in BY_NAME.items() if name not in ("m-svd", "piq")),
    SSIM(data_range="pair"),
    SSIM(data_range="layer"),
    DeepSimSSIM("lowest"),
    HistogramIntersection(data_range="pair"),
    Custom(lambda x, y: (x - y).abs().mean((-2, -1)), higher_is_better=False, label="mean difference"),
]


def images(count: int = 3, height: int = 64, width: int = 72, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    reference = torch.rand(count, 3, height, width, generator=generator)
    test = (reference + 0.1 * torch.randn(reference.shape, generator=generator)).clamp(0, 1)
    return test, reference


def maps(seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    reference = torch.rand(3, 2, 24, 26, generator=generator)
    return (reference + 0.1 * torch.randn(reference.shape, generator=generator)), reference


def traced(module: Any, *inputs: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch.jit, deprecated, and its notes on sizes
        return torch.jit.trace(module, inputs, check_trace=False)


@pytest.fixture(autouse=True)
def fresh() -> None:
    torch._dynamo.reset()


class TestVmap:
    @pytest.mark.parametrize("name", METRICS)
    @pytest.mark.parametrize("integer", [False, True])
    def test_metrics(self, name: str, integer: bool) -> None:
        iqm = METRICS[name]()
        test, reference = ((side * 255).byte() if integer else side for side in images())
        found = torch.func.vmap(lambda t, r: iqm(t[None], r[None])[0])(test, reference)
        torch.testing.assert_close(found, iqm(test, reference), **CLOSE)

    @pytest.mark.parametrize("measure", MEASURES, ids=lambda measure: measure.name)
    def test_measures(self, measure: Any) -> None:
        test, reference = maps()
        found = torch.func.vmap(lambda t, r: measure(t[None], r[None])[0])(test, reference)
        torch.testing.assert_close(found, measure(test, reference), **CLOSE)

    def test_one_reference_for_all(self) -> None:
        iqm, (test, reference) = make(), images()
        expected = iqm(test, reference[:1])
        found = torch.func.vmap(lambda t, r: iqm(t[None], r[None])[0], in_dims=(0, None))(test, reference[0])
        torch.testing.assert_close(found, expected, **CLOSE)
        prepared = iqm.prepare(reference[:1])
        torch.testing.assert_close(torch.func.vmap(lambda t: iqm(t[None], prepared)[0])(test), expected, **CLOSE)

    @pytest.mark.parametrize("name", METRICS)
    def test_gradients_of_each_image(self, name: str) -> None:
        iqm, (test, reference) = METRICS[name](), images()

        def score(t: Tensor, r: Tensor) -> Tensor:
            return iqm(t[None], r[None])[0]

        leaf = test.clone().requires_grad_()
        iqm(leaf, reference).sum().backward()
        found = torch.func.vmap(torch.func.grad(score))(test, reference)
        torch.testing.assert_close(found, leaf.grad, rtol=1e-3, atol=1e-6)
        rows = torch.func.vmap(torch.func.jacrev(score))(test, reference)
        torch.testing.assert_close(rows, leaf.grad, rtol=1e-3, atol=1e-6)

    def test_extractors(self) -> None:
        network, (test, _) = extractor(), images()
        found = torch.func.vmap(lambda t: network(t[None])["4"][0])(test)
        torch.testing.assert_close(found, network(test)["4"], **CLOSE)

    def test_functional_call(self) -> None:
        iqm, (test, reference) = make(), images()
        state = {**dict(iqm.named_parameters()), **dict(iqm.named_buffers())}
        torch.testing.assert_close(
            torch.func.functional_call(iqm, state, (test, reference)), iqm(test, reference), **CLOSE
        )

    @pytest.mark.parametrize("call", [srocc, plcc], ids=["srocc", "plcc"])
    def test_correlations_say_that_they_are_batched_already(self, call: Any) -> None:
        x = torch.rand(3, 12)
        with pytest.raises(InputError, match=r"batched over leading dimensions already: pass scores of shape"):
            torch.func.vmap(call)(x, x)
        found = torch.func.vmap(lambda a, b: plcc(a, b, fit=None))(x, x.square())
        torch.testing.assert_close(found, plcc(x, x.square(), fit=None))


class TestTrace:
    @pytest.mark.parametrize("name", METRICS)
    def test_metrics_for_any_number_of_images_of_one_size(self, name: str) -> None:
        iqm, (test, reference) = METRICS[name](), images()
        found = traced(iqm, test, reference)
        torch.testing.assert_close(found(test, reference), iqm(test, reference), **CLOSE)
        more = images(5, seed=1)
        torch.testing.assert_close(found(*more), iqm(*more), **CLOSE)

    @pytest.mark.parametrize("measure", MEASURES, ids=lambda measure: measure.name)
    def test_measures(self, measure: Any) -> None:
        iqm, (test, reference) = make(measure), images()
        more = images(5, seed=1)
        torch.testing.assert_close(traced(iqm, test, reference)(*more), iqm(*more), **CLOSE)

    @pytest.mark.parametrize("size", [(72, 64), (128, 144), (64, 36), (32, 72)])
    def test_another_size_is_refused_rather_than_scored_wrongly(self, size: tuple[int, int]) -> None:
        for name in ("selected", "short side"):
            found = traced(METRICS[name](), *images())
            with pytest.raises(RuntimeError, match="expanded size of the tensor"):
                found(*images(3, *size))


@records_whole
class TestCompile:
    @pytest.mark.parametrize(
        ("name", "integer"), [*((name, False) for name in METRICS), ("selected", True), ("short side", True)]
    )
    def test_metrics_as_one_graph(self, name: str, integer: bool) -> None:
        iqm = METRICS[name]()
        test, reference = ((side * 255).byte() if integer else side for side in images())
        found = torch.compile(iqm, fullgraph=True, backend="eager")(test, reference)
        torch.testing.assert_close(found, iqm(test, reference), **CLOSE)

    @pytest.mark.parametrize("measure", MEASURES, ids=lambda measure: measure.name)
    def test_measures_as_one_graph(self, measure: Any) -> None:
        test, reference = maps()
        found = torch.compile(lambda t, r: measure(t, r), fullgraph=True, backend="eager")(test, reference)
        torch.testing.assert_close(found, measure(test, reference), **CLOSE)

    @pytest.mark.slow
    def test_sizes_that_change(self) -> None:
        iqm = make()
        compiled = torch.compile(iqm, fullgraph=True, dynamic=True, backend="eager")
        for size in ((2, 64, 72), (3, 90, 66)):
            given = images(*size)
            torch.testing.assert_close(compiled(*given), iqm(*given), **CLOSE)

    def test_prepared_references_and_gradients(self) -> None:
        iqm, (test, reference) = make(), images()
        prepared = iqm.prepare(reference[:1])
        compiled = torch.compile(iqm, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(test, prepared), iqm(test, prepared), **CLOSE)
        gradients = []
        for metric in (compiled, iqm):
            leaf = test.clone().requires_grad_()
            metric(leaf, reference).sum().backward()
            gradients.append(leaf.grad)
        torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-6)

    def test_extractors(self) -> None:
        network, (test, _) = extractor(), images()
        found = torch.compile(network, fullgraph=True, backend="eager")(test)
        for layer, value in network(test).items():
            torch.testing.assert_close(found[layer], value, **CLOSE)

    @pytest.mark.parametrize("again", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["copy", "pickle"])
    def test_copies_are_ready_to_be_compiled(self, again: Any) -> None:
        iqm, given = again(make()), images()
        found = torch.compile(iqm, fullgraph=True, backend="eager")(*given)
        torch.testing.assert_close(found, iqm(*given), **CLOSE)

    def test_vmap_within(self) -> None:
        iqm, (test, reference) = make(), images()
        each = torch.func.vmap(lambda t, r: iqm(t[None], r[None])[0])
        found = torch.compile(each, backend="eager")(test, reference)
        torch.testing.assert_close(found, iqm(test, reference), **CLOSE)

    def test_nothing_breaks_the_graph(self) -> None:
        found = torch._dynamo.explain(make().as_loss())(*images())
        assert (found.graph_count, found.graph_break_count) == (1, 0)

    def test_autocast_changes_nothing(self) -> None:
        iqm, (test, reference) = make(), images()
        compiled = torch.compile(iqm, fullgraph=True, backend="eager")
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = compiled(test, reference)
        torch.testing.assert_close(found, iqm(test, reference), **CLOSE)


@records_whole
class TestExport:
    # The strict mode records as torch.compile does, which TestCompile tests with each metric.
    @pytest.mark.parametrize(("name", "strict"), [*((name, False) for name in METRICS), ("selected", True)])
    def test_metrics(self, name: str, strict: bool) -> None:
        iqm, given = METRICS[name](), images()
        found = torch.export.export(iqm, given, strict=strict).module()(*given)
        torch.testing.assert_close(found, iqm(*given), **CLOSE)

    @pytest.mark.parametrize("measure", MEASURES, ids=lambda measure: measure.name)
    def test_any_number_of_images(self, measure: Any) -> None:
        iqm, given, more = make(measure), images(), images(5, seed=1)
        batch = torch.export.Dim("batch")
        program = torch.export.export(iqm, given, dynamic_shapes=({0: batch}, {0: batch}), strict=False)
        torch.testing.assert_close(program.module()(*more), iqm(*more), **CLOSE)

    @pytest.mark.parametrize("name", ["short side", pytest.param("selected", marks=pytest.mark.slow)])
    def test_any_size(self, name: str) -> None:
        iqm, given = METRICS[name](), images()
        dims = {0: torch.export.Dim("batch"), 2: torch.export.Dim.AUTO, 3: torch.export.Dim.AUTO}
        module = torch.export.export(iqm, given, dynamic_shapes=(dims, dims), strict=False).module()
        for size in ((1, 90, 80), (2, 70, 66), (2, 50, 64)):  # the last is not resized to a shorter side of 50
            if name == "selected" and size[1] == 50:
                # Its deeper maps have sides under 11, where PyTorch takes a smaller window.
                with pytest.raises((RuntimeError, AssertionError)):
                    module(*images(*size))
            else:
                torch.testing.assert_close(module(*images(*size)), iqm(*images(*size)), **CLOSE)

    def test_another_size_is_refused(self) -> None:
        module = torch.export.export(make(), images()).module()
        with pytest.raises((RuntimeError, AssertionError)):
            module(*images(3, 72, 64))


@pytest.fixture(scope="module")
def iqm() -> fmiqa.ReadyMetric:
    return fmiqa.load_metric("fast")


class TestReadyMade:
    """The same of a metric of two networks, which resizes images."""

    def test_vmap_and_gradients_of_each_image(self, iqm: fmiqa.ReadyMetric) -> None:
        test, reference = images(2)
        leaf = test.clone().requires_grad_()
        iqm(leaf, reference).sum().backward()
        each = torch.func.grad_and_value(lambda t, r: iqm(t[None], r[None])[0])
        gradients, found = torch.func.vmap(each)(test, reference)
        torch.testing.assert_close(found, iqm(test, reference), **CLOSE)
        torch.testing.assert_close(gradients, leaf.grad, rtol=1e-3, atol=1e-6)

    def test_functional_call(self, iqm: fmiqa.ReadyMetric) -> None:
        given, state = images(2), {**dict(iqm.named_parameters()), **dict(iqm.named_buffers())}
        assert torch.equal(torch.func.functional_call(iqm, state, given), iqm(*given))

    @records_whole
    def test_compile_as_one_graph(self, iqm: fmiqa.ReadyMetric) -> None:
        given = images(2)
        found = torch._dynamo.explain(iqm)(*given)
        assert (found.graph_count, found.graph_break_count) == (1, 0)
        compiled = torch.compile(iqm, fullgraph=True, backend="eager")
        torch.testing.assert_close(compiled(*given), iqm(*given), **CLOSE)

    @records_whole
    @pytest.mark.slow
    def test_export_for_any_size(self, iqm: fmiqa.ReadyMetric) -> None:
        dims = {0: torch.export.Dim("batch"), 2: torch.export.Dim.AUTO, 3: torch.export.Dim.AUTO}
        module = torch.export.export(iqm, images(), dynamic_shapes=(dims, dims), strict=False).module()
        for size in ((1, 90, 80), (2, 384, 500), (2, 33, 200)):
            torch.testing.assert_close(module(*images(*size)), iqm(*images(*size)), **CLOSE)


class TestRefused:
    @pytest.mark.parametrize("wrap", [lambda m: m, nn.Sequential], ids=["itself", "within a model"])
    @pytest.mark.filterwarnings("ignore")
    def test_script(self, wrap: Any) -> None:
        for module in (make(), extractor(), AllFeatureIQM(extractor())):
            with pytest.raises(
                InputError, match=r"torch\.jit\.script cannot compile fmiqa's modules; use torch\.export"
            ):
                torch.jit.script(wrap(module))

    def test_symbolic_trace(self) -> None:
        for module in (make(), extractor()):
            with pytest.raises(InputError, match="got Proxy"):
                torch.fx.symbolic_trace(module)

    def test_piq(self) -> None:
        pytest.importorskip("piq")
        measure, (test, reference) = Piq("GMSD"), maps()
        with pytest.raises(InputError, match=r"torch\.func\.vmap.*compare a batch of maps"):
            torch.func.vmap(lambda t, r: measure(t[None], r[None])[0])(test, reference)
        with pytest.raises(InputError, match=r"torch\.jit\.trace"):
            traced(lambda t, r: Piq("FSIM")(t, r), test, reference)
        compiled = torch.compile(lambda t, r: measure(t, r), backend="eager")
        torch.testing.assert_close(compiled(test, reference), measure(test, reference), **CLOSE)
