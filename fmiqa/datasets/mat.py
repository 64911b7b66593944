"""Score tables in MATLAB's .mat files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fmiqa.errors import DatasetError

__all__ = ["numbers", "read_mat"]


def read_mat(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of a .mat file up to version 7, by name in lower case.

    Raises:
        DatasetError: Not such a file.
    """
    from scipy.io import loadmat

    try:
        content = loadmat(path)
    except NotImplementedError as error:
        raise DatasetError(
            f"{path} is a .mat file of version 7.3; load it in MATLAB and save it with save(..., '-v7')"
        ) from error
    except Exception as error:  # scipy raises whatever its parser stumbles on
        raise DatasetError(
            f"{path} is not a readable .mat file ({type(error).__name__}: {error}); fetch it again"
        ) from error
    return {name.lower(): np.asarray(value) for name, value in content.items() if not name.startswith("__")}


def numbers(arrays: dict[str, NDArray[Any]], name: str, path: Path, problems: list[str]) -> NDArray[np.float64] | None:
    """One of the arrays as float64; None, and a line in `problems`, if it is missing or holds no numbers."""
    array = arrays.get(name.lower())
    if array is None:
        problems.append(f"{path} has no variable {name}; variables there are: {', '.join(arrays) or 'none'}")
        return None
    if array.dtype.kind not in "biuf":
        problems.append(f"{path}: {name} holds {array.dtype}, expected numbers; fetch the file again")
        return None
    return array.astype(np.float64)
