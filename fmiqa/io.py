"""Files written whole or not at all: tensors with a JSON header (safetensors), and plain JSON."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from fmiqa.errors import FileFormatError

__all__ = ["load_json", "load_tensors", "save_json", "save_tensors", "write_whole"]


def write_whole(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file so that a reader, or a kill at any moment, never sees half of it."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, draft = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(draft, 0o666 & ~mask)  # mkstemp's files are for their owner alone
        os.replace(draft, target)
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise


def save_tensors(
    path: str | os.PathLike[str], kind: str, tensors: Mapping[str, Tensor], header: Mapping[str, Any]
) -> None:
    """Save tensors and a JSON header in one safetensors file that says what it holds (`kind`)."""
    flat = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_whole(path, save(flat, {"kind": kind, "header": json.dumps(header)}))


def load_tensors(path: str | os.PathLike[str], kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `save_tensors` saved under the same `kind`.

    Raises:
        FileFormatError: the file is missing, damaged, or holds something else.
    """
    try:
        # Older versions of safetensors load onto the default device, whatever device they are told.
        with torch.device("cpu"), safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            _expect(path, kind, metadata.get("kind"))
            return {name: file.get_tensor(name) for name in file.keys()}, json.loads(metadata["header"])  # noqa: SIM118
    except FileNotFoundError as error:
        raise FileFormatError(f"no file {path}; expected a saved {kind}") from error
    except (SafetensorError, OSError, KeyError, json.JSONDecodeError) as error:
        raise FileFormatError(f"{path} is damaged or not a saved {kind}: {error}") from error


def save_json(path: str | os.PathLike[str], kind: str, content: Mapping[str, Any]) -> None:
    """Save a mapping as readable JSON that says what it holds (`kind`)."""
    write_whole(path, (json.dumps({"kind": kind, **content}, indent=1) + "\n").encode())


def load_json(path: str | os.PathLike[str], kind: str) -> dict[str, Any]:
    """What `save_json` saved under the same `kind`.

    Raises:
        FileFormatError: the file is missing, damaged, or holds something else.
    """
    try:
        content = json.loads(Path(path).read_text())
    except FileNotFoundError as error:
        raise FileFormatError(f"no file {path}; expected a saved {kind}") from error
    except (UnicodeDecodeError, json.JSONDecodeError, OSError) as error:
        raise FileFormatError(f"{path} is damaged or not a saved {kind}: {error}") from error
    _expect(path, kind, content.pop("kind", None) if isinstance(content, dict) else None)
    return content  # type: ignore[no-any-return]


def _expect(path: str | os.PathLike[str], kind: str, found: str | None) -> None:
    if found != kind:
        raise FileFormatError(f"{path} holds {found or 'something else'}, expected {kind}")
