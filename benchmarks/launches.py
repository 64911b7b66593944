"""What an H100 would take, modelled from kernels, bytes, copies and host waits that are counted without a GPU.

    python benchmarks/launches.py [--only selection] [--lines 10]

The work runs on a pretended CUDA device (`tests/pretended_cuda`), mostly without computing anything. A kernel takes a
launch, its traffic or its arithmetic, whichever is longest; host waits and blocking copies add theirs. Nothing overlaps
and no cache helps; decoding, Python's own time and kernels that are slower than the memory are left out. Compiled, each
`Fused` function is one kernel that reads its arguments and writes its results once. Writes results/launches.json.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from common import store

import fmiqa
from fmiqa import FeatureExtractor, MapIndex, SelectedFeatureIQM
from fmiqa._runtime.compiled import compiling
from fmiqa._tables import text_table
from fmiqa.scoring.scorer import MapScorer
from fmiqa.selection.criteria import Objective
from fmiqa.selection.engine import Candidates

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from pretended_cuda.device import compiled_as_one_kernel, pretended_cuda
from pretended_cuda.log import H100, Counts, Log

HEIGHT, WIDTH = 384, 512
CHOSEN = [3, 40, 700]  # maps that are in the set before the step
Case = tuple[str, Callable[[], object]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only", choices=WORK, nargs="*", default=list(WORK), help="what to count; written only for all"
    )
    parser.add_argument("--lines", type=int, default=0, metavar="N", help="name the N lines with the most kernels")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    figures: dict[str, Any] = {}
    for name in args.only:
        for compiled in (False, True):
            for case, counts, lines in counted(WORK[name], compiled):
                label = f"{case}, {'compiled' if compiled else 'eager'}"
                figures[label] = {**counts._asdict(), "launching_s": counts.launches * H100.launch}
                if args.lines:
                    print(f"{label}:\n{top(lines, args.lines)}\n")
    rows = [("", "launches", "waits", "uploads", "downloads", "GB", "launching ms", "modelled ms")]
    for label, found in figures.items():
        whole = [str(found[key]) for key in ("launches", "waits", "uploads", "downloads")]
        times = [f"{1e3 * found[key]:.2f}" for key in ("launching_s", "seconds")]
        rows.append((label, *whole, f"{found['bytes'] / 1e9:.3f}", *times))
    print(text_table(rows))
    if list(args.only) == list(WORK):
        print(f"written to {store('launches', {'model': H100._asdict(), 'work': figures}, torch.device('cpu'))}")


def counted(work: Callable[[], Iterator[Case]], compiled: bool) -> Iterator[tuple[str, Counts, Log]]:
    """What each case of some work does, after it has run once."""
    with pretended_cuda(data=DATA.get(work, "meta")) as log, compiled_as_one_kernel(), compiling(compiled):
        for name, run in work():
            run()
            log.lines.clear()
            yield name, log.of(run), log


def top(log: Log, count: int) -> str:
    """The lines with the most kernels, and all that wait or copy."""
    return "\n".join([*log.lines_of("launch").splitlines()[:count], log.lines_of("wait", "upload")])


def selection() -> Iterator[Case]:
    """A step of forward selection with every map as a candidate."""
    for maps in (1152, 4224):
        values, targets = random_scores(3000, maps)
        candidates = Candidates(values, targets, MapIndex.of_layers({"map": maps}), objective=Objective())
        allowed = torch.ones(1, maps, dtype=torch.bool, device="cuda")
        allowed[0, CHOSEN] = False
        yield f"selection step, 3000 x {maps}", partial(candidates.best, [CHOSEN], allowed)


def scoring() -> Iterator[Case]:
    """A batch of the score matrix: 32 test images of one reference, which is prepared."""
    for network in ("alexnet", "vgg16"):
        extractor = FeatureExtractor(network, weights=None).to("cuda")
        scorer = MapScorer(extractor)
        test, reference = (torch.empty(n, 3, HEIGHT, WIDTH, dtype=torch.uint8, device="cuda") for n in (32, 1))
        with torch.inference_mode():
            prepared = scorer.prepare(reference)
        yield f"{network}: features of 32 images", torch.inference_mode()(partial(all_features, extractor, test))
        yield f"{network}: scores of 32 images", torch.inference_mode()(partial(scorer, test, prepared))


def all_features(extractor: FeatureExtractor, images: torch.Tensor) -> None:
    """A forward pass, each layer dropped at once."""
    for _ in extractor.features(images):
        pass


def metric() -> Iterator[Case]:
    """A metric of 16 maps in five layers, one image at a time."""
    maps = [f"conv{layer}:{channel}" for layer in range(1, 6) for channel in (3, 9, 40)] + ["conv5:200"]
    iqm = SelectedFeatureIQM(FeatureExtractor("alexnet", weights=None), maps).to("cuda")
    test, reference = (torch.empty(1, 3, HEIGHT, WIDTH, dtype=torch.uint8, device="cuda") for _ in range(2))
    prepared = iqm.prepare(reference)
    yield "metric of 16 maps, 1 image and its reference", partial(iqm, test, reference)
    yield "metric of 16 maps, 1 image, reference prepared", partial(iqm, test, prepared)


def correlation() -> Iterator[Case]:
    """Fitted PLCC of 116 maps on 3000 images."""
    values, targets = random_scores(3000, 116)
    columns = values.T.double().contiguous()
    yield "plcc, 116 x 3000", partial(fmiqa.plcc, columns, targets)


def weighted() -> Iterator[Case]:
    """A weighted search, whose rounds depend on the scores; its descent runs on the CPU, and that time is left out."""
    values, targets = random_scores(600, 116)
    options: dict[str, Any] = {"groups": [f"r{i // 24}" for i in range(600)], "strengths": (0.3, 0.2, 0.12)}
    yield "weighted search, 600 x 116, 3 strengths", partial(fmiqa.weighted_select, values, targets, **options)


def random_scores(images: int, maps: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores that follow quality more or less, on the device."""
    generator = torch.Generator().manual_seed(0)
    targets = torch.rand(images, generator=generator, dtype=torch.float64)
    noise = torch.rand(images, maps, generator=generator) * (0.5 + 2 * torch.rand(maps, generator=generator))
    return torch.sigmoid(3 * targets[:, None].float() - noise).cuda(), targets.cuda()


WORK = {"selection": selection, "scoring": scoring, "metric": metric, "correlation": correlation, "weighted": weighted}
DATA = {weighted: "cpu"}  # the others take the same steps whatever the values

if __name__ == "__main__":
    main()
