"""Configuration of the documentation site; `make docs` builds it into docs/_build/html."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from importlib.metadata import metadata
from typing import Any

# Before numpy and torch start: examples are small, and threads would only slow each other down.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["COLUMNS"] = "100"  # of the commands' help

from docutils import nodes
from docutils.parsers.rst import Directive
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.ext.napoleon.docstring import GoogleDocstring
from sphinx.pycode import ModuleAnalyzer

import fmiqa
from fmiqa import cli

project = "fmiqa"
author = "The fmiqa contributors"
copyright = "the fmiqa contributors"
release = version = fmiqa.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "gallery"]
templates_path = ["_templates"]
default_role = "py:obj"  # `forward_select` in a docstring becomes a link, and plain code where there is no such name
toc_object_entries_show_parents = "hide"

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

autosummary_generate = True
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
autodoc_inherit_docstrings = False
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_preprocess_types = False

sphinx_gallery_conf = {
    "examples_dirs": "gallery",
    "gallery_dirs": "examples",
    "filename_pattern": r"plot_",
    "subsection_order": ["gallery/score", "gallery/choose", "gallery/look", "gallery/extend"],
    "within_subsection_order": "FileNameSortKey",
    "backreferences_dir": "api/examples",
    "doc_module": ("fmiqa",),
    "inspect_global_variables": True,
    "abort_on_example_error": True,
    "matplotlib_animations": False,
    "image_scrapers": ("matplotlib",),
    "reset_modules": ("matplotlib",),
    "min_reported_time": 0,
    "show_memory": False,
    "write_computation_times": False,
    "parallel": True,  # as many as `sphinx-build -j` says
    "download_all_examples": False,
    "remove_config_comments": True,
}

html_theme = "pydata_sphinx_theme"
html_title = "fmiqa"
html_static_path = ["_static"]
html_favicon = "_static/logo.svg"
html_css_files = ["fmiqa.css"]
html_copy_source = False
html_show_sourcelink = False
html_math_renderer = "mathml"
html_theme_options = {
    "logo": {"text": "fmiqa", "image_light": "_static/logo.svg", "image_dark": "_static/logo.svg", "alt_text": ""},
    "navbar_align": "left",
    "navbar_end": ["version-switcher", "theme-switcher", "navbar-icon-links"],
    "switcher": {"json_url": "_static/switcher.json", "version_match": "dev" if "dev" in release else release},
    "check_switcher": False,
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "footer_start": ["copyright"],
    "footer_end": [],
    "icon_links": [
        {"name": "Source", "url": url, "icon": "fa-solid fa-code-branch"}
        for name, url in (entry.split(", ") for entry in metadata("fmiqa").get_all("Project-URL") or [])
        if name == "Source"
    ],
}
html_sidebars = {"index": []}


def _public_paths() -> dict[str, str]:
    """Where an object is defined -> the public name under which it is documented."""
    modules = [fmiqa, *(getattr(fmiqa, name) for name in SUBMODULES)]
    return {
        f"{value.__module__}.{value.__qualname__}": f"{module.__name__}.{name}"
        for module in reversed(modules)  # the shortest name last, so that it stays
        for name in module.__all__
        if hasattr(value := getattr(module, name), "__qualname__")
    }


def _resolve(app: Sphinx, env: BuildEnvironment, node: pending_xref, contnode: nodes.Element) -> nodes.Node | None:
    """Links to an object by the module that defines it, as in type annotations, lead to its public page."""
    if node["refdomain"] != "py":
        return None
    public = PUBLIC_PATHS.get(node["reftarget"])
    if public is None:
        return None
    domain = env.get_domain("py")
    return domain.resolve_xref(env, node["refdoc"], app.builder, "obj", public, node, contnode)


def _plain_defaults(
    app: Sphinx, what: str, name: str, value: Any, options: Any, signature: str | None, returned: str | None
) -> tuple[str | None, str | None]:
    """Signatures that Sphinx can parse: dataclasses show their factories as `<factory>`."""
    return signature and signature.replace("<factory>", "..."), returned


def _document_constant(app: Sphinx, what: str, name: str, value: Any, options: Any, lines: list[str]) -> None:
    """Give a constant the text beside its definition, which may be in another module than its public one."""
    own = name.rpartition(".")[2]
    homes = [m for key, m in sys.modules.items() if key.startswith("fmiqa.") and vars(m).get(own) is value]
    for home in homes if what == "data" else ():
        found = ModuleAnalyzer.for_module(home.__name__).find_attr_docs().get(("", own))
        lines[:] = found or lines


class CommandHelp(Directive):
    """A section for each command of fmiqa, with the help that it prints."""

    def run(self) -> list[nodes.Node]:
        """Called by Sphinx."""
        sections: list[nodes.Node] = []
        for command in _commands(cli._parser()):
            text = command.format_help()
            section = nodes.section(ids=[nodes.make_id(command.prog)], names=[command.prog])
            section += [nodes.title("", command.prog), nodes.literal_block(text, text, language="none")]
            sections.append(section)
        return sections


def _commands(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """The commands of a parser, each followed by those of its own."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield command
                yield from _commands(command)


def _visit_inline(self: Any, node: nodes.math) -> None:
    self.body.append(tex2mathml(node.astext()))
    raise nodes.SkipNode


def _visit_block(self: Any, node: nodes.math_block) -> None:
    self.body.append(tex2mathml(node.astext(), as_block=True))
    raise nodes.SkipNode


# Napoleon takes what stands before a colon in the first line of a property for its type.
GoogleDocstring._parse_attribute_docstring = GoogleDocstring._consume_to_end

SUBMODULES = ("datasets", "distributed", "measures", "peers", "presets", "visualize")
for name in SUBMODULES:  # some are modules of another name, which autodoc would not find under their public one
    sys.modules.setdefault(f"fmiqa.{name}", getattr(fmiqa, name))
PUBLIC_PATHS = _public_paths()


def setup(app: Sphinx) -> dict[str, bool]:
    """Formulas as MathML, which browsers draw themselves, so that pages ask nothing of other sites."""
    app.add_html_math_renderer("mathml", (_visit_inline, None), (_visit_block, None))
    app.add_directive("command-help", CommandHelp)
    app.connect("missing-reference", _resolve)
    app.connect("autodoc-process-signature", _plain_defaults)
    app.connect("autodoc-process-docstring", _document_constant)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
