"""fmiqa: image quality from the few CNN feature maps that matter.

Functions take tensors and return tensors on the same device. Arrays and lists raise an `InputError`, which says how to
convert them.
"""

import ast
import importlib
from pathlib import Path
from typing import Any


def _public_names() -> dict[str, tuple[str, str]]:
    """Public name -> module that has it, and its name there, as listed in `__init__.pyi`."""
    stub = ast.parse(Path(__file__).with_suffix(".pyi").read_text("utf-8"))
    return {
        alias.asname or alias.name: (statement.module or "", alias.name)
        for statement in stub.body
        if isinstance(statement, ast.ImportFrom)
        for alias in statement.names
    }


_PUBLIC = _public_names()
__all__ = list(_PUBLIC)


def __getattr__(name: str) -> Any:
    """Import what is asked for: `import fmiqa` alone imports neither torchvision nor the rest."""
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, own_name = _PUBLIC[name]
    found = None if module == __name__ else getattr(importlib.import_module(module), own_name, None)
    return importlib.import_module(f"{module}.{own_name}") if found is None else found


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})
