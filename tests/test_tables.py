from __future__ import annotations

from html.parser import HTMLParser

from fmiqa._tables import html_table, markdown_table, text_table

ROWS = [("metric", "PLCC"), ("<b>ssim</b>", "0.9"), ("a|b & c", "-0.25 [-0.3, -0.2]")]


class Cells(HTMLParser):
    """Collects the text of cells as a browser would show it."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[list[str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data: str) -> None:
        if self.rows:
            self.rows[-1][-1] += data


def test_text_columns_start_at_one_place() -> None:
    lines = text_table(ROWS).split("\n")
    assert [line.index(row[1]) for line, row in zip(lines, ROWS, strict=True)] == [13] * 3  # longest cell + 2
    assert all(line == line.rstrip() for line in lines)


def test_html_shows_what_the_cells_hold() -> None:
    parser = Cells()
    parser.feed(html_table(ROWS, caption="a < b"))
    assert [tuple(row) for row in parser.rows] == ROWS
    assert "a &lt; b" in html_table(ROWS, caption="a < b")


def test_markdown_has_one_column_a_cell() -> None:
    lines = markdown_table(ROWS).split("\n")
    assert len(lines) == 4
    assert all(line.replace("\\|", "").count("|") == 3 for line in lines)
