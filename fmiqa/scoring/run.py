"""The score matrix of a data set: one batched pass, resumable, within a memory budget."""

from __future__ import annotations

import copy
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fmiqa._io import check_output
from fmiqa._progress import progress_bar
from fmiqa._runtime.distributed import from_first, gather, is_first, share
from fmiqa.datasets.base import IQADataset, Sample, SampleSource, check_data, checked_sample
from fmiqa.errors import FileFormatError, InputError
from fmiqa.features.extractor import FeatureExtractor, check_extractor
from fmiqa.features.networks import NETWORKS
from fmiqa.maps import FeatureMap, MapIndex
from fmiqa.measures import Custom, Measure
from fmiqa.scoring.batches import BatchScorer, to_host
from fmiqa.scoring.checkpoint import Checkpoint
from fmiqa.scoring.loading import (
    dataset_name,
    default_workers,
    digest_of,
    item_digests,
    item_names,
    loaded,
    reference_ids,
)
from fmiqa.scoring.matrix import ScoreMatrix
from fmiqa.scoring.parts import ScorePart, in_order, refuse_other_items, scores_of
from fmiqa.scoring.scorer import MapScorer
from fmiqa.scoring.shards import Shard

__all__ = ["score_matrix"]

_RUN = "fmiqa score matrix run 1"
# Images in a part, which a kill costs at most.
_PART_ROWS = 32
_PART_ROWS_ELSEWHERE = 256
_SAMPLED = 64  # items that each shard looks at, to see that all are of the same images and scores

# Batches beyond these are no faster: a CPU's cache is full, a GPU is busy.
_LARGEST_BATCH = {"cpu": 8}
_LARGEST_BATCH_ELSEWHERE = 128
_DEFAULT_MEMORY = 2**30
_LEAST_MEMORY = 2**20
_DROPPED = torch.empty(0, device="cpu")  # in place of images that are no longer needed


