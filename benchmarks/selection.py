"""A selection step against a loop over scipy's curve_fit, and against scikit-learn's sequential selector.

    python benchmarks/selection.py SCORES.safetensors [--steps 3 --threads 2 --device cpu]
    python benchmarks/selection.py --random 3000 4224 [--device cuda]

The loop fits every candidate of every step from the start that is usual in the field (as `curve_fit` is used in papers'
code: one start, up to 2000 evaluations). The same maps must come out, and no candidate may be worse by ours, before
anything is timed. Times are the shortest of some repetitions; writes results/selection.json.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from common import store
from numpy.typing import NDArray
from scipy.optimize import curve_fit

import fmiqa
from fmiqa import MapIndex, ScoreMatrix
from fmiqa._runtime.compiled import compiling
from fmiqa._tables import text_table
from fmiqa.selection.criteria import Objective
from fmiqa.selection.engine import Candidates

Array = NDArray[np.float64]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scores", type=Path, nargs="?")
    parser.add_argument("--random", type=int, nargs=2, metavar=("IMAGES", "MAPS"), help="a matrix of random scores")
    parser.add_argument("--steps", type=int, default=3, help="steps that the loop does too")
    parser.add_argument("--sample", type=int, default=0, help="time the loop on so many candidates only (0: all)")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    scores = ScoreMatrix.load(args.scores) if args.scores else random_scores(*args.random)
    values, y = scores.values.double(), scores.targets
    columns, target = values.numpy().T.copy(), y.numpy()

    rows: list[tuple[str, ...]] = [("step", "chosen", "scipy s", "ours eager s", "ratio", "ours compiled s", "ratio")]
    found = []
    chosen: list[int] = []
    for step in range(args.steps):
        open_to = [c for c in range(columns.shape[0]) if c not in chosen]
        usable = fmiqa.selection.forward.usable(values, y)
        open_to = [c for c in open_to if bool(usable[c])]
        sample = open_to[:: max(1, len(open_to) // args.sample)] if args.sample else open_to
        total = columns[chosen].sum(0)
        start = time.perf_counter()
        loop = [loop_plcc((total + columns[c]) / (len(chosen) + 1), target) for c in sample]
        scipy_seconds = (time.perf_counter() - start) * len(open_to) / len(sample)

        candidates = Candidates(values.to(args.device), y.to(args.device), scores.maps, objective=Objective())
        allowed = torch.zeros(1, len(scores.maps), dtype=torch.bool, device=args.device)
        allowed[0, open_to] = True
        tried = candidates.tried([chosen], allowed).values[0].cpu()
        gaps = torch.tensor(loop, dtype=torch.float64) - tried[sample]
        eager = shortest(partial(candidates.best, [chosen], allowed), args.repeats, args.device)
        with compiling(True):
            compiled_seconds = shortest(partial(candidates.best, [chosen], allowed), args.repeats, args.device)
            (best,) = candidates.best([chosen], allowed)
        (plain,) = candidates.best([chosen], allowed)
        theirs = sample[int(np.nanargmax(loop))]
        same = theirs == plain.position == best.position
        if not same and not args.sample:
            print(f"step {step + 1}: scipy {scores.maps[theirs]}, ours {scores.maps[plain.position]}, {best.position}")
        rows.append(
            (
                str(step + 1), f"{scores.maps[best.position]}{'' if same else ' (differs)'}", f"{scipy_seconds:.2f}",
                f"{eager:.3f}", f"{scipy_seconds / eager:.0f}",
                f"{compiled_seconds:.3f}", f"{scipy_seconds / compiled_seconds:.0f}",
            )
        )  # fmt: skip
        found.append(
            {
                "candidates": len(open_to),
                "scipy_timed_on": len(sample),
                "scipy_s": scipy_seconds,
                "eager_s": eager,
                "compiled_s": compiled_seconds,
                "same_map": same,
                "scipy_better_by_more_than_1e-3": int((gaps > 1e-3).sum()),
                "scipy_better_at_most": float(gaps.nan_to_num(nan=-1.0).max()),
                "scipy_not_converged": int(gaps.isnan().sum()),
            }
        )
        chosen.append(best.position)
    print(text_table(rows))
    for entry in found:
        print({k: v for k, v in entry.items() if k.startswith("scipy_")})
    sklearn = sequential_selector(columns, target)
    if sklearn is not None:
        print(f"scikit-learn's SequentialFeatureSelector: {sklearn * 1e3:.1f} ms a candidate")
    content = {
        "protocol": {
            "data": scores.options.get("dataset"),
            "images": len(scores),
            "maps": len(scores.maps),
            "device": args.device,
            "threads": args.threads,
        },
        "steps": found,
        "sklearn_s_per_candidate": sklearn,
    }
    print(f"written to {store('selection' if args.scores else 'selection-random', content)}")


def random_scores(images: int, maps: int) -> ScoreMatrix:
    """Scores that follow quality more or less, of images in groups of 25."""
    generator = torch.Generator().manual_seed(0)
    y = torch.rand(images, generator=generator, dtype=torch.float64)
    noise = torch.rand(images, maps, generator=generator) * (0.5 + 2 * torch.rand(maps, generator=generator))
    values = torch.sigmoid(3 * y[:, None].float() - noise)
    names = [str(i) for i in range(images)]
    index = MapIndex.of_layers({"map": maps})
    return ScoreMatrix(values, index, y, [str(i // 25) for i in range(images)], names, options={"dataset": "random"})


def logistic5(x: Array, a: float, b: float, c: float, d: float, e: float) -> Array:
    return a * (0.5 - 1 / (1 + np.exp(np.clip(b * (x - c), -500, 500)))) + d * x + e


def loop_plcc(x: Array, y: Array) -> float:
    """Fitted PLCC by one call of curve_fit; NaN where it does not converge."""
    begin = (float(np.ptp(y)), 1 / float(x.std()), float(x.mean()), 0.0, float(y.mean()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            parameters, _ = curve_fit(logistic5, x, y, p0=begin, maxfev=2000)
        except RuntimeError:
            return float("nan")
        return float(np.corrcoef(logistic5(x, *parameters), y)[0, 1])


def shortest(function: Callable[[], object], repeats: int, device: str) -> float:
    """Seconds of the fastest of some calls, after one that warms up."""
    seconds = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        function()
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return min(seconds[1:])


def sequential_selector(columns: Array, y: Array, maps: int = 40) -> float | None:
    """Seconds a candidate of scikit-learn's selector with the fitted PLCC of the mean as its score."""
    try:
        from sklearn.base import BaseEstimator
        from sklearn.feature_selection import SequentialFeatureSelector
    except ImportError:
        print("scikit-learn is not installed; its selector is left out")
        return None

    class Mean(BaseEstimator):  # type: ignore[misc]
        def fit(self, x: Array, y: Array) -> Mean:
            return self

        def score(self, x: Array, y: Array) -> float:
            return float(np.nan_to_num(loop_plcc(x.mean(1), y)))

    everything = [(np.arange(len(y)), np.arange(len(y)))]
    selector = SequentialFeatureSelector(Mean(), n_features_to_select=2, cv=everything)
    start = time.perf_counter()
    selector.fit(columns[:maps].T, y)
    return (time.perf_counter() - start) / (2 * maps - 1)


if __name__ == "__main__":
    main()
