"""What an installed fmiqa has to do, with nothing but its dependencies: `make dist` runs this in an empty environment.

python -I tests/smoke.py VERSION
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from PIL import Image

import fmiqa


def command(*arguments: str) -> str:
    """What the installed command prints."""
    program = Path(sys.executable).with_name("fmiqa")
    return subprocess.run([program, *arguments], check=True, capture_output=True, text=True).stdout


def check(holds: bool, what: str) -> None:
    if not holds:
        sys.exit(f"smoke test: {what}")


def main(version: str) -> None:
    place = Path(fmiqa.__file__)
    check(place.is_relative_to(sys.prefix), f"fmiqa is imported from {place}, not from this environment")
    check(fmiqa.__version__ == version, f"version {fmiqa.__version__}, expected {version}")
    check(command("--version").split() == ["fmiqa", version], "fmiqa --version")

    sample = fmiqa.datasets.Demo(references=1, levels=5, size=128)[4]
    iqm = fmiqa.load_metric()
    test, reference = sample.distorted[None], sample.reference[None]
    quality = iqm(test, reference).item()
    check(0 < quality < 1, f"quality {quality} of a distorted picture")
    # Up to rounding: the scores are weighted sums of float32 values.
    check(abs(iqm(reference, reference).item() - 1) < 1e-5, "quality of a picture and itself")
    blended = torch.lerp(reference / 255, test / 255, 0.5).requires_grad_()
    (1 - iqm(blended, reference / 255)).sum().backward()
    check(bool(blended.grad is not None and blended.grad.isfinite().all() and blended.grad.any()), "gradient")

    with tempfile.TemporaryDirectory() as folder:
        files = [f"{folder}/reference.png", f"{folder}/test.png"]
        for image, file in zip((reference, test), files, strict=True):
            Image.fromarray(image[0].permute(1, 2, 0).numpy()).save(file)
        said = json.loads(command("score", "--reference", *files, "--json", "--quiet", "--device", "cpu"))
        # The command may use other threads than this process, which sum in another order.
        check(abs(said["images"][0]["quality"] - quality) < 1e-5, f"fmiqa score says {said}, expected {quality}")
    print(f"fmiqa {version} works: {place.parent}")


if __name__ == "__main__":
    main(*sys.argv[1:])
