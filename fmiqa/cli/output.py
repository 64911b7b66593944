"""What the commands print: results on standard output, as text or as JSON, and the rest on standard error."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TextIO

from fmiqa._runtime.distributed import is_first
from fmiqa.errors import FmiqaError

__all__ = [
    "ReaderGoneError",
    "Written",
    "add_output_options",
    "explained",
    "figure4",
    "flush_output",
    "print_result",
    "say",
    "show",
    "usable_streams",
    "wants_progress",
]


class ReaderGoneError(Exception):
    """Whoever reads standard output has read enough, as in `fmiqa ... | head`."""


class Written:
    """The files that a command has written at the end of its work.

    What cannot be written does not keep the result from being printed: `print_result` raises it afterwards.
    """

    def __init__(self) -> None:
        self.files: dict[str, str] = {}
        self._failures: list[str] = []

    @property
    def complete(self) -> bool:
        """Whether nothing has failed so far."""
        return not self._failures

    def write(self, kind: str, path: str, save: Callable[[str], None]) -> None:
        """Write one of them."""
        try:
            save(path)
        except (FmiqaError, OSError) as error:
            self._failures.append(explained(error))
        else:
            self.files[kind] = path

    def raise_failures(self) -> None:
        """Raise `FmiqaError` where a file could not be written."""
        if self._failures:
            raise FmiqaError("\n".join(self._failures))


def add_output_options(parser: argparse.ArgumentParser) -> None:
    """`--json` and `--quiet`."""
    group = parser.add_argument_group("output")
    group.add_argument("--json", action="store_true", help="print the result as JSON")
    group.add_argument("--quiet", action="store_true", help="show no progress bars (they are shown only on a terminal)")


def wants_progress(args: argparse.Namespace) -> bool:
    """Whether progress bars are of use to anybody."""
    return not args.quiet and sys.stderr.isatty()


@contextlib.contextmanager
def usable_streams() -> Iterator[None]:
    """Within this, any text can be written to standard output and standard error, whatever they are.

    What their encoding lacks is written as `\\x..`. Where there is no such stream (after `>&-`, or under pythonw),
    what is written to it is dropped.
    """
    with contextlib.ExitStack() as undo:
        for name in ("stdout", "stderr"):
            stream = getattr(sys, name)
            if stream is None or getattr(stream, "closed", False):
                setattr(sys, name, undo.enter_context(open(os.devnull, "w", encoding="utf-8")))
                undo.callback(setattr, sys, name, stream)
            elif isinstance(stream, io.TextIOWrapper):
                undo.callback(stream.reconfigure, errors=stream.errors)
                stream.reconfigure(errors="backslashreplace")
                undo.callback(_finish, stream)
        yield


def say(text: str) -> None:
    """A message to the person at the terminal; it is dropped where it cannot be written."""
    try:
        print(text, file=sys.stderr, flush=True)
    except (OSError, ValueError):
        _drop_pending(sys.stderr)


def show(text: str) -> None:
    """Print to standard output.

    Raises:
        ReaderGoneError: It is a pipe that nobody reads any more.
        OSError: It cannot be written to, such as a file on a full disk.
    """
    try:
        print(text)
    except OSError as error:
        raise _failed(error) from error
    flush_output()


def flush_output() -> None:
    """Write what is pending on standard output; raises as `show` does."""
    try:
        sys.stdout.flush()
    except OSError as error:
        raise _failed(error) from error


def print_result(
    args: argparse.Namespace, result: Mapping[str, Any], text: str, written: Written | None = None
) -> None:
    """The result in the form that was asked for; of several processes, the first prints it.

    Args:
        args: With `--json`.
        result: As JSON.
        text: The same for people.
        written: Files, which are added to both, unless the result has them already.

    Raises:
        FmiqaError: A file could not be written; the result is printed all the same.
    """
    if written is not None and "files" not in result:
        result = {**result, "files": written.files}
        text += f"\n\nwritten to {', '.join(written.files.values())}" if written.files else ""
    try:
        if is_first():
            show(json.dumps(_plain(result), indent=1, allow_nan=False) if args.json else text)
    finally:
        if written is not None:
            written.raise_failures()


def explained(error: Exception) -> str:
    """An error as a line for people."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{os.fsdecode(error.filename)}: {error.strerror}"
    return str(error)


def figure4(value: float) -> str:
    """A coefficient as papers print it: four digits."""
    return "-" if math.isnan(value) else f"{value:.4f}"


def _failed(error: OSError) -> Exception:
    _drop_pending(sys.stdout)
    if isinstance(error, BrokenPipeError):
        return ReaderGoneError()
    return OSError(error.errno, error.strerror, "standard output")


def _finish(stream: TextIO) -> None:
    try:
        stream.flush()
    except (OSError, ValueError):
        _drop_pending(stream)


def _drop_pending(stream: TextIO) -> None:
    """Drop what a stream could not write, or Python would try again at exit and complain."""
    with contextlib.suppress(OSError, ValueError):
        number = stream.fileno()
        kept = os.dup(number)
        try:
            with open(os.devnull, "wb") as nowhere:
                os.dup2(nowhere.fileno(), number)
            stream.flush()
        finally:
            os.dup2(kept, number)
            os.close(kept)


def _plain(value: Any) -> Any:
    """JSON has no NaN and no infinity: they become null."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | None) else str(value)
