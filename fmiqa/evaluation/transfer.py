"""Maps chosen on one data set, judged on every other."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor

from fmiqa._io import load_json, save_json
from fmiqa._plotting import ORANGE, axes
from fmiqa._tables import html_table, markdown_table, text_table
from fmiqa.correlation import plcc, srocc
from fmiqa.errors import FileFormatError, FmiqaError, InputError
from fmiqa.maps import MapIndex
from fmiqa.pooling import Pool
from fmiqa.reproduction.result import mean_and_error
from fmiqa.scoring.matrix import COMPUTATION, ScoreMatrix, differing_computation, sources_of
from fmiqa.selection import cross_validate, forward_select

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["CrossDataset", "cross_dataset"]

Figure = Literal["plcc", "srocc"]

_KIND = "fmiqa cross-data-set study 1"
_FIGURES = ("plcc", "srocc", "held_out_plcc", "held_out_srocc")
_ALL_MAPS = "all maps"


@dataclass(frozen=True, eq=False)
class CrossDataset:
    """What the maps chosen on each of D data sets are worth on every one of them.

    The diagonal is in sample, all else a transfer: maps and their number come from one data set, the images and
    observers from another; only the logistic is fitted to the images judged, as for any metric.

    Args:
        datasets: their names.
        selected: (D) the maps chosen on all images of each, in order.
        plcc: (D + 1, D) at `[a, b]` the non-linear PLCC of a's maps with the scores of b; the last row is that of
            all maps.
        srocc: (D + 1, D) the same by Spearman correlation.
        held_out_plcc: (D, F) what a selection on each data set is worth on its own references held out, by fold;
            (D, 0) if that was not asked for.
        held_out_srocc: (D, F) the same by Spearman correlation.
        shared: (D, D) how many references of two data sets bear the same name.
        options: how it was run.
    """

    datasets: tuple[str, ...]
    selected: tuple[MapIndex, ...]
    plcc: Tensor
    srocc: Tensor
    held_out_plcc: Tensor
    held_out_srocc: Tensor
    shared: Tensor
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def notes(self) -> tuple[str, ...]:
        """How to read it."""
        notes = [
            "Rows: the data set that the maps were chosen on; columns: the one that they are judged on, where the "
            "logistic of the PLCC is fitted. The diagonal is IN SAMPLE, and better than what new images would give."
        ]
        folds = self.held_out_plcc.shape[1]
        if folds:
            notes.append(
                f"Held out: chosen anew without the references judged on; mean ± standard error over {folds} folds of "
                "whole references."
            )
        for a, b in self.shared.triu(1).nonzero().tolist():
            notes.append(
                f"† {int(self.shared[a, b])} references of {self.datasets[a]} and {self.datasets[b]} bear the same "
                "names: if they are the same pictures, only distortions and observers are new to the maps."
            )
        return tuple(notes)

    def table_rows(self, figure: Figure = "plcc") -> list[tuple[str, ...]]:
        """The matrix as rows of text, the header first.

        Args:
            figure: `"plcc"` or `"srocc"`.
        """
        matrix, held_out = self._of(figure)
        rows: list[tuple[str, ...]] = [("chosen on", "maps", *(f"on {name}" for name in self.datasets))]
        for a, name in enumerate(self.datasets):
            cells = [f"{v:.4f}" + " †" * self._share(a, b) for b, v in enumerate(matrix[a].tolist())]
            cells[a] += " in sample"
            if held_out.shape[1]:
                cells[a] += ", {:.4f} ± {:.4f} held out".format(*mean_and_error(held_out[a].tolist()))
            rows.append((name, str(len(self.selected[a])), *cells))
        every = [f"{v:.4f}" for v in matrix[-1].tolist()]
        return [*rows, (f"nothing: {_ALL_MAPS}", str(self.options.get("maps", "all")), *every)]

    def plot(self, ax: Axes | None = None, *, figure: Figure = "plcc") -> Axes:
        """Draw the matrix as a heat map; the diagonal, framed, by its held-out figures where there are any.

        Args:
            ax: where to draw; a new figure by default.
            figure: `"plcc"` or `"srocc"`.
        """
        matrix, held_out = self._of(figure)
        size = len(self.datasets)
        shown = matrix.clone()
        texts = [[f"{v:.3f}" + " †" * self._share(a, b) for b, v in enumerate(row)] for a, row in enumerate(matrix)]
        for a in range(size):
            texts[a][a] += "\nin sample"
            if held_out.shape[1]:
                mean, error = mean_and_error(held_out[a].tolist())
                shown[a, a] = mean
                texts[a][a] = f"{mean:.3f} ± {error:.3f}\nheld out\n({matrix[a, a]:.3f} in sample)"
        ax = axes(ax, width=3.2 + 1.35 * size, height=1.6 + 0.85 * (size + 1))
        image = ax.imshow(shown.tolist(), cmap="cividis", aspect="auto")
        middle = float(shown.min() + shown.max()) / 2
        for a, row in enumerate(texts):
            for b, text in enumerate(row):
                ink = "black" if shown[a, b] > middle else "white"
                ax.text(b, a, text, ha="center", va="center", fontsize=8, color=ink)
        from matplotlib.patches import Rectangle

        for a in range(size):
            ax.add_patch(Rectangle((a - 0.48, a - 0.48), 0.96, 0.96, fill=False, edgecolor=ORANGE, linewidth=2))
        ax.set_xticks(range(size), list(self.datasets), fontsize=8)
        names = [f"{name}\n({len(maps)} maps)" for name, maps in zip(self.datasets, self.selected, strict=True)]
        ax.set_yticks(range(size + 1), [*names, f"nothing:\n{_ALL_MAPS}"], fontsize=8)
        ax.set_xlabel("judged on" + "\n† references of the same names" * bool(self.shared.triu(1).any()))
        ax.set_ylabel("maps chosen on")
        name = "non-linear PLCC" if figure == "plcc" else "SROCC"
        ax.figure.colorbar(image, ax=ax, label=f"{name}{', on the diagonal held out' * bool(held_out.shape[1])}")
        return ax

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "datasets": list(self.datasets),
            "selected": [[str(m) for m in maps] for maps in self.selected],
            **{name: getattr(self, name).tolist() for name in _FIGURES},
            "shared": self.shared.tolist(),
            "options": dict(self.options),
            "notes": list(self.notes),
        }

    def to_markdown(self) -> str:
        """Both tables and the notes as Markdown."""
        notes = "\n".join(f"- {note}" for note in self.notes)
        tables = [f"{figure.upper()}\n\n{markdown_table(self.table_rows(figure))}" for figure in get_args(Figure)]
        return "\n\n".join([*tables, notes]) + "\n"

    def save(self, path: str | os.PathLike[str]) -> None:
        """Save as JSON, written whole or not at all."""
        save_json(path, _KIND, self.to_dict())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> CrossDataset:
        """What `save` saved.

        Raises:
            FileFormatError: the file is missing, damaged, or holds something else.
        """
        content = load_json(path, _KIND)
        try:
            return cls(
                datasets=tuple(content["datasets"]),
                selected=tuple(MapIndex(maps) for maps in content["selected"]),
                shared=torch.tensor(content["shared"], device="cpu"),
                options=content["options"],
                **{name: torch.tensor(content[name], dtype=torch.float64, device="cpu") for name in _FIGURES},
            )
        except (KeyError, TypeError, ValueError, FmiqaError) as error:
            raise FileFormatError(f"{path} is not a whole saved cross-data-set study: {error!r}") from error

    def __str__(self) -> str:
        tables = [f"{figure.upper()}\n{text_table(self.table_rows(figure))}" for figure in get_args(Figure)]
        return "\n\n".join([*tables, "\n".join(self.notes)])

    def __repr__(self) -> str:
        return f"CrossDataset({', '.join(self.datasets)})"

    def _repr_html_(self) -> str:
        tables = [html_table(self.table_rows(figure), figure.upper()) for figure in get_args(Figure)]
        return "".join(tables) + "".join(f"<p>{escape(note)}</p>" for note in self.notes)

    def _share(self, a: int, b: int) -> bool:
        return a != b and a < len(self.datasets) and bool(self.shared[a, b])

    def _of(self, figure: Figure) -> tuple[Tensor, Tensor]:
        if figure not in get_args(Figure):
            raise InputError(f"figure is 'plcc' or 'srocc', got {figure!r}")
        return (self.plcc, self.held_out_plcc) if figure == "plcc" else (self.srocc, self.held_out_srocc)


def cross_dataset(
    matrices: Mapping[str, ScoreMatrix],
    *,
    pool: Pool = "mean",
    max_maps: int | None = None,
    folds: int | None = 5,
    seed: int = 0,
    progress: bool = False,
) -> CrossDataset:
    """Choose maps on each data set, and judge them on every other.

    Args:
        matrices: name of a data set -> its score matrix, of the same network, measure and maps.
        pool: how map scores are combined.
        max_maps: as for `forward_select`.
        folds: of whole references, for what a selection is worth on its own data set held out; None: leave that out.
        seed: of the dealing of references to folds.
        progress: show a progress bar for each search.

    Returns:
        The matrix of figures, which prints as tables and draws as a heat map.

    Raises:
        InputError: fewer than two matrices; matrices of other maps, or computed otherwise, by name; as
            `forward_select` and `cross_validate`.

    Example:
        >>> def study(seed):
        ...     generator = torch.Generator().manual_seed(seed)
        ...     values = torch.rand(40, 3, generator=generator)
        ...     names = [f"image{i}" for i in range(40)]
        ...     groups = [f"{seed}-{i // 8}" for i in range(40)]
        ...     return ScoreMatrix(values, MapIndex(["a:0", "a:1", "a:2"]), values[:, 1].double(), groups, names)
        >>> found = cross_dataset({"first": study(1), "second": study(2)}, folds=2)
        >>> [str(*maps) for maps in found.selected], found.plcc[0].round(decimals=2).tolist()
        (['a:1', 'a:1'], [1.0, 1.0])
    """
    _check_same(matrices)
    selections, held_out = [], []
    for scores in matrices.values():
        selections.append(forward_select(scores, pool=pool, max_maps=max_maps, progress=progress))
        if folds is not None:
            most = max_maps or len(scores.maps)
            found = cross_validate(scores, pool=pool, max_maps=most, folds=folds, seed=seed)
            held_out.append(torch.stack([found.plcc[:, -1], found.srocc[:, -1]]))
    figures = []
    for scores in matrices.values():
        combined = torch.stack([*(s.combine(scores) for s in selections), scores.pool(pool=pool)])
        figures.append(torch.stack([plcc(combined, scores.targets), srocc(combined, scores.targets)]))
    both = torch.stack(figures, -1).double().cpu()
    own = torch.stack(held_out, 1) if held_out else torch.zeros(2, len(matrices), 0, dtype=torch.float64, device="cpu")
    first = next(iter(matrices.values()))
    return CrossDataset(
        datasets=tuple(matrices),
        selected=tuple(s.maps for s in selections),
        plcc=both[0],
        srocc=both[1],
        held_out_plcc=own[0],
        held_out_srocc=own[1],
        shared=_shared([m.groups for m in matrices.values()]),
        options={
            "pool": pool,
            "max_maps": max_maps,
            "folds": folds,
            "seed": seed,
            "maps": len(first.maps),
            "computation": _computation(first),
            "images": {name: len(scores) for name, scores in matrices.items()},
        },
    )


def _check_same(matrices: Mapping[str, ScoreMatrix]) -> None:
    if len(matrices) < 2:
        raise InputError(f"a cross-data-set study needs the score matrices of two data sets, got {len(matrices)}")
    name, first = next(iter(matrices.items()))
    for other, scores in matrices.items():
        if scores.maps != first.maps:
            raise InputError(f"{other} has other maps ({scores.maps!r}) than {name} ({first.maps!r})")
        differing = [
            f"{option}: {ours!r} of {name}, {theirs!r} of {other}"
            for option, ours, theirs in differing_computation(first.options, scores.options)
        ]
        if differing:
            raise InputError(
                f"{other} goes with other map scores than {name} ({'; '.join(differing)}); compute both score "
                "matrices with the same network and measure"
            )


def _computation(scores: ScoreMatrix) -> dict[str, dict[str, Any]]:
    """What map scores depend on beside the images, by source (`""` for a single one)."""
    sources = sources_of(scores.options).items()
    return {source: {k: options[k] for k in COMPUTATION if k in options} for source, options in sources}


def _shared(groups: Sequence[Sequence[str]]) -> Tensor:
    """(D, D) how many references of two data sets bear the same name: "I01.png" is "i01"."""
    names = [{PurePath(group).stem.casefold() for group in of_one} for of_one in groups]
    return torch.tensor([[len(a & b) for b in names] for a in names], device="cpu")
