"""The searches by name, and the options that `fmiqa select` and `fmiqa validate` hand on to them."""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Callable, Iterable
from typing import Any, get_args

from fmiqa.correlation import Form
from fmiqa.pooling import Pool
from fmiqa.selection import (
    Criterion,
    Direction,
    Selection,
    backward_eliminate,
    beam_select,
    floating_select,
    forward_select,
    weighted_select,
)
from fmiqa.selection.lasso import Rule

__all__ = ["SEARCHES", "SEARCH_OPTIONS", "add_search_options", "given_options", "parameters_of"]

SEARCHES: dict[str, Callable[..., Selection]] = {
    "forward": forward_select,
    "floating": floating_select,
    "backward": backward_eliminate,
    "beam": beam_select,
    "weighted": weighted_select,
}

SEARCH_OPTIONS = ("criterion", "fit", "pool", "direction", "max_maps", "tol", "min_maps", "width", "rule", "powers")


def add_search_options(parser: argparse.ArgumentParser, *, most: str = "none") -> argparse._ArgumentGroup:
    """`--search` and the options of searches, None where not given: the library's own defaults are taken then.

    Args:
        parser: of the command.
        most: the default of `--max-maps`, for its help.
    """
    search = parser.add_argument_group("search")
    search.add_argument("--search", choices=SEARCHES, default="forward", help="how maps are chosen (default: forward)")
    search.add_argument("--criterion", choices=get_args(Criterion), help="what must rise (default: plcc)")
    search.add_argument("--fit", choices=[*get_args(Form), "none"], help="before the PLCC (default: logistic5)")
    search.add_argument("--pool", choices=get_args(Pool), help="how the maps' scores are combined (default: mean)")
    search.add_argument(
        "--direction", choices=get_args(Direction), help="only maps that rise with quality (default), or any"
    )
    search.add_argument("--max-maps", type=int, metavar="N", help=f"stop at N maps (default: {most})")
    search.add_argument("--tol", type=float, metavar="GAIN", help="stop at gains up to this (default: 0)")
    search.add_argument("--min-maps", type=int, metavar="N", help="of backward: stop at N maps (default: 1)")
    search.add_argument("--width", type=int, metavar="N", help="of beam: follow N sets (default: 5)")
    search.add_argument("--rule", choices=get_args(Rule), help="of weighted: few maps (default), or the best strength")
    search.add_argument(
        "--powers", type=float, nargs="+", metavar="P", help="of weighted: raise map scores to, to try (default: 1)"
    )
    return search


def given_options(args: argparse.Namespace, names: Iterable[str], accepted: Iterable[str]) -> dict[str, Any]:
    """The options given, of those by these names; a usage error where the search asked for does not take one."""
    options = {name: value for name in names if (value := getattr(args, name)) is not None}
    wrong = [f"--{name.replace('_', '-')}" for name in options if name not in accepted]
    if wrong:
        args.parser.error(f"{', '.join(wrong)}: not with --search {args.search}")
    if options.get("fit") == "none":
        options["fit"] = None
    return options


def parameters_of(function: Callable[..., Any]) -> set[str]:
    """The names of what a function of the library takes."""
    return set(inspect.signature(function).parameters)
