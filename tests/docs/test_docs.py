"""The documentation keeps up with the library. `make docs` builds it and runs its examples."""

from __future__ import annotations

import json
import re
from pathlib import Path
from pkgutil import resolve_name
from types import ModuleType
from typing import Any

import pytest

import fmiqa

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")), *ROOT.glob("docs/*/*.md")]
MODULES = ("datasets", "distributed", "measures", "peers", "presets", "visualize")


def look_up(path: str) -> Any:
    """What a dotted path below fmiqa names."""
    return resolve_name(f"fmiqa.{path}")


def documented() -> list[str]:
    """The entries of the API reference."""
    text = (ROOT / "docs/api/index.rst").read_text("utf-8")
    return re.findall(r"^   ([\w.]+)$", text, re.MULTILINE)


def test_every_public_name_has_one_page() -> None:
    public = {name: value for name in fmiqa.__all__ if not name.startswith("__") for value in [look_up(name)]}
    for module in MODULES:
        assert isinstance(public.get(module), ModuleType)
        if module != "distributed":  # a page of its own
            del public[module]
            public |= {f"{module}.{name}": look_up(f"{module}.{name}") for name in look_up(module).__all__}
    pytest.importorskip("torchmetrics")
    public["integrations.torchmetrics.QualityMetric"] = look_up("integrations.torchmetrics.QualityMetric")
    entries = documented()
    assert len(set(entries)) == len(entries)
    assert sorted(set(entries) - set(public)) == []
    pages = [look_up(entry) for entry in entries]
    # Some objects have two public names (fmiqa.SSIM, fmiqa.measures.SSIM); one page is enough.
    missing = [name for name, value in public.items() if not any(value is page for page in pages)]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_names_in_pages_exist(page: Path) -> None:
    text = page.read_text("utf-8")
    for path in sorted(set(re.findall(r"(?<![\w./-])fmiqa\.([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)", text))):
        if "torchmetrics" in path:
            pytest.importorskip("torchmetrics")
        assert look_up(path) is not None, path


def test_switcher_names_the_version() -> None:
    versions = json.loads((ROOT / "docs/_static/switcher.json").read_text("utf-8"))
    assert fmiqa.__version__ in {entry["version"] for entry in versions}


def test_citation_names_the_version() -> None:
    assert f"\nversion: {fmiqa.__version__}\n" in (ROOT / "CITATION.cff").read_text("utf-8")


def row(page: str, name: str) -> list[str]:
    """The cells of a table's row that begins with a name."""
    lines = (ROOT / page).read_text("utf-8").splitlines()
    return next(
        [cell.strip() for cell in line.strip("| ").split("|")] for line in lines if line.startswith(f"| {name} |")
    )


@pytest.mark.parametrize("name", fmiqa.list_metrics())
def test_the_table_of_the_readme_has_the_figures_of_the_cards(name: str) -> None:
    figures = json.loads((ROOT / f"fmiqa/zoo/{name}.json").read_text("utf-8"))["figures"]
    _, references, types, worst, *transfers = figures
    both = [f"{f['plcc']:.3f} / {f['srocc']:.3f}" for f in (references, types, *transfers)]
    expected = [*both[:2], f"{worst['plcc']:.3f}", *both[2:]]
    assert row("README.md", f"`{name}`")[2:] == [cell.replace("0.", ".") for cell in expected]


@pytest.mark.parametrize("name", ["all maps, AlexNet", "MDSI", "HaarPSI", "GMSD", "LPIPS", "SSIM", "PSNR"])
def test_the_table_of_the_readme_has_the_figures_of_the_results(name: str) -> None:
    _, maps, references, types, worst, _, *transfers = row("docs/guide/results.md", name)
    assert row("README.md", name)[1:] == [maps, re.sub(r" ± [.\d]+", "", references), types, worst, *transfers]
