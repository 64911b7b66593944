"""The files and folders that a command is asked to write: what makes one impossible is found before the work."""

from __future__ import annotations

import argparse
import io
import itertools
import os
from collections.abc import Iterator, Mapping
from typing import Any

from PIL import Image
from torch import Tensor

from fmiqa._io import check_output, check_output_folder, is_special, write_whole
from fmiqa._plotting import check_picture
from fmiqa.errors import InputError

__all__ = ["OutputFile", "OutputFolder", "OutputPicture", "check_outputs", "save_picture"]


class OutputFile(str):
    """The type of an option that names a file to be written."""


class OutputPicture(OutputFile):
    """The same for a picture, whose format its ending names."""


class OutputFolder(str):
    """The same for a folder of files."""


def save_picture(picture: Tensor, path: str) -> None:
    """Write (3, H, W) uint8 as PNG, whole or not at all."""
    content = io.BytesIO()
    Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy()).save(content, "PNG")
    write_whole(path, content.getvalue())


def check_outputs(args: argparse.Namespace) -> None:
    """Refuse what could not be written in the end, and what would be written over.

    Raises:
        InputError: An option names a place that cannot be written to, an unknown picture format, the same file as
            another option that is written, or a file that the command reads.
    """
    outputs = {_option(n): value for n, value in vars(args).items() if isinstance(value, OutputFile | OutputFolder)}
    for option, path in outputs.items():
        try:
            if isinstance(path, OutputFolder):
                check_output_folder(path)
            else:
                check_output(path)
            if isinstance(path, OutputPicture):
                check_picture(path)
        except InputError as error:
            raise InputError(f"{option}: {error}") from error
    _refuse_collisions({option: path for option, path in outputs.items() if not is_special(path)})
    _refuse_inputs(args, outputs)


def _refuse_collisions(outputs: Mapping[str, str]) -> None:
    for (one, a), (other, b) in itertools.permutations(outputs.items(), 2):
        place, second = os.path.realpath(a), os.path.realpath(b)
        if place == second:
            raise InputError(f"{one} and {other} name the same place, {a}")
        if isinstance(a, OutputFile) and second.startswith(place + os.sep):
            raise InputError(f"{one} is to be a file, {a}, and {other} lies below it, {b}")


def _refuse_inputs(args: argparse.Namespace, outputs: Mapping[str, str]) -> None:
    files = {os.path.realpath(p): option for option, p in outputs.items() if isinstance(p, OutputFile)}
    for value in vars(args).values():
        for text in _texts(value):
            for path in (text, text.partition("=")[2]):  # NAME=FILE
                option = files.get(os.path.realpath(path)) if path and os.path.isfile(path) else None
                if option is not None:
                    raise InputError(f"{option}: {path} is what the command reads; give another name")


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, str) and not isinstance(value, OutputFile | OutputFolder):
        yield value


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
