"""What the benchmark scripts share: where results go, and what they were measured on."""

from __future__ import annotations

import datetime
import json
import platform
from pathlib import Path
from typing import Any

import torch

import fmiqa
from fmiqa.io import write_whole

RESULTS = Path(__file__).parent / "results"


def machine() -> dict[str, Any]:
    """Device, versions and date."""
    cuda = torch.cuda.is_available()
    return {
        "device": torch.cuda.get_device_name() if cuda else f"CPU, {torch.get_num_threads()} threads",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "fmiqa": fmiqa.__version__,
        "date": datetime.date.today().isoformat(),
    }


def store(name: str, content: dict[str, Any]) -> Path:
    """Write `results/<name>.json`, with what it was measured on."""
    path = RESULTS / f"{name}.json"
    write_whole(path, (json.dumps({"machine": machine(), **content}, indent=1) + "\n").encode())
    return path
