"""The `fmiqa` command, thin over the library.

Results go to standard output, everything else to standard error.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Sequence
from typing import Any

import torch

from fmiqa._runtime.distributed import alone, from_first, is_first, launched
from fmiqa.cli import (
    datasets,
    demo,
    evaluate,
    explain,
    matrix,
    merge,
    metrics,
    report,
    reproduce,
    score,
    select,
    transfer,
    validate,
    visualize,
)
from fmiqa.cli.output import ReaderGoneError, explained, flush_output, say, usable_streams
from fmiqa.cli.outputs import check_outputs
from fmiqa.errors import FmiqaError

__all__ = ["main"]

_DESCRIPTION = """\
Image quality from the few CNN feature maps that matter.

  fmiqa score    --reference reference.png test.png
  fmiqa explain  --reference reference.png test.png --out page.html
  fmiqa demo     --out demo/
  fmiqa datasets check csiq CSIQ/
  fmiqa matrix   --csv study.csv --out study.safetensors
  fmiqa merge    --out study.safetensors
  fmiqa select   study.safetensors --out selected.json --metric metric.safetensors
  fmiqa validate study.safetensors
  fmiqa evaluate --selection selected.json --matrix study.safetensors
  fmiqa visualize maximize --selection selected.json --out pictures.png
  fmiqa report   selected.json --matrix study.safetensors --csv study.csv --out report.html
  fmiqa transfer tid2013.safetensors csiq.safetensors --plot transfer.png
  fmiqa reproduce table1 --tid2013 TID2013/ --csiq CSIQ/ --out paper/

Every command has its own --help. Several processes or GPUs share the work of matrix, select, validate, evaluate,
transfer and reproduce: torchrun --nproc-per-node 4 -m fmiqa matrix ..."""

_EPILOG = """\
Whether files can be written is checked before the work starts. If writing a file fails at the end, the result is still
printed, and the message names the file. Characters that the output's encoding lacks are printed as escapes.

exit codes: 0 done, 1 an error that the message explains, 2 a wrong command line, 130 interrupted"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the `fmiqa` command.

    Args:
        argv: The arguments, those of the process by default.

    Returns:
        The exit code: 0, 1 (an error that the message explains) or 130 (interrupted). A wrong command line
        (code 2), `--help` and `--version` raise `SystemExit`, as argparse does.

    Example:
        >>> main(["score", "--metric", "metric.safetensors", "--reference", "a.png", "b.png"])
        1
    """
    with usable_streams(), warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = _show_warning
        code, message = _run(argv)
        if message:
            say(f"fmiqa: {message}")
    return code


def _run(argv: Sequence[str] | None) -> tuple[int, str]:
    """Exit code and message; said after the exception is gone, which keeps progress bars from being closed."""
    args = argparse.Namespace(interrupted=lambda _: "")
    try:
        args = _parsed(argv)
        with launched(getattr(args, "device", "cpu")):
            _run_together(args)
    except KeyboardInterrupt:
        return 130, f"interrupted. {args.interrupted(args)}"
    except ReaderGoneError:
        return 0, ""
    except torch.OutOfMemoryError as error:
        return 1, f"out of memory on the device; lower --memory or --batch-size ({error})"
    except (FmiqaError, OSError) as error:
        return 1, explained(error)
    return 0, ""


def _parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    try:
        return _parser().parse_args(argv)
    except SystemExit:
        flush_output()  # --help and --version are printed
        raise


def _run_together(args: argparse.Namespace) -> None:
    """Run the command; under `torchrun`, with the others, of which the first speaks and writes the files."""
    if not is_first():
        args.quiet = True
        warnings.simplefilter("ignore", UserWarning)
    from_first(lambda: check_outputs(args))
    if args.run not in (
        datasets.run,
        demo.run,
        explain.run,
        merge.run,
        metrics.run,
        score.run,
        visualize.run,
        report.run,
    ):
        args.run(args)
    elif is_first():
        with alone():
            args.run(args)


def _parser() -> argparse.ArgumentParser:
    from fmiqa import __version__

    parser = argparse.ArgumentParser(
        prog="fmiqa",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"fmiqa {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", title="commands", required=True)
    scoring = (demo, datasets, metrics, score, explain, matrix, merge)
    for command in (*scoring, select, validate, evaluate, visualize, report, transfer, reproduce):
        command.add(commands)
    return parser


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    say(f"fmiqa: warning: {message}")
