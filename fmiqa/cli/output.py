"""What the commands print: results on standard output, as text or as JSON, and the rest on standard error."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Mapping
from typing import Any

from fmiqa.distributed import is_first

__all__ = ["add_output_options", "figure4", "print_result", "say", "wants_progress"]


def add_output_options(parser: argparse.ArgumentParser) -> None:
    """`--json` and `--quiet`."""
    group = parser.add_argument_group("output")
    group.add_argument("--json", action="store_true", help="print the result as JSON")
    group.add_argument("--quiet", action="store_true", help="no progress bars (there are none either off a terminal)")


def wants_progress(args: argparse.Namespace) -> bool:
    """Whether progress bars are of use to anybody."""
    return not args.quiet and sys.stderr.isatty()


def say(text: str) -> None:
    """A message to the person at the terminal."""
    print(text, file=sys.stderr, flush=True)


def print_result(args: argparse.Namespace, result: Mapping[str, Any], text: str) -> None:
    """The result in the form that was asked for; of several processes, the first prints it."""
    if is_first():
        print(json.dumps(_plain(result), indent=1, allow_nan=False) if args.json else text)


def figure4(value: float) -> str:
    """A coefficient as papers print it: four digits."""
    return "-" if math.isnan(value) else f"{value:.4f}"


def _plain(value: Any) -> Any:
    """JSON has no NaN and no infinity: they become null."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | None) else str(value)
