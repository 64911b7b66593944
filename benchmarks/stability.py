"""Stability selection and the permutation null: how long they take, and against one selection at a time.

    python benchmarks/stability.py SCORES.safetensors [--subsamples 200 --alone 6 --trials 100]

The selections run alone are the first ones of the batch; their sets are checked to be the same. The false-alarm rate
of the null is counted on data sets of pure noise.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from common import store

import fmiqa
from fmiqa.selection.criteria import Objective
from fmiqa.selection.engine import Candidates, climb
from fmiqa.selection.forward import usable
from fmiqa.selection.splits import Split, counts_of, grouped_subsamples


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scores", type=Path)
    parser.add_argument("--subsamples", type=int, default=200)
    parser.add_argument("--max-maps", type=int, default=10)
    parser.add_argument("--alone", type=int, default=6, help="how many to run one by one")
    parser.add_argument("--trials", type=int, default=100, help="noise data sets")
    args = parser.parse_args()
    scores = fmiqa.ScoreMatrix.load(args.scores)

    alarms = sum(noise_alarm(trial) for trial in range(args.trials))
    print(f"permutation null on {args.trials} noise data sets: evidence at .05 in {alarms}")

    splits = grouped_subsamples(scores.groups, repeats=args.alone)
    start = time.perf_counter()
    alone = [select_alone(scores, s, args.max_maps) for s in splits]
    one_by_one = (time.perf_counter() - start) / len(alone)
    start = time.perf_counter()
    result = fmiqa.stability_selection(scores, subsamples=args.subsamples, max_maps=args.max_maps, progress=True)
    batch = time.perf_counter() - start
    same = [a == b for a, b in zip(alone, result.selected, strict=False)]
    ratio = one_by_one * args.subsamples / batch
    phi = result.stability
    print(
        f"{args.subsamples} re-selections of {args.max_maps} maps: {batch / 60:.1f} min; one {one_by_one:.2f} s alone"
    )
    print(f"one by one / in batch: {ratio:.2f}; the same sets in {sum(same)} of {len(same)}")
    print(f"stability {float(phi.value):.3f} [{float(phi.low):.3f}, {float(phi.high):.3f}]")
    order = result.frequency.argsort(descending=True, stable=True)[:10].tolist()
    top = {str(scores.maps[i]): float(result.frequency[i]) for i in order}
    print("most frequent:", ", ".join(f"{name} {share:.2f}" for name, share in top.items()))
    content = {
        "protocol": {"dataset": scores.options.get("dataset"), "subsamples": args.subsamples, "fraction": 0.5},
        "max_maps": args.max_maps,
        "seconds": batch,
        "seconds_alone_each": one_by_one,
        "ratio": ratio,
        "same_sets": [sum(same), len(same)],
        "stability": [float(v) for v in phi],
        "most_frequent": top,
        "noise": {"trials": args.trials, "alarms_at_05": alarms, "permutations": 19},
    }
    print(f"written to {store('stability', content)}")


def select_alone(scores: fmiqa.ScoreMatrix, split: Split, max_maps: int) -> fmiqa.MapIndex:
    """What `stability_selection` does for one subsample, in a batch of its own."""
    values, y = scores.values.double(), scores.targets
    counts = counts_of([split.train], len(y)).to(y)
    candidates = Candidates(values, y, scores.maps, objective=Objective(), counts=counts, confirm=False)
    allowed = usable(values[split.train], y[split.train])[None]
    ((chosen, _),) = climb(candidates, [[]], allowed, max_maps=max_maps, tol=0.0)
    return scores.maps.at(chosen)


def noise_alarm(trial: int) -> bool:
    """Whether the null finds evidence in 50 images of 5 references and 10 maps of noise."""
    generator = torch.Generator().manual_seed(trial)
    values, targets = torch.rand(50, 10, generator=generator), torch.rand(50, generator=generator)
    groups = [str(i // 10) for i in range(50)]
    return fmiqa.permutation_null(values, targets, groups=groups, permutations=19, max_maps=2, seed=trial).evidence()


if __name__ == "__main__":
    main()
