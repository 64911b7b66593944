"""Rows of text as an aligned, a Markdown or an HTML table; the first row is the header."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

__all__ = ["html_table", "markdown_table", "text_table"]

Rows = Sequence[Sequence[str]]


def text_table(rows: Rows) -> str:
    """Columns aligned by spaces.

    Example:
        >>> print(text_table([("metric", "PLCC"), ("ssim", "0.8")]))
        metric  PLCC
        ssim    0.8
    """
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def markdown_table(rows: Rows) -> str:
    """A table as GitHub's Markdown has it.

    Example:
        >>> print(markdown_table([("metric", "PLCC"), ("a|b", "0.8")]))
        | metric | PLCC |
        | --- | --- |
        | a\\|b | 0.8 |
    """
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + " --- |" * len(rows[0]), *lines[1:]])


def html_table(rows: Rows, caption: str = "") -> str:
    """An HTML table; cells and caption are escaped.

    Example:
        >>> html_table([("metric",), ("a<b",)])
        '<table><tr><th>metric</th></tr><tr><td>a&lt;b</td></tr></table>'
    """
    head = f"<caption>{escape(caption)}</caption>" if caption else ""
    body = "".join(
        "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in row) + "</tr>"
        for tag, row in zip(["th"] + ["td"] * (len(rows) - 1), rows, strict=True)
    )
    return f"<table>{head}{body}</table>"
