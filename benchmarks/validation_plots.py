"""Draw the pictures of docs/guide/held-out.md from a score matrix.

python benchmarks/validation_plots.py SCORES.safetensors
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib as mpl

import fmiqa

mpl.use("Agg")


def main() -> None:
    """Run the validation and the null, print and draw them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scores", type=Path)
    parser.add_argument("--max-maps", type=int, default=16)
    parser.add_argument("--permutations", type=int, default=39)
    args = parser.parse_args()
    images = Path(__file__).parent / "images"
    scores = fmiqa.ScoreMatrix.load(args.scores)
    validation = fmiqa.cross_validate(scores, max_maps=args.max_maps)
    print(validation)
    validation.plot().figure.savefig(images / "validation.png", dpi=130)
    null = fmiqa.permutation_null(scores, permutations=args.permutations, max_maps=3, progress=True)
    print(null)
    null.plot().figure.savefig(images / "null.png", dpi=130)


if __name__ == "__main__":
    main()
