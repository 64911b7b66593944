"""The tables of the paper, computed again on the data sets that are on disk."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from fmiqa._io import check_output
from fmiqa._plotting import load_matplotlib
from fmiqa._runtime.distributed import from_first
from fmiqa.correlation import plcc, srocc
from fmiqa.datasets import CATALOGUE, IQADataset
from fmiqa.errors import InputError
from fmiqa.features.checkpoints import StateDict
from fmiqa.features.extractor import FeatureExtractor
from fmiqa.features.tracing import Stage
from fmiqa.measures import Measure
from fmiqa.pooling import Pool
from fmiqa.reproduction.published import PUBLISHED, TABLES
from fmiqa.reproduction.result import Measured, Reproduction, TableRow, files_of
from fmiqa.scoring.checkpoint import Checkpoint
from fmiqa.scoring.matrix import ScoreMatrix
from fmiqa.scoring.run import score_matrix
from fmiqa.scoring.scorer import MapScorer
from fmiqa.selection import Selection, Validation, cross_validate, forward_select, grouped_folds

__all__ = ["reproduce"]

_RUN = "fmiqa reproduction run 1"


def reproduce(
    table: str,
    data: Mapping[str, IQADataset],
    *,
    weights: str | os.PathLike[str] | StateDict | None = "DEFAULT",
    stage: Stage = "relu",
    layers: Iterable[str] | None = None,
    measure: str | Measure = "ssim",
    pool: Pool = "mean",
    folds: int = 5,
    seed: int = 0,
    out: str | os.PathLike[str] | None = None,
    write: bool = True,
    progress: bool = False,
    **computing: Any,
) -> Reproduction:
    """Compute a table of the paper: on each data set, forward selection in sample as published, and held out.

    Held out, the whole search is run again in folds of whole references and judged, at the number of maps that it
    stops at, on the references that it has not seen (`fmiqa.cross_validate`).

    A row is a data set of the paper only where the images have its name and its numbers of images and references.
    Whatever else is given, a part of it or a set of another name, gets a row of its own, which says what it is and
    stands beside no published figures.

    Args:
        table: `"table1"` (AlexNet) or `"table2"` (VGG16).
        data: The data sets on disk, by their keys in `fmiqa.datasets.CATALOGUE`: any of `"cidiq100"`,
            `"cidiq50"`, `"csiq"`, `"tid2013"`, `"cidgd"`. The others are listed as not on disk.
        weights: The weights of the network, as for `FeatureExtractor`; None stands for random ones, and the
            table says so.
        stage, layers: As for `FeatureExtractor`.
        measure: How maps are compared.
        pool: How map scores are combined.
        folds: Number of folds of whole references.
        seed: Seed of the dealing of references to folds, and of random weights.
        out: Folder for the table (Markdown, JSON, pictures), and in it `tid2013-alexnet/`, ... with each finished
            step: score matrix, selection and held-out figures, which `fmiqa report` and `fmiqa transfer` take up. A
            run that was stopped goes on from them when called again.
        write: Whether to write the table itself to `out` at the end; `Reproduction.write` does the same.
        progress: Show progress bars.
        computing: `device`, `memory`, `batch_size`, `workers`, `check`, `compile`, as for `score_matrix`.

    Raises:
        InputError: An unknown table or data set, or none; fewer references than folds; `out` is given, and
            matplotlib is not installed or a file cannot be written there.
        ResumeError: `out` has steps of other images, or of a run with other options.
        WeightsError: From the network.
        DatasetError: A damaged image file.

    Example:
        >>> import warnings; warnings.simplefilter("ignore")
        >>> import fmiqa
        >>> data = {"tid2013": fmiqa.datasets.Demo(references=2, size=64, levels=2)}
        >>> found = reproduce("table1", data, weights=None, layers=["conv1"], folds=2)
        >>> [row.dataset for row in found.rows][-3:]
        ['TID2013', 'Demo (simulated observer)', 'CID:GD']
    """
    _check(table, data, out)
    for images in data.values():
        grouped_folds(images.reference_ids, folds=folds)  # too few references are found before the work
    network = TABLES[table]
    extractor = FeatureExtractor(network, weights=weights, stage=stage, layers=layers, seed=seed)
    options = {**MapScorer(extractor, measure=measure).options(), "pool": pool, "folds": folds, "seed": seed}
    rows = []
    for key, published in PUBLISHED[network].items():
        measured, given = None, data.get(key)
        if given is not None:
            folder = None if out is None else Path(out) / f"{key}-{network}"
            kept = Checkpoint(folder)
            from_first(partial(kept.open, _RUN, {**_described(given), **options}))
            compute = {"measure": measure, "progress": progress, **computing}
            measured = _measured(kept, extractor, given, compute, pool=pool, folds=folds, seed=seed)
        remark = "" if given is None else _remark(key, given)
        rows.append(TableRow(key, CATALOGUE[key].name, published, None if remark else measured))
        if given is not None and remark:
            rows.append(TableRow(key, given.name, None, measured, remark))
    options["maps"] = {layer: len(channels) for layer, channels in extractor.maps.channels.items()}
    options["random_weights"] = weights is None
    found = Reproduction(table, network, tuple(rows), options)
    if out is not None and write:
        from_first(lambda: found.write(out))
    return found


def _measured(
    kept: Checkpoint,
    extractor: FeatureExtractor,
    images: IQADataset,
    compute: Mapping[str, Any],
    *,
    pool: Pool,
    folds: int,
    seed: int,
) -> Measured:
    """All steps on one data set, those that are finished taken up."""
    file, progress = "scores.safetensors", compute["progress"]
    scores = kept.take(file, ScoreMatrix, lambda: score_matrix(extractor, images, save=kept.path(file), **compute))
    chosen = kept.take("selected.json", Selection, lambda: forward_select(scores, pool=pool, progress=progress))
    # With room for all maps, each fold's search goes on to its own end, which the last column shows.
    most = len(scores.maps)
    validation = kept.take(
        "folds.json",
        Validation,
        lambda: cross_validate(scores, folds=folds, seed=seed, pool=pool, max_maps=most),
    )
    every, combined, y = scores.pool(pool=pool), chosen.combine(scores), scores.targets
    return Measured(
        images=len(scores),
        references=len(set(scores.groups)),
        maps=chosen.maps,
        plcc=chosen.value,
        srocc=float(srocc(combined, y)),
        all_plcc=float(plcc(every, y)),
        all_srocc=float(srocc(every, y)),
        held_out_maps=tuple(len(maps) for maps in validation.selected),
        held_out_plcc=tuple(validation.plcc[:, -1].tolist()),
        held_out_srocc=tuple(validation.srocc[:, -1].tolist()),
        held_out_all_plcc=tuple(validation.all_plcc.tolist()),
        held_out_all_srocc=tuple(validation.all_srocc.tolist()),
    )


def _described(images: IQADataset) -> dict[str, Any]:
    """The images and their scores, as what was computed from them is told apart by."""
    content = json.dumps([images.names, images.reference_ids, images.targets.tolist()])
    digest = hashlib.sha256(content.encode()).hexdigest()
    return {"dataset": images.name, "images": len(images), "images_and_scores_sha256": digest}


def _remark(key: str, images: IQADataset) -> str:
    """What the images are, unless they are the paper's data set."""
    entry, references = CATALOGUE[key], len(set(images.reference_ids))
    expected = (entry.name, entry.images or len(images), entry.references or references)
    if (images.name, len(images), references) == expected:
        return ""
    whole = f" ({entry.images} of {entry.references})" if entry.images else ""
    return (
        f"{images.name}, given as {key}: {len(images)} images of {references} references. It is not the published "
        f"{entry.name}{whole}: its figures are not to be compared with the published ones."
    )


def _check(table: str, data: Mapping[str, IQADataset], out: str | os.PathLike[str] | None) -> None:
    if table not in TABLES:
        raise InputError(f"table is one of {', '.join(f'{t} ({n})' for t, n in TABLES.items())}, got {table!r}")
    known = PUBLISHED[TABLES[table]]
    unknown = [key for key in data if key not in known]
    if unknown or not data:
        raise InputError(
            f"data is any of {', '.join(known)}, each with its data set, got {', '.join(unknown) or 'none'}"
        )
    if out is not None:
        load_matplotlib()
        steps = [Path(out) / f"{key}-{TABLES[table]}" / "run.json" for key in data]
        for path in (*files_of(table, out).values(), *steps):
            from_first(partial(check_output, path))
