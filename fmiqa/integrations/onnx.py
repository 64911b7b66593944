"""Metrics as ONNX models, for onnxruntime and other runtimes without PyTorch."""

from __future__ import annotations

import copy
import json
import operator
import os
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from fmiqa._checks import is_count
from fmiqa._io import check_output, write_whole
from fmiqa._version import __version__
from fmiqa.errors import InputError
from fmiqa.metrics import SelectedFeatureIQM
from fmiqa.scoring.scorer import MapScorer

__all__ = ["export_onnx"]

_LARGEST = 2**12  # side up to which an image is sought that fills the windows of all maps
_EXAMPLE = 64  # side of images that the model is recorded with, at least
_BATCH = 2


def export_onnx(iqm: SelectedFeatureIQM, path: str | os.PathLike[str], *, size: tuple[int, int] | None = None) -> None:
    """Write a metric, with its weights, as an ONNX model. Needs `pip install 'fmiqa[onnx]'` and torch 2.9 or newer.

    The model has the inputs `test` and `reference`, both (N, 3, H, W) float32 in [0, 1] for any N, and the output
    `quality` (N,). Its metadata say how it was made: `fmiqa` (the version), `definition` (JSON), `higher_is_better` and
    `least_side`. The file is written completely or not at all. A runtime computes in the precision that it is told to:
    on GPUs, switch TF32 off (`use_tf32=0` of onnxruntime's CUDA provider).

    Args:
        iqm: The metric.
        path: The file, `.onnx`.
        size: (H, W) of all images. By default images may have any size whose maps fill the measure's window.
            Smaller ones, with sides under `least_side`, get the quality NaN or an error of the runtime.

    Raises:
        InputError: Not a metric, a size that is too small, measures that do other steps for other sizes and therefore
            need a `size`, operations that ONNX lacks, a package that is missing, a file that cannot be written.

    Example:
        >>> export_onnx(fmiqa.load_metric(), "fast.onnx", size=(384, 512))  # doctest: +SKIP
    """
    if not isinstance(iqm, SelectedFeatureIQM):
        raise InputError(f"iqm must be a metric of fmiqa, got {type(iqm).__name__}")
    if size is not None and not (isinstance(size, (tuple, list)) and len(size) == 2 and all(map(is_count, size))):
        raise InputError(f"size is (H, W) in pixels, or None for images of any size; got {size!r}")
    check_output(path)
    least = None if size is not None else _least_side(iqm)
    model = _converted(_Checked(iqm, least or 1), size or _example(least or 1), any_size=size is None)
    metadata = {
        "fmiqa": __version__,
        "definition": json.dumps(iqm.definition()),
        "higher_is_better": "true",
        "least_side": str(least or ""),
    }
    write_whole(path, _file(model, metadata))


class _Checked(nn.Module):
    """A metric on the CPU, that gives NaN for images with a side under `least`."""

    def __init__(self, iqm: SelectedFeatureIQM, least: int) -> None:
        super().__init__()
        self.iqm = copy.deepcopy(iqm).cpu()
        self.least = least

    def forward(self, test: Tensor, reference: Tensor) -> Tensor:
        quality: Tensor = self.iqm(test, reference)
        # As tensors, which the model compares; plain numbers would be compared once, while it is recorded.
        sides = torch.stack([torch.full((), side, dtype=torch.int64) for side in test.shape[-2:]])
        return torch.where((sides < self.least).any(), torch.nan, quality)


def _least_side(iqm: SelectedFeatureIQM) -> int:
    """The side from which on the measure does the same steps for all maps, whose sides are then at least its window.

    Raises:
        InputError: The measure does other steps for other sizes.
    """
    scorers = [scorer for scorer in iqm.scorers if isinstance(scorer, MapScorer)]
    for scorer in scorers:
        if getattr(scorer.measure, "tile_window", None) is None:
            raise InputError(
                f"{scorer.measure} compares maps as a whole, and in other steps for other sizes; give the one size of "
                "all images, size=(H, W)"
            )
    low, high = 0, 1
    while not _fills(scorers, high):
        low, high = high, 2 * high
        if high > _LARGEST:
            raise InputError(
                f"maps are smaller than the measure's window even of images with sides of {_LARGEST}; give the one "
                "size of all images, size=(H, W)"
            )
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _fills(scorers, middle) else (middle, high)
    return high


