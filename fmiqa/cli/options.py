"""Options that several commands share, and what they stand for: networks, devices, computing."""

from __future__ import annotations

import argparse
import contextlib
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, get_args

import torch

from fmiqa._io import printable
from fmiqa.datasets import IQADataset
from fmiqa.errors import InputError
from fmiqa.evaluation.peers import PEERS, PeerWeights, check_peers
from fmiqa.features.extractor import FeatureExtractor
from fmiqa.features.networks import NETWORKS
from fmiqa.features.tracing import Stage
from fmiqa.features.viewing import Viewing
from fmiqa.scoring.matrix import ScoreMatrix
from fmiqa.scoring.run import score_matrix
from fmiqa.scoring.shards import shard_file

__all__ = [
    "add_background_option",
    "add_computing_options",
    "add_device_option",
    "add_metric_option",
    "add_weights_options",
    "at_least",
    "check_weights_options",
    "compute_scores",
    "device_of",
    "extractor_of",
    "kept_parts",
    "named_file",
    "new_command",
    "peer_weights",
    "weights_given",
    "weights_of",
]

_WITH_WEIGHTS = list(dict.fromkeys((*NETWORKS, *(name for peer in PEERS.values() for name in peer.weights))))


def new_command(
    commands: Any,
    name: str,
    summary: str,
    notes: str,
    run: Callable[[argparse.Namespace], None],
    interrupted: Callable[[argparse.Namespace], str],
) -> argparse.ArgumentParser:
    """A command of the parser.

    Args:
        commands: What `add_subparsers` gave.
        name: The name of the command.
        summary: What it does, in a line.
        notes: Printed below the options: examples, then what else one should know.
        run: Does it.
        interrupted: What to say after Ctrl-C: what is kept and how to go on.
    """
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary[0].lower() + summary[1:],
        description=f"{summary}.",
        epilog=notes,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(run=run, interrupted=interrupted, parser=parser)
    return parser


def add_weights_options(parser: argparse.ArgumentParser, *, network: bool = False) -> None:
    """`--weights`, and with `network` what else makes an extractor (a saved result knows the rest)."""
    group = parser.add_argument_group("network")
    if network:
        group.add_argument("--network", default="alexnet", help="alexnet, vgg16, ... (default: alexnet)")
        group.add_argument(
            "--stage", choices=get_args(Stage), default="relu", help="take maps after the ReLU, or before it"
        )
        group.add_argument("--layers", nargs="+", metavar="LAYER", help="only these layers, such as conv1 conv2")
    several = "" if network else "; NETWORK=... is for that network alone, and may be given for each"
    group.add_argument(
        "--weights",
        action="append",
        type=_weights,
        default=[],
        metavar="default|FILE|random",
        help=f"torchvision's weights (downloaded once), a state dict (.pth, .safetensors), or seeded "
        f"random ones{several}",
    )
    group.add_argument("--seed", type=int, default=0, help="seed of random weights (default: 0)")


def extractor_of(
    args: argparse.Namespace, network: str, *, stage: Stage, layers: Iterable[str] | None, viewing: Viewing
) -> FeatureExtractor:
    """A network with the weights that the options name."""
    weights = weights_of(args, network)
    with contextlib.redirect_stdout(sys.stderr):  # torchvision announces a download on standard output
        return FeatureExtractor(network, weights=weights, stage=stage, layers=layers, viewing=viewing, seed=args.seed)


def weights_of(args: argparse.Namespace, network: str) -> str | None:
    """What `--weights` says of a network, as `FeatureExtractor` takes it."""
    words: dict[str, str | None] = {"default": "DEFAULT", "random": None}
    given = weights_given(args, network)
    return words.get(given, given)


def weights_given(args: argparse.Namespace, network: str) -> str:
    """What `--weights` says of a network: `NETWORK=...` before what counts for all."""
    by_network: dict[str, str] = dict(args.weights)
    return by_network.get(network, by_network.get("", "default"))


def peer_weights(args: argparse.Namespace, networks: Iterable[str]) -> PeerWeights:
    """The weights of the peers asked for, read once to see that they are there.

    `--weights NETWORK=...` counts for peers, and `--weights ...` too where the network is one of the result's.

    Args:
        args: The parsed command line, with `--peers` and `--weights`.
        networks: The networks of the result that peers are put beside.

    Raises:
        InputError: A peer needs a package that is not installed.
        WeightsError: Weights are missing, misshapen, of another network, or cannot be fetched.
    """
    found: dict[str, Any] = {}
    own = {name for name, _ in args.weights}.union(networks)
    for name in dict.fromkeys(name for peer in args.peers or () for name in PEERS[peer].weights):
        given = weights_given(args, name) if name in own else "default"
        if given == "random" and name in NETWORKS:
            extractor = extractor_of(args, name, stage="relu", layers=None, viewing=Viewing())
            found[name] = extractor.network.state_dict()
        else:
            found[name] = "DEFAULT" if given == "default" else given
    with contextlib.redirect_stdout(sys.stderr):  # torchvision announces a download on standard output
        check_peers(args.peers or (), found)
    return found


