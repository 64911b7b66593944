"""The score matrix of a data set: one batched pass, resumable, within a memory budget."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from fmiqa.comparison import MapScorer, PreparedImages
from fmiqa.datasets.base import Sample
from fmiqa.errors import InputError, ResumeError
from fmiqa.features import FeatureExtractor
from fmiqa.io import load_json, load_tensors, save_json, save_tensors
from fmiqa.maps import FeatureMap, MapIndex
from fmiqa.measures import Measure
from fmiqa.scores import ScoreMatrix

__all__ = ["SampleSource", "score_matrix"]

_PART = "fmiqa score matrix part 1"
_RUN = "fmiqa score matrix run 1"
_PART_ROWS = 32  # a kill costs at most so many images

# Batches beyond these are no faster: a CPU's cache is full, a GPU is busy.
_LARGEST_BATCH = {"cpu": 8}
_LARGEST_BATCH_ELSEWHERE = 64
_DEFAULT_MEMORY = 2**30


class SampleSource(Protocol):
    """Any map-style data set of `Sample`s."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Sample: ...


def score_matrix(
    extractor: FeatureExtractor,
    data: SampleSource,
    *,
    maps: Iterable[FeatureMap | str] | None = None,
    measure: str | Measure = "ssim",
    device: torch.device | str | None = None,
    memory: int | None = None,
    batch_size: int | None = None,
    workers: int | None = None,
    save: str | os.PathLike[str] | None = None,
    check: bool = True,
    progress: bool = False,
) -> ScoreMatrix:
    """Score every image of a data set at every feature map (step 3 of the paper).

    Images go through the network once; each layer is reduced to one number a map at once and dropped.
    A reference's side is computed once for all its test images. Images keep their size.

    Args:
        extractor: the network.
        data: any map-style data set of `Sample`s, `torch.utils.data.Subset` too.
        maps: the maps to score, all by default.
        measure: how maps are compared: `"ssim"`, or a `Measure` with options such as `SSIM(data_range="pair")`.
        device: where to compute; by default where the extractor is. The extractor itself stays where it is.
        memory: bytes that images, features and moments may take on the device, 1 GiB by default (half of
            what is free on a GPU); batches are cut to fit.
        batch_size: the largest number of test images in a batch, chosen by device and `memory` if None.
        workers: processes that decode images ahead; by default 0 on a CPU, up to 8 on a GPU.
        save: file for the result (safetensors). Finished parts are kept beside it in `<save>.parts`, and
            a run that was stopped goes on from them when called again; they are removed at the end.
        check: decode every image once before the start, so that a damaged file is found now.
        progress: show a progress bar.

    Returns:
        The scores with maps, targets, groups, names and options. The values do not depend on batches or order
        beyond float32 rounding (about 1e-6), and are the same bits for the same call on the same machine.

    Raises:
        InputError: an item that is not a `Sample`, pairs of different size, images too small for a layer.
        DatasetError: from the check, naming every damaged file.
        ResumeError: `save` has parts of a run with other options.

    Example:
        >>> import warnings; warnings.simplefilter("ignore")
        >>> images = torch.randint(0, 256, (3, 3, 96, 96), dtype=torch.uint8)
        >>> data = [Sample(images[0], images[i], float(i), "first", f"test{i}") for i in (1, 2)]
        >>> score_matrix(FeatureExtractor("alexnet", weights=None), data, maps=["conv1:0", "conv3:7"]).values.shape
        torch.Size([2, 2])
    """
    if len(data) == 0:
        raise InputError("the data set is empty; there is nothing to score")
    if check and hasattr(data, "check"):
        data.check(progress=progress)
    home = torch.device(device) if device is not None else extractor.device
    if home != extractor.device:
        extractor = copy.deepcopy(extractor).to(home)
    scorer = MapScorer(extractor, maps, measure=measure)
    run = _Run(scorer, data, home, memory, batch_size, workers)
    parts = _Parts(save, run.plan, run.describe()) if save is not None else _Parts(None, run.plan, {})
    bar = _bar(progress, len(data), sum(len(run.plan[k]) for k in parts.finished))
    for number, part in run.compute(parts.missing):
        parts.add(number, part)
        bar.update(len(part["rows"]))
    bar.close()
    result = run.assemble(parts.all())
    if save is not None:
        result.save(save)
        parts.remove()
    return result