class _Computed(NamedTuple):
    """A part whose scores may still be on their way."""

    number: int
    scores: Callable[[], Tensor]
    samples: list[Sample]  # without images
    digests: list[str]


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
    shard: tuple[int, int] | None = None,
    check: bool = True,
    compile: bool | None = None,
    progress: bool = False,
) -> ScoreMatrix:
    """Score every image of a data set at every feature map (step 3 of the paper).

    Images go through the network once; each layer is reduced to one number a map at once and dropped.
    A reference's side is computed once for all its test images. Images keep their size.

    Called in every process of a `torch.distributed` process group, the images are dealt to the processes, and all
    return the whole result. On machines of one kind it has the same bits as one process's (see `fmiqa.distributed`).

    Args:
        extractor: The network.
        data: Any map-style data set of `Sample` objects, `torch.utils.data.Subset` too.
        maps: The maps to score, all by default.
        measure: How maps are compared: `"ssim"`, or a `Measure` with options such as `SSIM(data_range="pair")`.
        device: The device to compute on, by default the extractor's. The extractor itself is not moved.
        memory: Bytes that images, features and moments may take on the device; batches are cut to fit, and images of
            which not one fits are scored in tiles. By default 1 GiB, and on a GPU the largest power of two that is at
            most half of what is free.
        batch_size: The largest number of test images in a batch: by default 8 on a CPU, where all of them have one
            reference, and 128 elsewhere, of any references.
        workers: How many threads decode images ahead, or processes where the data set does not have an attribute
            `thread_safe` that is true; those of this library do. By default 0 on a CPU, where items are decoded when
            they are needed; on a GPU up to 16 threads or 8 processes. A list of samples needs none.
        save: File for the result (safetensors). Finished parts are kept beside it in `<save>.parts`, and
            a run that was stopped goes on from them when called again; a damaged part is computed again. They
            are removed at the end. Weights, images and scores that have changed meanwhile are refused; items of a
            data set of your own are compared by its method `digest(index) -> str`, or else by their names.
            Several processes may go on from parts of another number of processes; on several machines, the folder
            has to be on a file system that they share, or only the first one's parts are found again. The first
            process writes the file. A file that has been finished with the same weights, options, images and scores is
            loaded and not computed again.
        shard: `(i, n)`, the i-th of n shards from 1: computes its images alone, without communication, and saves
            them beside `save`, in `scores.shard-2-of-3.safetensors` beside `scores.safetensors`, for `merge_shards`.
            A shard that is finished is loaded and not computed again.
        check: Decode every image (of the shard) once before the start, so that a damaged file is found now.
        compile: Make one kernel of the measure's inner loop with `torch.compile`; by default where there are so
            many images that the seconds it takes (some 40, fewer once torch has cached the kernels) come back: some
            4,000 of 384x512 with AlexNet and 150 with VGG16 on a CPU, 400,000 and 15,000 on a GPU. Where it is not
            possible, a warning says so and the run goes on without. Scores move by rounding only.
        progress: Show a progress bar.

    Returns:
        The scores with maps, targets, groups, names and options, of the whole data set or of the shard. The values do
        not depend on batches or order beyond float32 rounding (about 1e-6, and up to 1e-3 for dark maps of few
        positions), and are the same bits for the same call on the same machine with the same number of threads. On a
        GPU this holds for the same `memory`, where its default depends on what is free, and as long as
        `torch.backends.cudnn.benchmark` is off, which picks the convolution's algorithm by a race. No operation on the
        way adds up in an order of chance.

    Raises:
        InputError: An item that is not a `Sample`, pairs of different size, images too small for a layer; `save`
            cannot be written. A shard that is not one of n, has no file, or is asked for in a process group.
        DatasetError: From the check, naming every damaged file.
        ResumeError: `save` has parts, or a finished shard, of a run with other options, weights or images.
        WorkerError: Another process of the group ended or does not answer.

    Example:
        >>> import warnings; warnings.simplefilter("ignore")
        >>> images = torch.randint(0, 256, (3, 3, 96, 96), dtype=torch.uint8)
        >>> data = [Sample(images[0], images[i], float(i), "first", f"test{i}") for i in (1, 2)]
        >>> score_matrix(FeatureExtractor("alexnet", weights=None), data, maps=["conv1:0", "conv3:7"]).values.shape
        torch.Size([2, 2])
    """
    check_extractor(extractor)
    check_data(data)
    chosen = None if shard is None else Shard.of(shard, save)
    file = save if chosen is None else chosen.file
    home = torch.device(device) if device is not None else extractor.device
    if home != extractor.device:
        extractor = copy.deepcopy(extractor).to(home)
    scorer = MapScorer(extractor, maps, measure=measure)
    run = _ScoreRun(scorer, data, home, memory, batch_size, workers, compile, kept=save is not None)
    numbers = list(range(len(run.plan))) if chosen is None else chosen.share(run.plan)
    checkpoint = Checkpoint.beside(file)
    parts: dict[int, ScorePart] = {}
    description: dict[str, Any] = {}
    if chosen is not None:
        description = run.describe(shards=True)
        found = chosen.finished(description, run.look_again)
        if found is not None:
            return found.part.scores
    elif file is not None:
        saved = from_first(lambda: run.saved(file))
        if saved is not None:
            return saved

    def begin() -> list[int]:
        if file is not None:
            check_output(file, beside=".parts/run.json")
        if check and hasattr(data, "check"):
            rows = [row for number in numbers for row in run.plan[number]]
            partly = {"rows": rows} if chosen is not None and isinstance(data, IQADataset) else {}
            data.check(progress=progress, **partly)
        if checkpoint.folder is not None:
            checkpoint.open(_RUN, description or run.describe())
            parts.update(run.finished(checkpoint, numbers))
            refuse_other_items(checkpoint.folder, parts, run.look_again)
        return list(parts)

    def end() -> None:
        if file is not None:
            saved = result if chosen is None else chosen.of_parts(result, parts, description)
            saved.save(file)
            checkpoint.remove()

    finished = set(from_first(begin))
    mine = share([number for number in numbers if number not in finished])
    done = sum(len(run.plan[number]) for number in finished)
    total = done + sum(len(run.plan[number]) for number in mine)
    with _bar(progress and is_first(), total, done) as bar:
        for number, part in run.compute(mine):
            checkpoint.write(_part_name(number), part)
            parts[number] = part
            bar.update(len(part))
    for theirs in gather(parts):
        parts.update(theirs)
    result = run.assemble(parts)
    from_first(end)
    return result


