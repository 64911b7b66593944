"""Figures are drawn to files without a display, whatever backend the environment asks for."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from fmiqa import InputError
from fmiqa._plotting import axes, check_picture, new_figure, save_figure

pytest.importorskip("matplotlib")

BACKENDS = {
    "missing module": "module://no_such_kernel.backend_inline",
    "misspelt": "nonsense",
    "without a display": "TkAgg",
}


def run(code: str, backend: str, folder: Path) -> str:
    kept = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "WAYLAND_DISPLAY")}
    environment = {**kept, "MPLBACKEND": backend}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("backend", BACKENDS.values(), ids=BACKENDS)
def test_a_backend_that_is_not_there_does_not_matter(backend: str, tmp_path: Path) -> None:
    code = """
import os, sys
from fmiqa._plotting import axes, check_picture, new_figure, save_figure
check_picture("a.png")
figure = new_figure(2, 1)
figure.subplots().plot([1, 2])
save_figure(figure, "a.png")
assert "matplotlib.pyplot" not in sys.modules, "pyplot is not needed to draw to a file"
ax = axes(None, 2, 1)
ax.plot([1, 2])
ax.figure.savefig("b.png")
print(os.environ["MPLBACKEND"])
"""
    assert run(code, backend, tmp_path) == backend
    for name in ("a.png", "b.png"):
        with Image.open(tmp_path / name) as picture:
            assert picture.width >= 200


def test_a_working_backend_of_the_user_is_kept(tmp_path: Path) -> None:
    code = """
from fmiqa._plotting import axes, new_figure
new_figure(1, 1)
import matplotlib
ax = axes(None)
import matplotlib.pyplot as plt
assert plt.fignum_exists(ax.figure.number), "a notebook shows what pyplot knows"
print(matplotlib.get_backend().lower())
"""
    assert run(code, "svg", tmp_path) == "svg"
    chosen = "import matplotlib; matplotlib.use('pdf')\n"
    assert run(chosen + code, "svg", tmp_path) == "pdf"


def test_axes_that_are_given_are_used() -> None:
    ax = new_figure(1, 1).subplots()
    assert axes(ax) is ax


@pytest.mark.parametrize("name", ["a.xyz", "a", "a."])
def test_an_unknown_format_is_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no picture format .*png"):
        check_picture(tmp_path / name)


def test_a_format_that_cannot_be_drawn_here_is_found_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # no LaTeX
    with pytest.raises(InputError, match=r"a\.pgf cannot be drawn"):
        check_picture(tmp_path / "a.pgf")
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["a.png", "a.PNG", "a.svg", "a.pdf"])
def test_pictures_are_written_in_the_format_of_their_name(name: str, tmp_path: Path) -> None:
    check_picture(tmp_path / "new" / name)
    assert not any(tmp_path.iterdir())
    save_figure(new_figure(1, 1), tmp_path / "new" / name)
    start = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[name[2:].lower()]
    assert (tmp_path / "new" / name).read_bytes().startswith(start)


def test_a_device_without_an_ending_gets_png(monkeypatch: pytest.MonkeyPatch) -> None:
    written = {}
    monkeypatch.setattr("fmiqa._plotting.write_whole", lambda path, content: written.update({path: content}))
    check_picture(os.devnull)
    save_figure(new_figure(1, 1), os.devnull)
    with Image.open(io.BytesIO(written[os.devnull])) as picture:
        assert picture.format == "PNG"


def test_what_cannot_be_drawn_is_an_error_of_ours(tmp_path: Path) -> None:
    figure = new_figure(1, 1)
    figure.text(0, 0, "$\\nonsense$")
    with pytest.raises(InputError, match=r"a\.png cannot be drawn"):
        save_figure(figure, tmp_path / "a.png")
    assert not any(tmp_path.iterdir())


def test_a_missing_matplotlib_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.setitem(sys.modules, name, None)
    for draw in (lambda: new_figure(1, 1), lambda: axes(None), lambda: check_picture("a.png")):
        with pytest.raises(InputError, match=r"fmiqa\[plot\]"):
            draw()