def check_weights_options(args: argparse.Namespace, networks: Iterable[str], what: str) -> None:
    """Refuse weights that are given twice, or for a network that is not run.

    Raises:
        InputError: `--weights NETWORK=...` for a network that is not among these.
    """
    given, known = [network for network, _ in args.weights], list(dict.fromkeys(networks))
    twice = next((network for network in given if given.count(network) > 1), None)
    if twice is not None:
        args.parser.error(f"--weights: given twice for {twice or 'all networks'}")
    other = [network for network in given if network and network not in known]
    if other:
        raise InputError(f"--weights {other[0]}=...: {what} is of {', '.join(known)}, not of {other[0]}")


def add_metric_option(group: argparse._ActionsContainer) -> None:
    """`--metric`."""
    group.add_argument(
        "--metric",
        metavar="NAME",
        default="fast",
        help="a ready-made metric (default: fast), or a file that `fmiqa select --metric` wrote (.safetensors)",
    )


def add_background_option(group: argparse._ActionsContainer) -> None:
    """`--background`."""
    group.add_argument(
        "--background", metavar="COLOUR", help="lay transparent pixels on this colour, such as white or '#808080'"
    )


def add_device_option(group: argparse._ActionsContainer) -> None:
    """`--device`."""
    group.add_argument("--device", help="cpu, cuda, cuda:1, mps, ... (default: cuda if available, otherwise cpu)")


def add_compile_option(group: argparse._ActionsContainer) -> None:
    """`--compile` and `--no-compile`."""
    group.add_argument(
        "--compile",
        action=argparse.BooleanOptionalAction,
        help="compile the inner loops (default: if there is enough work for that to pay off)",
    )


def device_of(args: argparse.Namespace) -> torch.device:
    """The device asked for.

    Raises:
        InputError: There is no such device here.
    """
    name = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # AssertionError: a torch built without CUDA
        raise InputError(f"no device {name!r} here: {str(error).splitlines()[0]}") from error
    return device


def add_computing_options(parser: argparse.ArgumentParser) -> None:
    """Where and how a score matrix is computed."""
    group = parser.add_argument_group("computing")
    add_device_option(group)
    group.add_argument(
        "--memory", type=_bytes, metavar="SIZE", help="memory for images and features, such as 512M or 4G"
    )
    group.add_argument("--batch-size", type=int, metavar="N", help="at most N test images at once")
    group.add_argument("--workers", type=int, metavar="N", help="threads or processes that decode images ahead")
    group.add_argument("--no-check", action="store_true", help="do not decode every image before the start")
    add_compile_option(group)


def compute_scores(
    extractor: FeatureExtractor,
    data: IQADataset,
    args: argparse.Namespace,
    *,
    save: str | None,
    progress: bool,
    check: bool = True,
    shard: tuple[int, int] | None = None,
    **options: Any,
) -> ScoreMatrix:
    """`score_matrix` as the options say; a finished file is never computed over.

    Raises:
        InputError: The file to save to is there already, and not the shard that is asked for.
    """
    finished = save is not None and shard is not None and shard_file(save, *shard).is_file()
    if save is not None and Path(save).is_file() and not finished:
        raise InputError(f"{save} exists already; delete it to compute it again, or give another name")
    return score_matrix(
        extractor,
        data,
        device=device_of(args),
        memory=args.memory,
        batch_size=args.batch_size,
        workers=args.workers,
        compile=args.compile,
        check=check and not args.no_check,
        save=save,
        shard=shard,
        progress=progress,
        **options,
    )


def kept_parts(save: str | Path | None) -> str:
    """After an interruption: what is kept, and how to go on."""
    if save is None:
        return "Nothing is kept; a run with a file for the matrix (`fmiqa matrix`, or --save-matrix) could go on."
    parts = Path(f"{save}.parts")
    if not any(parts.glob("part-*")):
        return "No part was finished yet; the same command starts again."
    return f"Finished parts are kept in {parts}; the same command goes on from there."


def at_least(smallest: int) -> Callable[[str], int]:
    """The type of an option that counts something."""

    def count(text: str) -> int:
        if not text.isdecimal() or int(text) < smallest:
            raise argparse.ArgumentTypeError(f"expected a whole number from {smallest}, got {text!r}")
        return int(text)

    return count


def named_file(text: str) -> tuple[str, str]:
    """`NAME=FILE` as both, the name empty for a FILE; what exists as given is a FILE."""
    name, equals, path = text.partition("=")
    return (printable(name), path) if equals and not Path(text).exists() else ("", text)


def _weights(text: str) -> tuple[str, str]:
    network, weights = named_file(text)
    if network and network not in _WITH_WEIGHTS:
        known = ", ".join(_WITH_WEIGHTS)
        raise argparse.ArgumentTypeError(f"there is no file {text!r}, and no network {network!r} (there are {known})")
    return network, weights


def _bytes(text: str) -> int:
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if match is None:
        raise argparse.ArgumentTypeError(f"expected a size such as 512M or 4G, got {text!r}")
    return int(float(match[1]) * 1024 ** "KMGT".index(match[2].upper()) * 1024) if match[2] else int(float(match[1]))
