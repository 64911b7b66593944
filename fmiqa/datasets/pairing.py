"""Two folders of images, references and test images, paired by the names of their files."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Container
from pathlib import Path
from typing import NoReturn

from PIL import Image

from fmiqa.errors import DatasetError, InputError

__all__ = ["pair_folders"]

_NAMED = 5  # files named in a line of an error


def pair_folders(references: str | os.PathLike[str], tests: str | os.PathLike[str]) -> list[tuple[Path, Path]]:
    """Pairs of reference and test image, from two folders and those below them.

    A test image belongs to the reference of the same name, letter case and ending aside, in the same sub-folder:
    `a/Lake.jpg` to `a/lake.png`. Where there is none, it belongs to the one reference whose name, followed by "_" or
    "-", its own begins with: `lake_jpeg_3.png` or `lake-2.png`. Files whose ending is of no image, and hidden ones,
    are left out; links to folders are not followed.

    Args:
        references: The folder of reference images.
        tests: The folder of test images.

    Returns:
        (reference, test) in the order of the references' names, then of the test images'.

    Raises:
        InputError: A path that is no folder.
        DatasetError: A folder without images; images without a partner, or with several.

    Example:
        >>> import tempfile
        >>> root = Path(tempfile.mkdtemp())
        >>> for name in ("good/lake.png", "bad/Lake_1.jpg", "bad/Lake_2.jpg"):
        ...     (root / name).parent.mkdir(exist_ok=True)
        ...     (root / name).touch()
        >>> [(a.name, b.name) for a, b in pair_folders(root / "good", root / "bad")]
        [('lake.png', 'Lake_1.jpg'), ('lake.png', 'Lake_2.jpg')]
    """
    references, tests = Path(references), Path(tests)
    named, judged = _images(references), _images(tests)
    problems = [
        f"there are no images in {folder}" for folder, found in ((references, named), (tests, judged)) if not found
    ]
    problems += _clashes(references, named) + _clashes(tests, judged)
    pairs: list[tuple[str, str]] = []
    alone, between = [], []
    for test in judged:
        partners = _partners(test, named)
        if len(partners) == 1:
            pairs.append((partners[0], test))
        elif partners:
            several = " and ".join(str(named[partner][0]) for partner in partners)
            between.append(f"{judged[test][0]}, which begins like {several}")
        else:
            alone.append(str(judged[test][0]))
    used = {reference for reference, _ in pairs}
    idle = [str(files[0]) for reference, files in named.items() if reference not in used]
    if named and judged:
        problems += _line(f"without a reference in {references}", alone, "test image")
        problems += _line(f"with several references in {references}", between, "test image")
        problems += _line(f"without a test image in {tests}", idle, "reference")
    if problems:
        raise DatasetError(
            f"{references} and {tests} cannot be paired (by name, or <reference>_... and <reference>-...; a table of "
            "pairs takes any names):",
            problems,
        )
    return [(references / named[a][0], tests / judged[b][0]) for a, b in sorted(pairs)]


def _images(folder: Path) -> dict[str, list[Path]]:
    """The image files of a folder by what they are paired by, relative to it."""
    if not os.path.isdir(folder):
        raise InputError(f"{folder} is no folder; expected a folder of images")
    Image.init()
    endings = {ending for ending, kind in Image.registered_extensions().items() if kind in Image.OPEN}
    found: dict[str, list[Path]] = {}
    for place, folders, files in os.walk(folder, onerror=_unreadable):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            path = Path(place, name).relative_to(folder)
            if path.suffix.lower() in endings and not name.startswith("."):
                key = unicodedata.normalize("NFC", path.with_suffix("").as_posix()).casefold()
                found.setdefault(key, []).append(path)
    return dict(sorted(found.items()))


def _partners(test: str, references: Container[str]) -> list[str]:
    """The references that a test image may belong to."""
    if test in references:
        return [test]
    start = test.rfind("/") + 1
    return [test[:k] for k in range(start + 1, len(test)) if test[k] in "_-" and test[:k] in references]


def _clashes(folder: Path, found: dict[str, list[Path]]) -> list[str]:
    names = [" and ".join(map(str, files)) for files in found.values() if len(files) > 1]
    return _line(f"of {folder} shared by several files", names, "name")


def _line(what: str, names: list[str], kind: str) -> list[str]:
    """A line that counts and names what is wrong, or none."""
    if not names:
        return []
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return [f"{len(names)} {kind}{'s' if len(names) > 1 else ''} {what}: {'; '.join(names[:_NAMED])}{more}"]


def _unreadable(error: OSError) -> NoReturn:
    raise error