def _fills(scorers: list[MapScorer], side: int) -> bool:
    """Whether all maps of images with these sides are as large as the measure's window."""
    try:
        return all(
            min(height, width) >= scorer.measure.tile_window  # type: ignore[attr-defined]
            for scorer in scorers
            for _, height, width in scorer.extractor.layer_shapes(side, side, scorer.asked).values()
        )
    except InputError:
        return False


def _example(least: int) -> tuple[int, int]:
    """A size far enough from the least one, and with sides that are told apart."""
    side = max(2 * least, _EXAMPLE)
    return side + 1, side + side // 2 + 2


def _converted(module: nn.Module, size: tuple[int, int], *, any_size: bool) -> Any:
    """The `torch.onnx.ONNXProgram` of a module of test and reference images."""
    try:
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise InputError(f"ONNX models need the package onnxscript: pip install 'fmiqa[onnx]' ({error})") from error
    shape = {0: "batch", **({2: "height", 3: "width"} if any_size else {})}
    # Two tensors: one given twice would be taken for one input.
    images = tuple(torch.zeros(_BATCH, 3, *size, device="cpu") for _ in range(2))
    if not any_size:
        module(*images)  # its own errors, such as that images are too small, say more than those of torch
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # of torch, about its own operations
            program = torch.onnx.export(
                module,
                images,
                dynamo=True,
                dynamic_shapes=(shape, shape),
                input_names=["test", "reference"],
                output_names=["quality"],
                custom_translation_table=_translations(),
                verbose=False,
            )
    except Exception as error:  # torch has an own one for each of its steps
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        sizes = " for images of any size; it may be possible for one size=(H, W)" if any_size else ""
        raise InputError(f"this metric cannot be converted to ONNX{sizes}: {cause}") from error
    assert program is not None
    inputs: Any = program.model.graph.inputs
    for given in inputs:
        fixed = [shape[axis] for axis in shape if isinstance(given.shape[axis], int)]
        if fixed:
            raise InputError(f"{', '.join(fixed)} of the images cannot change in an ONNX model; give size=(H, W)")
    return program


def _translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """What torch does not translate.

    Viewings multiply, divide and round sizes, which Python does in float64 and torch would translate to float32.
    """
    from onnxscript import ir, opset18

    op: Any = opset18

    def number(value: Any) -> Any:
        if isinstance(value, (int, float)):
            return op.Constant(value=ir.tensor(float(value), ir.DataType.DOUBLE))
        return op.Cast(value, to=ir.DataType.DOUBLE)

    def quotient(value: Any, by: Any) -> Any:
        return op.Div(number(value), number(by))

    def product(value: Any, by: Any) -> Any:
        whole = [isinstance(v, int) or getattr(v, "dtype", None) == ir.DataType.INT64 for v in (value, by)]
        return op.Mul(value, by) if all(whole) else op.Mul(number(value), number(by))

    def nearest(value: Any, digits: Any = None) -> Any:
        return op.Cast(op.Round(number(value)), to=ir.DataType.INT64)

    def hypot(value: Any, other: Any) -> Any:
        return op.Sqrt(op.Add(op.Mul(value, value), op.Mul(other, other)))

    return {
        torch.sym_float: number,
        operator.truediv: quotient,
        operator.mul: product,
        round: nearest,
        torch.ops.prims.hypot.default: hypot,
    }


def _file(program: Any, metadata: dict[str, str]) -> bytes:
    """The model's bytes, without what torch notes in it of the files on this machine."""
    proto = program.model_proto
    for part in (proto.graph, *proto.functions):
        for node in part.node:
            node.ClearField("metadata_props")
            node.ClearField("doc_string")
    for value in (*proto.graph.input, *proto.graph.output, *proto.graph.value_info, *proto.graph.initializer):
        value.ClearField("metadata_props")
    proto.graph.ClearField("metadata_props")
    proto.graph.ClearField("doc_string")
    proto.ClearField("metadata_props")
    for key, value in metadata.items():
        proto.metadata_props.add(key=key, value=value)
    return bytes(proto.SerializeToString())
