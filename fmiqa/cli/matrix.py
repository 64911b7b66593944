"""`fmiqa matrix`: the score of every image of a data set at every feature map, into a file."""

from __future__ import annotations

import argparse
import re
import shlex
import time
from typing import Any

from fmiqa.cli import options
from fmiqa.cli.data import add_data_options, check_data_options, data_set
from fmiqa.cli.output import add_output_options, print_result, wants_progress
from fmiqa.cli.outputs import OutputFile
from fmiqa.errors import InputError
from fmiqa.features.viewing import Viewing
from fmiqa.measures import MEASURES, Measure, get_measure
from fmiqa.scoring.shards import Shard, shard_file

_EXAMPLES = """\
examples:
  fmiqa matrix --tid2013 TID2013/ --out tid2013.safetensors
  fmiqa matrix --csv study.csv --score dmos --lower-is-better --network vgg16 --out study.safetensors
  fmiqa matrix --csv study.csv --scale 0.5 --out study-half.safetensors
  fmiqa matrix --csv study.csv --measure psnr --data-range reference --out study-psnr.safetensors
  fmiqa matrix --csv study.csv --measure piq --measure-option metric=HaarPSI --out study-haarpsi.safetensors
  fmiqa matrix --csv study.csv --out study.safetensors --shard 2/3

An interrupted run resumes when the same command is given again. --shard 2/3 computes the second third of the images and
writes study.shard-2-of-3.safetensors beside study.safetensors; fmiqa merge makes one file of the three."""


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = options.new_command(
        commands,
        "matrix",
        "Score every image of a data set at every feature map",
        _EXAMPLES,
        run,
        lambda args: options.kept_parts(shard_file(args.out, *args.shard) if args.shard else args.out),
    )
    parser.add_argument(
        "--out", "-o", type=OutputFile, required=True, metavar="FILE", help="score matrix to write (.safetensors)"
    )
    parser.add_argument(
        "--shard",
        type=_shard,
        metavar="I/N",
        help="compute only the I-th of N shards (from 1), for fmiqa merge; needs no communication, and can be repeated",
    )
    add_data_options(parser)
    options.add_weights_options(parser, network=True)
    parser.add_argument("--maps", nargs="+", metavar="MAP", help="only these maps, such as conv1:27 conv3:5")
    viewing = parser.add_argument_group("viewing: images resized before the network sees them (one of)")
    viewing.add_argument("--scale", type=float, metavar="FACTOR", help="scale both sides; 0.5 halves them")
    viewing.add_argument("--short-side", type=int, metavar="PIXELS", help="scale the shorter side to this length")
    viewing.add_argument(
        "--pixels-per-degree",
        type=float,
        metavar="P",
        help="pixels per degree at which the network sees images, with --native-...",
    )
    viewing.add_argument(
        "--native-pixels-per-degree",
        type=float,
        metavar="Q",
        help="pixels per degree at which observers judged the images",
    )
    measure = parser.add_argument_group("measure")
    measure.add_argument("--measure", default="ssim", help=f"{', '.join(MEASURES)} (default: ssim)")
    measure.add_argument(
        "--data-range", type=_value, metavar="L", help="a number, reference, pair or layer (ssim's default: 1)"
    )
    measure.add_argument("--window", type=int, help="side of the Gaussian window (ssim's default: 11)")
    measure.add_argument("--sigma", type=float, help="its standard deviation (ssim's default: 1.5)")
    measure.add_argument(
        "--measure-option",
        action="append",
        type=_option,
        default=[],
        metavar="NAME=VALUE",
        help="another option of the measure, such as bins=32 (histogram), pool=lowest (deepsim), metric=VIF (piq)",
    )
    options.add_computing_options(parser)
    add_output_options(parser)


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    check_data_options(args)
    start = time.perf_counter()
    viewing, measure = _viewing(args), _measure(args)
    options.check_weights_options(args, [args.network], "the score matrix")
    data = data_set(args)
    extractor = options.extractor_of(args, args.network, stage=args.stage, layers=args.layers, viewing=viewing)
    shard = Shard.of(args.shard, args.out) if args.shard else None
    before = None if shard is None else shard.read()
    scores = options.compute_scores(
        extractor,
        data,
        args,
        save=args.out,
        shard=args.shard,
        progress=wants_progress(args),
        maps=args.maps,
        measure=measure,
    )
    seconds, device = time.perf_counter() - start, str(options.device_of(args))
    counts = {"images": len(scores), "references": len(set(scores.groups)), "maps": len(scores.maps)}
    result = {**counts, "device": device, "seconds": round(seconds, 1), "options": scores.options}
    text = f"{counts['images']} images of {counts['references']} references, {counts['maps']} maps of "
    text = f"{scores.options['dataset']}: {text}{scores.options['network']}, on {device} in {seconds:.0f} s\n"
    if shard is None:
        print_result(args, {"file": args.out, **result}, f"{text}written to {args.out}")
        return
    done = f"{shard.file}, shard {shard.number} of {shard.count}"
    done = f"written to {done}" if before is None else f"{done}, is complete already and was not computed again"
    print_result(
        args,
        {"file": str(shard.file), "shard": list(args.shard), "computed": before is None, **result},
        f"{text}{done}\nwhen all shards are there: fmiqa merge --out {shlex.quote(args.out)}",
    )


def _viewing(args: argparse.Namespace) -> Viewing:
    given = (args.scale, args.short_side, args.pixels_per_degree, args.native_pixels_per_degree)
    try:
        return Viewing(*given)
    except InputError:
        names = ("--scale", "--short-side", "--pixels-per-degree", "--native-pixels-per-degree")
        got = " ".join(f"{name} {value:g}" for name, value in zip(names, given, strict=True) if value is not None)
        parser: argparse.ArgumentParser = args.parser
        parser.error(
            "give one of --scale, --short-side, or --pixels-per-degree together with --native-pixels-per-degree, "
            f"all positive; got {got}"
        )


def _measure(args: argparse.Namespace) -> Measure:
    given = {"data_range": args.data_range, "window": args.window, "sigma": args.sigma}
    given = {name: value for name, value in given.items() if value is not None}
    return get_measure({"name": args.measure, **given, **dict(args.measure_option)})


def _shard(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([0-9]+)/([0-9]+)", text)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise argparse.ArgumentTypeError(f"expected I/N, the I-th of N shards from 1, as in 2/3, got {text!r}")
    return int(match[1]), int(match[2])


def _option(text: str) -> tuple[str, float | str]:
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier() or name == "name":
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, as in bins=32, got {text!r}")
    return name, _value(value)


def _value(text: str) -> float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
