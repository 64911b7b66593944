"""`fmiqa metrics`: the ready-made metrics and their cards."""

from __future__ import annotations

import argparse
from typing import Any

from fmiqa._tables import text_table
from fmiqa.cli import options
from fmiqa.cli.output import add_output_options, print_result
from fmiqa.zoo import Card, metric_names

_EXAMPLES = """\
examples:
  fmiqa metrics
  fmiqa metrics fast

The card of a metric says what its maps were selected on, what it is worth on references, distortion types and data sets
that were left out, what it costs, and the licence of its weights."""


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = options.new_command(
        commands, "metrics", "List the ready-made metrics, or print the card of one", _EXAMPLES, run, lambda _: ""
    )
    parser.add_argument("name", nargs="?", choices=metric_names(), help="the metric (default: list them)")
    add_output_options(parser)


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    if args.name:
        card = Card.load(args.name)
        print_result(args, card.to_dict(), card.markdown())
        return
    cards = {name: Card.load(name) for name in metric_names()}
    rows = [("metric", "version", "maps", "offline", "what it is for")]
    for name, card in cards.items():
        rows.append((name, card.version, str(len(card.selection)), "yes" if card.bundled else "no", card.summary))
    summaries = {name: {"version": card.version, "summary": card.summary} for name, card in cards.items()}
    print_result(args, summaries, text_table(rows))
