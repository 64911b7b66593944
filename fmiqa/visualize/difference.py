"""Prediction difference analysis: which pixels of an image a feature map looks at.

Zintgraf, Cohen, Adel & Welling, "Visualizing deep neural network decisions: prediction difference analysis" (ICLR
2017). Each window of pixels is replaced by samples of what else it might have been; its relevance is how much the map's
spatial mean falls (positive: the pixels raise it) on average. A pixel's relevance is the mean over the windows that
cover it. One run of the network serves all maps, and only what a window can touch is run (`fmiqa.visualize.replay`).
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from fmiqa._checks import check_picture
from fmiqa._io import check_output
from fmiqa._progress import progress_bar
from fmiqa._result import Saved
from fmiqa.errors import InputError
from fmiqa.features.extractor import FeatureExtractor, check_extractor
from fmiqa.maps import FeatureMap, MapIndex
from fmiqa.scoring.checkpoint import Checkpoint, refuse_other
from fmiqa.visualize.patches import PatchSampler
from fmiqa.visualize.replay import Replay

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["PAPER", "PredictionDifference", "prediction_difference"]

PAPER: dict[str, Any] = {"stride": 1, "samples": 10}
"""Zintgraf et al.'s settings, with `ConditionalSampler(window=10, padding=2)`: a window at every pixel. Pass them as
`prediction_difference(..., **PAPER)`."""

_RUN = "fmiqa prediction difference run 1"
_WINDOWS = "windows.safetensors"
_ELEMENTS = {"cpu": 2**23, "cuda": 2**28}  # alive at once: what a processor's cache nearly holds, or fills a GPU
_SECONDS = 20.0  # between two savings of what is done
_SEEDS = 1_000_003  # rows of windows have seeds of their own, so that a resumed run draws the same


@dataclass(frozen=True, eq=False)
class PredictionDifference(Saved):
    """Signed relevance of pixels for feature maps.

    Args:
        maps: The M maps.
        relevance: (M, H, W) change of the map's mean that the pixel accounts for: positive where the pixel raises it.
        options: What it was computed with.
    """

    maps: MapIndex
    relevance: Tensor
    options: dict[str, Any] = field(default_factory=dict)

    kind: ClassVar[str] = "fmiqa prediction difference 1"
    binary: ClassVar[bool] = True

    def of(self, map: FeatureMap | str) -> Tensor:
        """(H, W) the relevance for one map."""
        return self.relevance[self.maps.positions(MapIndex([map]))[0]]

    def to_dict(self) -> dict[str, Any]:
        """Everything but tensors, as plain values for JSON."""
        return {"maps": [str(m) for m in self.maps], "options": self.options}

    def tensors(self) -> dict[str, Tensor]:
        """The relevance."""
        return {"relevance": self.relevance}

    @classmethod
    def from_dict(cls, content: dict[str, Any], tensors: dict[str, Tensor]) -> Self:
        """The result again."""
        return cls(MapIndex(content["maps"]), tensors["relevance"], content["options"])


def prediction_difference(
    extractor: FeatureExtractor,
    image: Tensor,
    maps: Iterable[FeatureMap | str],
    *,
    sampler: PatchSampler,
    stride: int = 4,
    samples: int = 10,
    seed: int = 0,
    local: bool | None = None,
    save: str | os.PathLike[str] | None = None,
    progress: bool = False,
) -> PredictionDifference:
    """How much each pixel of an image raises or lowers the mean of each feature map.

    Args:
        extractor: The network, without viewing conditions.
        image: (3, H, W), float in [0, 1] or uint8, on the network's device.
        maps: The feature maps; all are served by the same runs of the network.
        sampler: What replaces a window: `ConditionalSampler` as in the paper, or `MarginalSampler`, fitted to images
            like this one. It says how large the window is.
        stride: Pixels from a window to the next, at most the window's side. The paper's 1 (`**PAPER`) costs 16 times
            as much as 4.
        samples: How many samples replace each window.
        seed: Seed of the samples.
        local: See `Replay`: None runs only what a window can touch, where the network allows it.
        save: File for the result (safetensors); what is done is kept beside it in `<save>.parts`, and a run that was
            stopped goes on from there. A finished one is loaded, so that a loop over many images goes on too.
        progress: Show a progress bar.

    Returns:
        The relevance of each pixel for each map, in units of the map's mean.

    Raises:
        InputError: An image smaller than a window or of another form, unknown maps, a stride beyond the window;
            `save` cannot be written.
        ResumeError: `save` or `<save>.parts` is of a run with other options, or of another image.

    Example:
        >>> import warnings; warnings.simplefilter("ignore")
        >>> from fmiqa.visualize import MarginalSampler
        >>> image = torch.rand(3, 72, 80)
        >>> found = prediction_difference(
        ...     FeatureExtractor("alexnet", weights=None), image, ["conv1:3", "conv2:5"],
        ...     sampler=MarginalSampler([image], patches=50), stride=10, samples=2, progress=False)
        >>> found.relevance.shape
        torch.Size([2, 72, 80])
    """
    chosen = maps if isinstance(maps, MapIndex) else MapIndex(maps)
    check_extractor(extractor)
    if not (isinstance(image, Tensor) and image.ndim == 3 and image.shape[0] == 3):
        given = tuple(image.shape) if isinstance(image, Tensor) else type(image).__name__
        raise InputError(f"one image (3, H, W) at a time, got {given}")
    check_picture(image, "image")
    if not all(hasattr(sampler, part) for part in ("window", "options", "sample")):
        raise InputError(f"sampler is a ConditionalSampler or a MarginalSampler, got {type(sampler).__name__}")
    height, width = image.shape[1:]
    window = sampler.window
    if not (1 <= stride <= window <= min(height, width)) or samples < 1:
        raise InputError(
            f"needed: 1 <= stride <= window <= the image's sides, samples >= 1; got stride {stride}, window {window}, "
            f"samples {samples}, an image of {width}x{height}"
        )
    pixels = image.float() / 255 if image.dtype == torch.uint8 else image
    tops, lefts = _starts(height, window, stride), _starts(width, window, stride)
    options = {
        "network": extractor.network_name,
        "weights_sha256": extractor.weights_sha256,
        "stage": extractor.stage,
        "size": [height, width],
        "stride": stride,
        "samples": samples,
        "seed": seed,
        "maps": [str(m) for m in chosen],
        "image_sha256": hashlib.sha256(pixels.cpu().numpy().tobytes()).hexdigest(),
        **sampler.options(),
    }
    if save is not None and os.path.isfile(save):
        finished = PredictionDifference.load(save)
        refuse_other(save, finished.options, options)
        return finished
    if save is not None:
        check_output(save, beside=".parts/run.json")
    replay = Replay(extractor, image, chosen, local=local)
    checkpoint = Checkpoint.beside(save)
    checkpoint.open(_RUN, options)
    kept, saved = checkpoint.read(_WINDOWS, _Windows), time.monotonic()
    work = _Windows(torch.zeros(len(chosen), len(tops), len(lefts), device="cpu")) if kept is None else kept
    room = _ELEMENTS["cuda" if image.is_cuda else "cpu"]
    at_once = max(1, room // (samples * replay.elements(window, window)))
    with _bar(progress, len(tops) * len(lefts), work.done * len(lefts)) as bar:
        for row in range(work.done, len(tops)):
            generator = torch.Generator().manual_seed(seed * _SEEDS + row)
            for start in range(0, len(lefts), at_once):
                left = lefts[start : start + at_once].to(image.device)
                top = torch.full_like(left, int(tops[row]))
                drawn = sampler.sample(pixels, top, left, samples, generator)
                work.values[:, row, start : start + at_once] = -replay.mean_change(drawn, top, left).T.cpu()
                bar.update(len(left))
            work.done = row + 1
            if time.monotonic() - saved > _SECONDS:
                checkpoint.write(_WINDOWS, work)
                saved = time.monotonic()
    result = PredictionDifference(chosen, _spread(work.values, tops, lefts, window, (height, width)), options)
    if save is not None:
        result.save(save)
        checkpoint.remove()
    return result


class _Windows(Saved):
    """The relevance of windows (M, rows, columns), of which the first rows are done."""

    kind = "fmiqa prediction difference windows 1"
    binary = True

    def __init__(self, values: Tensor, done: int = 0) -> None:
        self.values = values
        self.done = done

    def to_dict(self) -> dict[str, Any]:
        return {"done": self.done}

    def tensors(self) -> dict[str, Tensor]:
        return {"windows": self.values}

    @classmethod
    def from_dict(cls, content: dict[str, Any], tensors: dict[str, Tensor]) -> Self:
        return cls(tensors["windows"].clone(), int(content["done"]))


def _starts(length: int, window: int, stride: int) -> Tensor:
    """Where windows start along a side: every `stride` pixels, and at the end, so that every pixel is covered."""
    last = length - window
    return torch.tensor(sorted({*range(0, last + 1, stride), last}), device="cpu")


def _spread(windows: Tensor, tops: Tensor, lefts: Tensor, side: int, size: tuple[int, int]) -> Tensor:
    """(M, H, W) of each pixel the mean over the windows that cover it."""
    at = windows.new_zeros(windows.shape[0] + 1, size[0] - side + 1, size[1] - side + 1, dtype=torch.float64)
    at[:-1, tops[:, None], lefts] = windows.double()
    at[-1, tops[:, None], lefts] = 1
    box = at.new_ones(1, 1, side, side)
    total = F.conv_transpose2d(at[:, None], box)[:, 0]
    return (total[:-1] / total[-1]).to(windows.dtype)


def _bar(progress: bool, total: int, done: int) -> Any:
    return progress_bar(show=progress, total=total, initial=done, desc="prediction difference", unit="window")
