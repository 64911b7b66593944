"""`fmiqa demo`: extraction, selection and comparison on the embedded data set, without downloads."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fmiqa._io import check_output
from fmiqa._plotting import load_matplotlib, save_figure
from fmiqa._tables import text_table
from fmiqa.cli import options
from fmiqa.cli.evaluate import coefficients_table
from fmiqa.cli.output import Written, add_output_options, print_result, say, wants_progress
from fmiqa.cli.outputs import OutputFolder, save_picture
from fmiqa.datasets import Demo
from fmiqa.errors import InputError
from fmiqa.evaluation.claims import Coefficients, coefficients, fit_options
from fmiqa.maps import MapIndex
from fmiqa.metrics import SelectedFeatureIQM
from fmiqa.scoring.matrix import ScoreMatrix
from fmiqa.scoring.run import score_matrix
from fmiqa.selection import Selection, forward_select
from fmiqa.visualize.plots import selection_figure
from fmiqa.zoo import load_metric

_EXAMPLE = """\
example:
  fmiqa demo --out demo/

The pictures are procedural, the distortions real, the observer simulated: it looks at a few planted feature
maps of AlexNet with seeded random weights. Nothing needs to be downloaded, and it is known which maps matter. The
figures say nothing about how good a metric is.

The same distortions of the first picture are then rated by the ready-made metric that `fmiqa score` uses, which was
selected on real observers' scores; the pictures are written beside the other files."""

_SMALLEST_GAIN = 1e-4  # what the maps after the planted ones gain is the noise of the simulated scores


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = options.new_command(
        commands,
        "demo",
        "Score, select and compare on a small embedded set",
        _EXAMPLE,
        run,
        lambda args: options.kept_parts(Path(args.out) / "scores.safetensors"),
    )
    parser.add_argument(
        "--out", "-o", type=OutputFolder, default="demo", metavar="FOLDER", help="where to write (default: demo)"
    )
    parser.add_argument("--references", type=int, default=16, metavar="N", help="how many pictures (default: 16)")
    options.add_device_option(parser)
    add_output_options(parser)


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    if args.references < 2:
        args.parser.error("--references: at least 2, one to select on and one to judge on")
    start = time.perf_counter()
    folder, progress = Path(args.out), wants_progress(args)
    device = options.device_of(args)
    drawn = _can_draw()
    for name in ("selection.json", "metric.safetensors", "selection.png"):
        check_output(folder / name)
    data = Demo(references=args.references)
    extractor = data.extractor()
    path = folder / "scores.safetensors"
    scores = score_matrix(extractor, data, device=device, save=path, progress=progress)
    selection = forward_select(scores, tol=_SMALLEST_GAIN, progress=progress)
    one, other = _halves(scores)
    half = forward_select(one, tol=_SMALLEST_GAIN, progress=progress)

    metric = SelectedFeatureIQM.from_selection(extractor, selection)
    saves: dict[str, Callable[[str], None]] = {"selection.json": selection.save, "metric.safetensors": metric.save}
    if drawn:
        saves["selection.png"] = lambda path: save_figure(selection_figure(selection, scores), path)
    rated, pictures = _rated(data)
    saves |= {f"pictures/{name}.png": partial(save_picture, picture) for name, picture in pictures.items()}
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    written = Written()
    for name, save in saves.items():
        written.write(name, str(folder / name), save)
    files = ["scores.safetensors", *written.files]

    in_sample = _rows(scores, selection, data.planted)
    held_out = _rows(other, half, data.planted)
    found = [str(m) for m in data.planted if m in selection.maps]
    missed = [str(m) for m in data.planted if m not in selection.maps]
    listed = ", ".join(found or ["none"]) + (f"; not {', '.join(missed)}" if missed else "")
    seen, unseen = len(set(one.groups)), len(set(other.groups))
    pair = f"pictures/{rated['reference']}.png", f"pictures/{rated['images'][0]['name']}.png"
    seconds = time.perf_counter() - start
    print_result(
        args,
        {
            "dataset": data.name,
            "observer": "simulated",
            "images": len(data),
            "references": args.references,
            "maps": [str(m) for m in selection.maps],
            "planted": {"found": found, "missed": missed},
            "in_sample": [asdict(row) for row in in_sample],
            "held_out": [asdict(row) for row in held_out],
            "ready_made": rated,
            "files": [str(folder / name) for name in files],
            "seconds": round(seconds, 1),
        },
        f"""\
{data.name}: {len(data)} images of {args.references} references. The scores are those of a
simulated observer who looks at {len(data.planted)} planted maps; no person saw these images.

{selection}
(no further map raises the PLCC by more than {_SMALLEST_GAIN})

planted maps found: {len(found)} of {len(data.planted)} ({listed})

IN SAMPLE: selected and judged on the same {len(scores)} images
{coefficients_table(in_sample)}

HELD OUT: selected on the images of {seen} references, judged on those of the other {unseen}
{coefficients_table(held_out)}

{_ratings_table(rated)}

written to {folder}: {", ".join(name for name in files if "/" not in name)}, pictures/ ({seconds:.0f} s)
try: fmiqa score --reference {folder / pair[0]} {folder / pair[1]}""",
        written,
    )


def _rated(data: Demo) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Ratings of the distortions of the first picture by the ready-made metric, and the pictures by name."""
    metric = load_metric()
    samples = [data[i] for i, reference in enumerate(data.reference_ids) if reference == data.reference_ids[0]]
    rating = metric.rate(torch.stack([s.distorted for s in samples]), samples[0].reference[None])
    images = [
        {"name": s.name, "distortion": s.distortion, "level": s.level, "rating": round(score, 1), "words": words}
        for s, score, words in zip(samples, rating.score.tolist(), rating.words, strict=True)
    ]
    pictures = {samples[0].reference_id: samples[0].reference, **{s.name: s.distorted for s in samples}}
    return {"metric": metric.signature, "reference": samples[0].reference_id, "images": images}, pictures


def _ratings_table(rated: dict[str, Any]) -> str:
    rows: dict[str, list[str]] = {}
    for image in rated["images"]:
        rows.setdefault(image["distortion"], []).append(f"{image['rating']:.0f}")
    levels = [str(level + 1) for level in range(max(map(len, rows.values())))]
    table = text_table([("distortion, level", *levels), *((name, *cells) for name, cells in rows.items())])
    return f"READY-MADE: ratings from 0 to 100 of distortions of a picture by\n{rated['metric']}\n{table}"


def _can_draw() -> bool:
    try:
        load_matplotlib()
    except InputError as error:
        say(f"fmiqa: no picture is drawn: {error}")
        return False
    return True


def _rows(scores: ScoreMatrix, selection: Selection, planted: MapIndex) -> list[Coefficients]:
    """Selected, planted and all maps on the images of a score matrix."""
    sets = {"selected maps": selection.maps, "planted maps": planted, "all maps": scores.maps}
    how = fit_options(selection.options)
    return [coefficients(name, scores.pool(maps), scores.targets, maps=len(maps), **how) for name, maps in sets.items()]


def _halves(scores: ScoreMatrix) -> tuple[ScoreMatrix, ScoreMatrix]:
    """The images of every second reference, and the others."""
    chosen = set(sorted(set(scores.groups))[::2])
    inside = torch.tensor([group in chosen for group in scores.groups], device="cpu")
    return scores.rows(inside), scores.rows(~inside)