class _Run:
    """What is computed, in which order and in which batches."""

    def __init__(
        self,
        scorer: MapScorer,
        data: SampleSource,
        device: torch.device,
        memory: int | None,
        batch_size: int | None,
        workers: int | None,
    ) -> None:
        if batch_size is not None and batch_size < 1:
            raise InputError(f"batch_size is at least 1, got {batch_size}")
        if memory is not None and memory < 2**20:
            raise InputError(f"memory is a number of bytes, at least one MiB (1048576), got {memory}")
        self.scorer = scorer.eval()
        self.data = data
        self.device = device
        self.memory = memory or _default_memory(device)
        self.batch_size = batch_size or _LARGEST_BATCH.get(device.type, _LARGEST_BATCH_ELSEWHERE)
        self.workers = workers if workers is not None else (min(8, os.cpu_count() or 1) if device.type == "cuda" else 0)
        self.plan = _plan(reference_ids(data), len(data))
        self._reference: tuple[Tensor, PreparedImages | Tensor] | None = None
        self._footprint: dict[tuple[int, ...], tuple[int, int]] = {}

    def options(self) -> dict[str, Any]:
        extractor = self.scorer.extractor
        return {
            "dataset": str(getattr(_innermost(self.data), "name", type(self.data).__name__)),
            "network": extractor.network_name,
            "weights_sha256": extractor.weights_sha256,
            "stage": extractor.stage,
            "measure": self.scorer.measure.options(),
            "dtype": str(extractor.dtype).removeprefix("torch."),
        }

    def describe(self) -> dict[str, Any]:
        """What finished parts must share with this run to be used again."""
        names = getattr(_innermost(self.data), "names", None)
        digest = hashlib.sha256(json.dumps([names, self.plan, [str(m) for m in self.scorer.maps]]).encode())
        return {
            **self.options(),
            "images": len(self.data),
            "maps": len(self.scorer.maps),
            "batch_size": self.batch_size,
            "memory": self.memory if self.device.type == "cpu" else None,  # what is free on a GPU changes by itself
            "device": self.device.type,
            "images_and_maps_sha256": digest.hexdigest(),
        }

    @torch.inference_mode()
    def compute(self, numbers: Sequence[int]) -> Iterator[tuple[int, dict[str, Any]]]:
        """The given parts of the plan, one by one."""
        order = [row for number in numbers for row in self.plan[number]]
        samples = iter(
            DataLoader(
                self.data,  # type: ignore[arg-type]
                sampler=order,
                batch_size=None,
                collate_fn=_as_it_is,
                num_workers=min(self.workers, len(order)),
            )
        )
        for number in numbers:
            rows = self.plan[number]
            part = [_checked(next(samples), row) for row in rows]
            values = torch.cat([self._score(run) for run in _runs(part)])
            yield number, {
                "rows": rows,
                "values": values,
                "targets": [float(s.score) for s in part],
                "groups": [s.reference_id for s in part],
                "names": [s.name for s in part],
                "distortions": [s.distortion for s in part],
            }

    def _score(self, samples: list[Sample]) -> Tensor:
        """Samples of one reference image: (n, M)."""
        image = samples[0].reference
        size, fixed = self._bytes(image)
        if self._reference is None or not torch.equal(self._reference[0], image):
            self._reference = None  # frees the last one before the next is made
            moved = image[None].to(self.device)
            # A reference whose prepared side does not fit is run again beside each batch, layer by layer.
            self._reference = image, self.scorer.prepare(moved) if fixed <= self.memory // 2 else moved
        room = self.memory - (fixed if isinstance(self._reference[1], PreparedImages) else 0)
        batch = max(1, min(self.batch_size, room // size))
        scores = []
        for start in range(0, len(samples), batch):
            test = torch.stack([s.distorted for s in samples[start : start + batch]])
            scores.append(self.scorer(test.to(self.device), self._reference[1]).float().cpu())
        return torch.cat(scores)

    def _bytes(self, image: Tensor) -> tuple[int, int]:
        """About how much a test image takes while it is scored, and a prepared reference for good."""
        _, height, width = image.shape
        if (height, width) not in self._footprint:
            shapes = self.scorer.extractor.layer_shapes(height, width)
            layers = [c * h * w for c, h, w in shapes.values()]
            item = torch.empty(0, dtype=self.scorer.extractor.dtype).element_size()
            # A layer, the next one, a convolution's workspace, and the moments of a few channels.
            self._footprint[height, width] = (4 * max([*layers, 3 * height * width]) * item, 3 * sum(layers) * item)
        return self._footprint[height, width]

    def assemble(self, parts: list[dict[str, Any]]) -> ScoreMatrix:
        order = torch.argsort(torch.tensor([row for part in parts for row in part["rows"]]))

        def column(key: str) -> list[Any]:
            flat = [item for part in parts for item in part[key]]
            return [flat[i] for i in order.tolist()]

        distortions = column("distortions")
        return ScoreMatrix(
            values=torch.cat([part["values"] for part in parts])[order],
            maps=MapIndex(self.scorer.maps),
            targets=torch.tensor(column("targets"), dtype=torch.float64),
            groups=column("groups"),
            names=column("names"),
            distortions=None if None in distortions else distortions,
            options=self.options(),
        )


class _Parts:
    """Finished parts of a run: on disk beside the result if there is one, in memory otherwise."""

    def __init__(self, save: str | os.PathLike[str] | None, plan: list[list[int]], description: dict[str, Any]) -> None:
        self._done: dict[int, dict[str, Any]] = {}
        self._count = len(plan)
        self._folder = None if save is None else Path(f"{os.fspath(save)}.parts")
        if self._folder is None:
            return
        run = self._folder / "run.json"
        if not run.exists():
            save_json(run, _RUN, description)
        else:
            self._refuse_other(load_json(run, _RUN), description)
        for number, rows in enumerate(plan):
            if self._path(number).exists():
                tensors, header = load_tensors(self._path(number), _PART)
                self._done[number] = {"rows": rows, "values": tensors["values"], **header}

    def _refuse_other(self, before: dict[str, Any], now: dict[str, Any]) -> None:
        now = json.loads(json.dumps(now))
        differing = [f"{k}: then {before.get(k)!r}, now {now.get(k)!r}" for k in now if before.get(k) != now[k]]
        if differing:
            raise ResumeError(
                f"{self._folder} holds finished parts of a run with other options ({'; '.join(differing)}); "
                "call with the same options to go on, save under another name, or delete that folder to start anew"
            )

    def _path(self, number: int) -> Path:
        assert self._folder is not None
        return self._folder / f"part-{number:06d}.safetensors"

    @property
    def finished(self) -> list[int]:
        return sorted(self._done)

    @property
    def missing(self) -> list[int]:
        return [number for number in range(self._count) if number not in self._done]

    def add(self, number: int, part: dict[str, Any]) -> None:
        if self._folder is not None:
            header = {k: v for k, v in part.items() if k not in ("rows", "values")}
            save_tensors(self._path(number), _PART, {"values": part["values"]}, header)
        self._done[number] = part

    def all(self) -> list[dict[str, Any]]:
        return [self._done[number] for number in self.finished]

    def remove(self) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder)


def reference_ids(data: object) -> list[str] | None:
    """The reference of each item without decoding any, where the data set knows it; through `Subset`s."""
    if isinstance(data, Subset):
        inner = reference_ids(data.dataset)
        return None if inner is None else [inner[i] for i in data.indices]
    ids = getattr(data, "reference_ids", None)
    return None if ids is None else [str(i) for i in ids]


def _innermost(data: Any) -> Any:
    return _innermost(data.dataset) if isinstance(data, Subset) else data


def _plan(ids: list[str] | None, count: int) -> list[list[int]]:
    """Parts of rows that share a reference, so that its side is computed once."""
    by_reference: dict[str, list[int]] = {}
    for row in range(count):
        by_reference.setdefault("" if ids is None else ids[row], []).append(row)
    return [rows[i : i + _PART_ROWS] for rows in by_reference.values() for i in range(0, len(rows), _PART_ROWS)]


def _runs(samples: list[Sample]) -> Iterator[list[Sample]]:
    """Stretches of samples whose reference is the same picture, whatever its id says."""
    start = 0
    for i in range(1, len(samples) + 1):
        if i == len(samples) or not _same(samples[i].reference, samples[start].reference):
            yield samples[start:i]
            start = i


def _same(a: Tensor, b: Tensor) -> bool:
    return a is b or torch.equal(a, b)


def _checked(sample: object, row: int) -> Sample:
    if not isinstance(sample, Sample):
        raise InputError(f"item {row} of the data set is a {type(sample).__name__}, expected an fmiqa.datasets.Sample")
    if sample.reference.shape != sample.distorted.shape:
        raise InputError(
            f"item {row} ({sample.name}): test image {tuple(sample.distorted.shape)} and reference "
            f"{tuple(sample.reference.shape)} must have one size (3, H, W); fmiqa never resizes or crops"
        )
    return sample


def _as_it_is(sample: object) -> object:
    return sample


def _default_memory(device: torch.device) -> int:
    return torch.cuda.mem_get_info(device)[0] // 2 if device.type == "cuda" else _DEFAULT_MEMORY


def _bar(progress: bool, total: int, done: int) -> Any:
    from tqdm import tqdm

    return tqdm(total=total, initial=done, desc="scoring", unit="image", disable=not progress)
