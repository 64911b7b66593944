"""A score matrix and a selection in the processes that torchrun started; `scaling.py` runs it.

    torchrun --standalone --nproc-per-node 2 benchmarks/processes.py

Process 0 prints seconds, a fingerprint of the scores and the chosen maps, as JSON.
"""

from __future__ import annotations

import hashlib
import json
import time
import warnings

import torch
import torch.distributed as dist
from scaling import noise, random_scores

import fmiqa
from fmiqa import FeatureExtractor
from fmiqa._runtime.distributed import is_first
from fmiqa.datasets.base import SampleSource


def main() -> None:
    warnings.simplefilter("ignore")
    dist.init_process_group("gloo")
    torch.set_num_threads(1)
    extractor = FeatureExtractor("alexnet", weights=None)
    values, targets = random_scores(1250, 1152)
    score(extractor, noise(2, 96, 96))
    fmiqa.forward_select(values[:100, :50], targets[:100], max_maps=2)

    # Parts of 32 images are dealt out.
    data = [sample for _ in range(4) for sample in noise(32, 192, 256)]
    dist.barrier()
    start = time.perf_counter()
    scores = score(extractor, data)
    dist.barrier()
    middle = time.perf_counter()
    selection = fmiqa.forward_select(values, targets, max_maps=4)
    dist.barrier()
    end = time.perf_counter()
    if is_first():
        digest = hashlib.sha256(scores.values.numpy().tobytes()).hexdigest()
        found = {"score_matrix": middle - start, "selection": end - middle, "values_sha256": digest}
        print(json.dumps({**found, "maps": [str(m) for m in selection.maps]}))
    dist.destroy_process_group()


def score(extractor: FeatureExtractor, data: SampleSource) -> fmiqa.ScoreMatrix:
    return fmiqa.score_matrix(extractor, data, check=False, compile=False)


if __name__ == "__main__":
    main()
