"""`import fmiqa` is light."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


def run(code: str, **environment: str) -> str:
    env = {**os.environ, **environment}
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=env).stdout


def test_heavy_packages_are_not_imported() -> None:
    code = """
import sys, torch, torchvision
before = set(sys.modules)
import fmiqa
new = {name.partition(".")[0] for name in set(sys.modules) - before}
late = {"onnx", "torchmetrics"}
print(*sorted(new & late | new & {"scipy", "matplotlib", "pandas", "tqdm", "sklearn", "skimage", "piq", "openpyxl"}))
"""
    assert run(code).split() == []


def test_every_public_name_is_there() -> None:
    import fmiqa

    assert sorted(n for n in fmiqa.__all__ if not hasattr(fmiqa, n)) == []
    assert len(set(fmiqa.__all__)) == len(fmiqa.__all__)


@pytest.mark.parametrize("module", ["datasets", "distributed", "measures", "peers", "presets", "visualize"])
def test_a_public_module_is_there_before_anything_else_is_imported(module: str) -> None:
    assert run(f"import fmiqa; print(fmiqa.{module}.__name__)").strip().startswith("fmiqa.")


@pytest.mark.slow
def test_import_costs_under_a_tenth_of_a_second(tmp_path: Path) -> None:
    code = """
import gc, time, torch, torchvision
gc.disable()
start = time.process_time()
import fmiqa
print(time.process_time() - start)
"""
    # Processor time, the least of several runs, with compiled modules, which the first run leaves: what an
    # installed package takes on a machine that does nothing else. A full garbage collection over torch's
    # objects (100 ms and more) may fall due during any import after torch's and is not counted.
    compiled = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(tmp_path)}
    assert min(float(run(code, **compiled)) for _ in range(3)) < 0.1


@pytest.mark.parametrize(
    ("package", "code"),
    [
        ("torchmetrics", "import fmiqa.integrations.torchmetrics"),
        ("onnxscript", "import fmiqa; fmiqa.export_onnx(fmiqa.load_metric(), '/dev/null')"),
    ],
)
def test_a_missing_package_is_named_with_what_installs_it(package: str, code: str) -> None:
    extra = package.removesuffix("script")
    caught = f"""
import sys
sys.modules[{package!r}] = None
import fmiqa
try:
    {code}
except fmiqa.InputError as error:
    print(error)
"""
    assert f"pip install 'fmiqa[{extra}]'" in run(caught)
