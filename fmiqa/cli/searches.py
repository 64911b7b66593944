"""The command-line options of searches, which `fmiqa select` and `fmiqa validate` share."""

from __future__ import annotations

import argparse
import inspect
from dataclasses import fields
from functools import partial
from typing import Any, get_args, get_type_hints

from fmiqa.selection import SEARCHES, SearchOptions, Selection
from fmiqa.selection.lasso import Rule

__all__ = ["add_search_options", "asked_search"]

_COMMAND_LINE = [option for option in fields(SearchOptions) if "only_python" not in option.metadata]

_OF_ONE_SEARCH: dict[str, dict[str, Any]] = {
    "min_maps": {"type": int, "metavar": "N", "help": "backward search: stop at this number of maps (default: 1)"},
    "width": {"type": int, "metavar": "N", "help": "beam search: the number of sets to follow (default: 5)"},
    "rule": {
        "choices": get_args(Rule),
        "help": "weighted search: best (default), or fewest maps within one standard error",
    },
    "powers": {
        "type": float,
        "nargs": "+",
        "metavar": "P",
        "help": "weighted search: exponents of map scores to try (default: 2)",
    },
}


def add_search_options(parser: argparse.ArgumentParser) -> None:
    """Add `--search` and the options of searches. Options that are not given keep the library's defaults."""
    group = parser.add_argument_group("search")
    group.add_argument("--search", choices=SEARCHES, default="forward", help="the kind of search (default: forward)")
    hints = get_type_hints(SearchOptions)
    for option in _COMMAND_LINE:
        default = "" if not isinstance(option.default, str | int | float) else f" (default: {option.default})"
        how: dict[str, Any] = {"help": option.metadata["help"] + default * (option.default is not False)}
        choices = _choices(hints[option.name])
        if option.default is False:
            how["action"], how["default"] = "store_true", None
        elif "maps" in option.metadata:
            how |= {"nargs": "+", "metavar": "MAP"}
        elif choices:
            how["choices"] = choices
        else:
            how |= {"type": option.metadata["type"], "metavar": "N"}
        group.add_argument(_option(option.name), **how)
    for name, how in _OF_ONE_SEARCH.items():
        group.add_argument(_option(name), **how)


def asked_search(args: argparse.Namespace, **more: Any) -> partial[Selection]:
    """The search that the command line asks for, with the options given there.

    Args:
        args: The parsed command line. An option that the search does not take ends it with a usage error.
        more: Further arguments, such as `progress`, for searches that take them.
    """
    search = SEARCHES[args.search]
    accepted = inspect.signature(search).parameters
    names = [*(option.name for option in _COMMAND_LINE), *_OF_ONE_SEARCH]
    given = {name: value for name in names if (value := getattr(args, name)) is not None}
    wrong = [_option(name) for name in given if name not in accepted]
    if wrong:
        args.parser.error(f"{', '.join(wrong)}: not with --search {args.search}")
    for name in ("fit", "prior"):
        if given.get(name) == "none":
            given[name] = None
    return partial(search, **given, **{name: value for name, value in more.items() if name in accepted})


def _choices(hint: Any) -> list[str]:
    """The texts among which an option chooses, `"none"` for None; empty for other options."""
    members = [value for part in get_args(hint) for value in (get_args(part) or (part,))]
    texts = [value for value in members if isinstance(value, str)]
    return [*texts, "none"] if texts and type(None) in members else texts


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
