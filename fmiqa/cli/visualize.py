"""`fmiqa visualize`: what feature maps look at, as pictures."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from fmiqa._io import check_output, printable
from fmiqa._plotting import save_figure
from fmiqa._tables import text_table
from fmiqa.cli import options
from fmiqa.cli.output import Written, add_output_options, print_result, wants_progress
from fmiqa.cli.outputs import OutputFolder, OutputPicture
from fmiqa.cli.results import recorded_extractors
from fmiqa.datasets import read_image
from fmiqa.errors import InputError
from fmiqa.features.extractor import FeatureExtractor
from fmiqa.features.viewing import Viewing
from fmiqa.maps import FeatureMap, MapIndex
from fmiqa.selection import Selection

_EXAMPLES = """\
examples:
  fmiqa visualize maximize  --selection selected.json --weights alexnet.pth --out pictures.png
  fmiqa visualize pda       --selection selected.json --weights alexnet.pth --images a.png b.png --out looks.png
  fmiqa visualize dissect   --maps conv1:8 conv2:33 --weights alexnet.pth --out segments.png
  fmiqa visualize exemplars --maps conv3:53 --network vgg16 --images photos/*.png --out patches.png

With --save FOLDER, results are kept as files that Python can load. An interrupted pda or dissect resumes from there."""


class _Network(NamedTuple):
    """A network of a selection, and the maps of it."""

    source: str
    extractor: FeatureExtractor
    maps: MapIndex

    def name(self, map: FeatureMap) -> str:
        return f"{self.source}/{map}" if self.source else str(map)


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "visualize",
        help="draw what feature maps look at",
        description="Draw what feature maps look at.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    kinds = parser.add_subparsers(metavar="KIND", title="kinds", required=True)
    pda = _new(kinds, "pda", "Which pixels raise or lower each map (prediction difference analysis)", _pda)
    _add_images(pda)
    window = pda.add_argument_group("windows (the paper: --stride 1, an hour for AlexNet at 512x384 on two cores)")
    window.add_argument(
        "--stride",
        type=options.at_least(1),
        default=4,
        metavar="N",
        help="pixels from a window to the next (default: 4)",
    )
    window.add_argument(
        "--window", type=options.at_least(1), default=10, metavar="N", help="side of a window in pixels (default: 10)"
    )
    window.add_argument(
        "--padding",
        type=options.at_least(1),
        default=2,
        metavar="N",
        help="pixels around a window that samples depend on (default: 2)",
    )
    window.add_argument(
        "--samples", type=options.at_least(1), default=10, metavar="N", help="samples for each window (default: 10)"
    )
    window.add_argument("--sampler", choices=("conditional", "marginal"), default="conditional")
    window.add_argument("--fit", nargs="+", metavar="IMAGE", help="images to learn pixels from (default: --images)")

    maximize = _new(kinds, "maximize", "The picture that excites each map most (activation maximisation)", _maximize)
    climb = maximize.add_argument_group("climb")
    climb.add_argument(
        "--method", choices=("fourier", "pixels"), default="fourier", help="the present form, or that of 2009"
    )
    climb.add_argument(
        "--steps", type=options.at_least(1), default=512, metavar="N", help="steps of the climb (default: 512)"
    )
    climb.add_argument(
        "--size",
        type=options.at_least(16),
        default=128,
        metavar="N",
        help="side of the pictures in pixels (default: 128)",
    )

    dissect = _new(kinds, "dissect", "The concept that each map detects (network dissection)", _dissect)
    dissect.add_argument("--broden", metavar="ROOT", help="folder of Broden (default: the embedded set)")
    dissect.add_argument(
        "--top", type=options.at_least(1), default=4, metavar="N", help="segments to show for each map (default: 4)"
    )

    exemplars = _new(kinds, "exemplars", "The patches that excite each map most", _exemplars)
    _add_images(exemplars)
    exemplars.add_argument(
        "--count", type=options.at_least(1), default=6, metavar="N", help="patches for each map (default: 6)"
    )


def _new(kinds: Any, name: str, summary: str, draw: Callable[..., None]) -> argparse.ArgumentParser:
    def kept(args: argparse.Namespace) -> str:
        if name in ("pda", "dissect"):
            return f"What is done is kept in {args.save}." if args.save else "Nothing is kept; --save FOLDER would."
        return "Nothing was written."

    parser = options.new_command(kinds, name, summary, "", run, kept)
    parser.set_defaults(draw=draw)
    maps = parser.add_argument_group("maps (one of)").add_mutually_exclusive_group(required=True)
    maps.add_argument(
        "--selection", metavar="FILE", help="a selection as `fmiqa select --out` writes it, which records its network"
    )
    maps.add_argument("--maps", nargs="+", metavar="MAP", help="maps of --network, such as conv1:27")
    files = parser.add_argument_group("files to write")
    files.add_argument(
        "--out", "-o", type=OutputPicture, required=True, metavar="FILE", help="the picture (.png, .svg, .pdf)"
    )
    if name != "exemplars":
        files.add_argument(
            "--save", type=OutputFolder, metavar="FOLDER", help="save the results to this folder, for Python"
        )
    parser.set_defaults(save=None)
    options.add_weights_options(parser, network=True)
    options.add_device_option(parser)
    add_output_options(parser)
    return parser


def _add_images(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--images", nargs="+", required=True, metavar="IMAGE", help="images to look at")
    options.add_background_option(parser)


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    args.draw(args, _networks(args))


def _networks(args: argparse.Namespace) -> list[_Network]:
    device = options.device_of(args)
    if args.selection:
        if args.network != "alexnet" or args.stage != "relu" or args.layers:
            args.parser.error("--network, --stage, --layers: only with --maps; a selection knows its network")
        selection = Selection.load(args.selection)
        extractors = recorded_extractors(selection.source, args.selection, args, selection.maps)
        return [
            _Network(source, e.to(device), MapIndex(_bare(m) for m in selection.maps if m.source == source))
            for source, e in extractors.items()
        ]
    extractor = options.extractor_of(args, args.network, stage=args.stage, layers=args.layers, viewing=Viewing())
    return [_Network("", extractor.to(device), MapIndex(args.maps))]


def _path(args: argparse.Namespace, network: _Network, name: str) -> Path | None:
    if not args.save:
        return None
    return Path(args.save) / (f"{network.source}-{name}.safetensors" if network.source else f"{name}.safetensors")


def _check_paths(args: argparse.Namespace, networks: list[_Network], *names: str) -> None:
    """Refuse what cannot be kept, before the work on the first."""
    for network in networks:
        for name in names:
            path = _path(args, network, name)
            if path is not None:
                check_output(path, beside=".parts/run.json")


def _pda(args: argparse.Namespace, networks: list[_Network]) -> None:
    from fmiqa.visualize import ConditionalSampler, MarginalSampler, as_seen, overlay_relevance, prediction_difference

    stems = [Path(path).stem for path in args.images]
    if len(set(stems)) < len(stems):
        raise InputError(f"images are told apart by their names, and two are alike: {', '.join(sorted(stems))}")
    _check_paths(args, networks, *(f"relevance-{stem}" for stem in stems))
    read = partial(read_image, background=args.background)
    pictures, titles = [], []
    for network in networks:
        learnt = [as_seen(network.extractor, read(path))[1] for path in args.fit or args.images]
        if args.sampler == "marginal":
            sampler: Any = MarginalSampler(learnt, window=args.window)
        else:
            sampler = ConditionalSampler(learnt, window=args.window, padding=args.padding)
        for path in args.images:
            extractor, image = as_seen(network.extractor, read(path))
            found = prediction_difference(
                extractor, image.to(extractor.device), network.maps, sampler=sampler, stride=args.stride,
                samples=args.samples, seed=args.seed, save=_path(args, network, f"relevance-{Path(path).stem}"),
                progress=wants_progress(args),
            )  # fmt: skip
            pictures += [overlay_relevance(image, relevance) for relevance in found.relevance]
            titles += [f"{network.name(m)} in {Path(path).stem}" for m in network.maps]
    _drawn(args, pictures, titles, 4, side=2.6)


def _maximize(args: argparse.Namespace, networks: list[_Network]) -> None:
    from fmiqa.visualize import maximize_activation, native

    _check_paths(args, networks, "maximal")
    written = Written()
    pictures, titles = [], []
    for network in networks:
        found = maximize_activation(
            native(network.extractor),
            network.maps,
            method=args.method,
            steps=args.steps,
            size=(args.size, args.size),
            seed=args.seed,
            progress=wants_progress(args),
        )
        path = _path(args, network, "maximal")
        if path is not None:
            written.write(str(path), str(path), found.save)
        pictures += list(found.images)
        titles += [network.name(m) for m in network.maps]
    _drawn(args, pictures, titles, 4, written=written)


def _dissect(args: argparse.Namespace, networks: list[_Network]) -> None:
    from fmiqa.visualize import Broden, PlantedConcepts, dissect, native, outlined

    _check_paths(args, networks, "concepts")
    source = Broden(args.broden) if args.broden else PlantedConcepts()
    pictures, titles = [], []
    rows: list[tuple[str, ...]] = [("map", "concept", "category", "IoU")]
    for network in networks:
        extractor = native(network.extractor)
        path = _path(args, network, "concepts")
        found = dissect(extractor, source, network.maps, top=args.top, save=path, progress=wants_progress(args))
        for best, (_, *cells) in zip(found.best(), found.table()[1:], strict=True):
            name = network.name(best.map)
            rows.append((name, *cells))
            for segment in found.segments(extractor, source, best.map, args.top):
                pictures.append(outlined(segment.image, segment.mask))
                said = best.concept if best.detector else f"no detector; nearest: {best.concept or 'none'}"
                titles.append(f"{name}\n{said}, IoU {best.iou:.2f}")
    figures = {"maps": [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]}
    said = f"{text_table(rows)}\n* a detector: IoU > .04\n"
    _drawn(args, pictures, titles, min(args.top, len(source)), said=said, figures=figures)


def _exemplars(args: argparse.Namespace, networks: list[_Network]) -> None:
    from fmiqa.visualize import exemplars

    pictures, titles = [], []
    images = [read_image(path, background=args.background) for path in args.images]
    count = min(args.count, len(images))
    for network in networks:
        found = exemplars(network.extractor, images, network.maps, count=count, progress=wants_progress(args))
        for map, patches in found.items():
            pictures += [p.patch for p in patches]
            titles += [f"{network.name(map)}: {p.value:.3g}" for p in patches]
    _drawn(args, pictures, titles, count)


def _drawn(
    args: argparse.Namespace,
    pictures: list[Tensor],
    titles: list[str],
    columns: int,
    *,
    side: float = 2.0,
    said: str = "",
    figures: dict[str, Any] | None = None,
    written: Written | None = None,
) -> None:
    from fmiqa.visualize import picture_grid

    written = Written() if written is None else written
    figure = picture_grid(pictures, [printable(title) for title in titles], columns=columns, side=side)
    written.write("out", args.out, partial(save_figure, figure))
    files = [*([args.out] if "out" in written.files else []), *([args.save] if args.save else [])]
    said += f"written to {', '.join(files)}" if files else ""
    print_result(args, {**(figures or {}), "files": files}, said, written)


def _bare(map: FeatureMap) -> FeatureMap:
    """A map as its own network names it."""
    return FeatureMap(map.layer, map.channel)
