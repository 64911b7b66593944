"""A table of the images of a score matrix, for other programs: Parquet."""

from __future__ import annotations

import io
import os

from fmiqa._io import check_output, write_whole
from fmiqa.errors import InputError
from fmiqa.scoring.matrix import ScoreMatrix
from fmiqa.scoring.store import ScoreStore

__all__ = ["write_samples"]

_COLUMNS = {
    "name": "names",
    "reference": "groups",
    "distortion": "distortions",
    "dataset": "datasets",
    "sha256": "digests",
}


def write_samples(scores: ScoreMatrix | ScoreStore, path: str | os.PathLike[str]) -> None:
    """Write what is known of each image as a Parquet file, without the scores of the maps.

    The columns are name, reference, distortion, dataset and sha256 (of the image and its score), as far as they are
    known, and score, the subjective one. The order is that of the rows of the matrix. pyarrow is needed:
    `pip install fmiqa[table]`.

    Args:
        scores: A score matrix, in memory or on disk.
        path: The file to write, whole or not at all.

    Raises:
        InputError: pyarrow is not installed, or the file cannot be written.
    """
    check_output(path)
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise InputError(
            "a Parquet table is written by pyarrow, which is not installed: pip install 'fmiqa[table]'"
        ) from error
    columns = {name: getattr(scores, part) for name, part in _COLUMNS.items()}
    table = pyarrow.table(
        {
            **{name: values for name, values in columns.items() if values is not None},
            "score": scores.targets.double().cpu().numpy(),
        }
    )
    content = io.BytesIO()
    pyarrow.parquet.write_table(table, content)
    write_whole(path, content.getvalue())
