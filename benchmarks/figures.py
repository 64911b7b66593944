"""The plots of docs/guide/performance.md, drawn from the results that the other scripts wrote.

    python benchmarks/figures.py [--device cpu --out docs/images/performance.png]

How near the score matrix is to the floor, how far a selection step is from a loop over scipy's fits, the cost curves,
and peak memory against its budget.
"""

from __future__ import annotations

import argparse
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
from common import RESULTS
from measuring import MIB
from score_matrix import WITHOUT_SSIM

from fmiqa._io import write_whole
from fmiqa._plotting import BLUE, GREEN, GREY, ORANGE, SKY

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="whose results of score matrix, memory and cost curves")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "docs/images/performance.png")
    args = parser.parse_args()
    figure, panels = plt.subplots(2, 2, figsize=(11, 7.5), layout="constrained")
    networks = {name: read(f"score_matrix-{name}-{args.device}") for name in ("alexnet", "vgg16")}
    draw_score_matrix(networks, panels[0, 0])
    draw_selection(read("selection"), panels[0, 1])
    draw_curves(read(f"scaling-{args.device}"), panels[1, 0])
    draw_memory(read(f"memory-{args.device}"), panels[1, 1])
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=110)
    write_whole(args.out, content.getvalue())
    print(f"written to {args.out}")


def read(name: str) -> dict[str, Any]:
    path = RESULTS / f"{name}.json"
    if not path.exists():
        raise SystemExit(f"{path} is missing: run the script that writes it first")
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def draw_score_matrix(networks: dict[str, dict[str, Any]], ax: Axes) -> None:
    """Bars of the time of a score matrix to the bare forward's."""
    kinds = {"ours, eager": SKY, "ours, compiled": BLUE, WITHOUT_SSIM: GREEN}
    for place, content in enumerate(networks.values()):
        ratios = content["runs"][0]["ratio_to_bare"]
        for number, (kind, colour) in enumerate(kinds.items()):
            label = None if place else kind
            bars = ax.bar(place + 0.27 * (number - 1), ratios[kind], 0.25, color=colour, label=label)
            ax.bar_label(bars, fmt="%.2f", fontsize=9)
    ax.axhline(1, color=ORANGE, linewidth=1, label="bare forward")
    ax.set_xticks(range(len(networks)), [described(name, content["runs"][0]) for name, content in networks.items()])
    ax.set_ylim(0, 2.1)
    ax.set_ylabel("time to bare forward")
    ax.set_title("Score matrix", fontsize=10)
    ax.legend(fontsize=8, loc="upper left", ncols=2)


def described(network: str, run: dict[str, Any]) -> str:
    height, width = run["size"]
    return f"{network}, {run['images']} images {height}x{width},\n{run['references']} references ({run['data']})"


def draw_selection(content: dict[str, Any], ax: Axes) -> None:
    """Bars of scipy's time over ours, step by step."""
    for number, (kind, colour) in enumerate({"eager": SKY, "compiled": BLUE}.items()):
        ratios = [step["scipy_s"] / step[f"{kind}_s"] for step in content["steps"]]
        places = [place + 0.4 * (number - 0.5) for place in range(len(ratios))]
        ax.bar_label(ax.bar(places, ratios, 0.38, color=colour, label=f"ours, {kind}"), fmt="%.0f", fontsize=9)
    ax.margins(y=0.08)
    ax.set_xticks(range(len(content["steps"])), [f"step {i + 1}" for i in range(len(content["steps"]))])
    ax.set_ylabel("times as fast as scipy's loop")
    of = content["protocol"]
    ax.set_title(f"Selection, {of['images']} images x {of['maps']} candidates ({of['data']})", fontsize=10)
    ax.legend(fontsize=8)


def draw_curves(content: dict[str, Any], ax: Axes) -> None:
    """Seconds against size, both to the smallest, with the fitted exponents."""
    colours = (BLUE, SKY, GREEN, ORANGE, GREY)
    widest = 1.0
    for (name, curve), colour in zip(content["curves"].items(), colours, strict=True):
        size = [x / curve["size"][0] for x in curve["size"]]
        time = [x / curve["seconds"][0] for x in curve["seconds"]]
        ax.plot(size, time, "o-", color=colour, markersize=4, label=f"{name}: exponent {curve['exponent']:.2f}")
        widest = max(widest, size[-1])
    ax.plot([1, widest], [1, widest], ":", color=GREY, linewidth=1, label="in proportion")
    ax.set(xscale="log", yscale="log", xlabel="size, to the smallest", ylabel="time, to that of the smallest")
    ax.set_title(f"Cost curves ({content['network']}, eager)", fontsize=10)
    ax.legend(fontsize=8)
    ax.grid(alpha=0.3)


def draw_memory(content: dict[str, Any], ax: Axes) -> None:
    """Peak memory of each case, and its budget."""
    cases = list(reversed(content["score_matrix"]))
    ax.barh(range(len(cases)), [case["peak"] / MIB for case in cases], color=BLUE, label="peak")
    for place, case in enumerate(cases):
        budget = case["budget"] / MIB
        ax.plot([budget, budget], [place - 0.4, place + 0.4], color=ORANGE, label=None if place else "budget")
    ax.set_yticks(range(len(cases)), [f"{case['network']}\n{case['size'][0]}x{case['size'][1]}" for case in cases])
    ax.set_xlabel("MiB")
    ax.set_title("Memory of a score matrix", fontsize=10)
    ax.set_xlim(0, 1.3 * max(case["budget"] for case in cases) / MIB)
    ax.legend(fontsize=8, loc="upper right")


if __name__ == "__main__":
    main()