class _ScoreRun:
    """What is computed, in which order and in which batches."""

    def __init__(
        self,
        scorer: MapScorer,
        data: SampleSource,
        device: torch.device,
        memory: int | None,
        batch_size: int | None,
        workers: int | None,
        compile: bool | None,
        *,
        kept: bool,
    ) -> None:
        if batch_size is not None and batch_size < 1:
            raise InputError(f"batch_size is at least 1, got {batch_size}")
        if memory is not None and memory < _LEAST_MEMORY:
            raise InputError(f"memory is a number of bytes, at least one MiB (1048576), got {memory}")
        self.scorer = scorer.eval()
        self.maps = MapIndex(scorer.maps)
        self.data = data
        self.device = device
        self.memory = memory or _default_memory(device)
        self.batch_size = batch_size or _LARGEST_BATCH.get(device.type, _LARGEST_BATCH_ELSEWHERE)
        self.workers = default_workers(data, device) if workers is None else workers
        self.plan = _plan(reference_ids(data), len(data), device)
        self._batches = BatchScorer(self.scorer, device, self.memory, self.batch_size, compile, len(data))
        self._compile = compile
        self._kept = kept
        self.options = {"dataset": dataset_name(data), **self.scorer.options()}  # of the weights as they are now

    def describe(self, *, shards: bool = False) -> dict[str, Any]:
        """What finished parts must share with this run to be used again, and shards to be merged."""
        names = item_names(self.data)
        digest = hashlib.sha256(json.dumps([names, self.plan, [str(m) for m in self.scorer.maps]]).encode())
        return {
            **self.options,
            "operations_sha256": self.scorer.extractor.operations_sha256,
            "measure_sha256": getattr(self.scorer.measure, "parameters_sha256", None),
            "images": len(self.data),
            "maps": len(self.scorer.maps),
            "batch_size": self.batch_size,
            "memory": self.memory if self.device.type == "cpu" else None,  # what is free on a GPU changes by itself
            "device": self.device.type,
            "compile": self._compile,
            "images_and_maps_sha256": digest.hexdigest(),
            **({"sampled_items_sha256": self._sample_sha256()} if shards else {}),
        }

    def _sample_sha256(self) -> str:
        """Of some items of the data set, which are the same in every shard."""
        count = min(_SAMPLED, len(self.data))
        rows = [len(self.data) * i // count for i in range(count)]
        digests = item_digests(self.data, rows) or [digest_of(checked_sample(self.data[row], row)) for row in rows]
        return hashlib.sha256(json.dumps(digests).encode()).hexdigest()

    def finished(self, checkpoint: Checkpoint, numbers: Iterable[int]) -> dict[int, ScorePart]:
        """Those of the given parts that an interrupted run has left."""
        found = {}
        for number in numbers:
            part = checkpoint.read(_part_name(number), ScorePart)
            placed = None if part is None else part.placed(self.plan[number], self.maps)
            if placed is not None:
                found[number] = placed
        return found

    def saved(self, file: str | os.PathLike[str]) -> ScoreMatrix | None:
        """What an earlier call with the same network, measure, maps, images and scores has saved.

        Of networks and measures of your own, whose code a file does not record, nothing is taken.
        """
        own_code = self.options["network"] not in NETWORKS or isinstance(self.scorer.measure, Custom)
        if own_code or not os.path.isfile(file):
            return None
        try:
            found = ScoreMatrix.load(file)
        except FileFormatError:
            return None
        if found.options != self.options or found.maps != self.maps or found.digests is None:
            return None
        digests = item_digests(self.data, range(len(self.data)))
        return found if found.names == item_names(self.data) and found.digests == digests else None

    def look_again(self, rows: list[int]) -> list[tuple[int, str | None, str]]:
        """Row, name (where it is to be compared) and digest of finished items, as far as they cost no decoding.

        Of data that says nothing of its items without decoding them, the first one is decoded.
        """
        digests = item_digests(self.data, rows)
        if digests is not None:
            return [(row, None, digest) for row, digest in zip(rows, digests, strict=True)]
        if item_names(self.data) is not None:
            return []
        sample = self.data[rows[0]]
        return [(rows[0], sample.name, digest_of(sample))]

    @torch.inference_mode()
    def compute(self, numbers: Sequence[int]) -> Iterator[tuple[int, ScorePart]]:
        """The given parts of the plan, one by one."""
        order = [row for number in numbers for row in self.plan[number]]
        items = loaded(self.data, order, self.workers, digests=self._kept)
        before: _Computed | None = None
        for number in numbers:
            scores, said, digests = [], [], []
            for batch in self._batches.batches(items, len(self.plan[number])):
                scores.append(self._batches.scores(batch))
                said += [replace(sample, reference=_DROPPED, distorted=_DROPPED) for sample in batch.samples]
                digests += [item.digest for item in batch.items if item.digest is not None]
                if before is not None:
                    yield self._finished(before)  # which the host waits for while the device has a batch to do
                    before = None
            before = _Computed(number, to_host(torch.cat(scores)), said, digests)
            if self.device.type == "cpu":
                yield self._finished(before)
                before = None
        if before is not None:
            yield self._finished(before)

    def _finished(self, part: _Computed) -> tuple[int, ScorePart]:
        scores = scores_of(part.scores(), part.samples, self.maps)
        return part.number, ScorePart(scores, self.plan[part.number], part.digests)

    def assemble(self, parts: Mapping[int, ScorePart]) -> ScoreMatrix:
        """All parts as one matrix, in the order of the data set."""
        nothing = ScorePart(scores_of(torch.empty(0, len(self.maps), device="cpu"), [], self.maps))
        ordered = [parts[number] for number in sorted(parts)] or [nothing]  # a shard may have no part
        return replace(in_order(ordered), options=self.options)


def _plan(ids: list[str] | None, count: int, device: torch.device) -> list[list[int]]:
    """Parts of rows, those of a reference together; on a CPU of one reference each.

    The same for any number of processes, whose results would not have the same bits otherwise.
    """
    by_reference: dict[str, list[int]] = {}
    for row in range(count):
        by_reference.setdefault("" if ids is None else ids[row], []).append(row)
    groups = list(by_reference.values())
    if device.type == "cpu":
        return [rows[i : i + _PART_ROWS] for rows in groups for i in range(0, len(rows), _PART_ROWS)]
    ordered = [row for rows in groups for row in rows]
    return [ordered[i : i + _PART_ROWS_ELSEWHERE] for i in range(0, count, _PART_ROWS_ELSEWHERE)]


def _default_memory(device: torch.device) -> int:
    """On a GPU the largest power of two of which as much again is free, so that most often it is the same."""
    if device.type != "cuda":
        return _DEFAULT_MEMORY
    half: int = torch.cuda.mem_get_info(device)[0] // 2
    return max(_LEAST_MEMORY, 1 << half.bit_length() - 1)


def _bar(progress: bool, total: int, done: int) -> Any:
    return progress_bar(show=progress, total=total, initial=done, desc="scoring", unit="image")


def _part_name(number: int) -> str:
    return f"part-{number:06d}.safetensors"
