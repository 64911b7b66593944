"""Maps selected on one data set, judged on every other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, ClassVar, get_args

import torch
from torch import Tensor

from fmiqa._result import Result, Rows
from fmiqa.correlation import Coefficient, check_coefficient, plcc, srocc
from fmiqa.errors import InputError
from fmiqa.maps import MapIndex
from fmiqa.pooling import Pool
from fmiqa.scoring.matrix import COMPUTATION, ScoreMatrix, check_same_computation, sources_of
from fmiqa.selection import cross_validate, forward_select
from fmiqa.selection.splits import mean_and_error

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from typing_extensions import Self

__all__ = ["CrossDataset", "cross_dataset"]

_FIGURES = ("plcc", "srocc", "held_out_plcc", "held_out_srocc")
ALL_MAPS = "all maps"


@dataclass(frozen=True, eq=False, repr=False)
class CrossDataset(Result):
    """What the maps selected on each of D data sets are worth on every one of them.

    The diagonal is in sample, all else a transfer: maps and their number come from one data set, the images and
    observers from another; only the logistic is fitted to the images judged, as for any metric.

    Args:
        datasets: Their names.
        selected: (D) the maps selected on all images of each, in order.
        plcc: (D + 1, D) at `[a, b]` the non-linear PLCC of a's maps with the scores of b; the last row is that of
            all maps.
        srocc: (D + 1, D) the same by Spearman correlation.
        held_out_plcc: (D, F) what a selection on each data set is worth on its own references held out, by fold;
            (D, 0) if that was not asked for.
        held_out_srocc: (D, F) the same by Spearman correlation.
        shared: (D, D) how many references of two data sets bear the same name.
        options: How it was run.
    """

    datasets: tuple[str, ...]
    selected: tuple[MapIndex, ...]
    plcc: Tensor
    srocc: Tensor
    held_out_plcc: Tensor
    held_out_srocc: Tensor
    shared: Tensor
    options: dict[str, Any] = field(default_factory=dict)

    kind: ClassVar[str] = "fmiqa cross-data-set study 1"

    @property
    def notes(self) -> tuple[str, ...]:
        """How to read it."""
        notes = [
            "Rows: the data set that the maps were selected on; columns: the one that they are judged on, where the "
            "logistic of the PLCC is fitted. The diagonal is IN SAMPLE, and better than what new images would give."
        ]
        folds = self.held_out_plcc.shape[1]
        if folds:
            notes.append(
                f"Held out: selected again without the references judged on; mean ± standard error over {folds} folds "
                "of whole references."
            )
        for a, b in self.shared.triu(1).nonzero().tolist():
            notes.append(
                f"† {int(self.shared[a, b])} references of {self.datasets[a]} and {self.datasets[b]} bear the same "
                "names: if they are the same pictures, only distortions and observers are new to the maps."
            )
        return tuple(notes)

    def table_rows(self, figure: Coefficient = "plcc") -> Rows:
        """The matrix as rows of text, the header first.

        Args:
            figure: `"plcc"` or `"srocc"`.
        """
        matrix, held_out = self.figures(figure)
        rows: Rows = [("selected on", "maps", *(f"on {name}" for name in self.datasets))]
        for a, name in enumerate(self.datasets):
            cells = [f"{v:.4f}" + " †" * self.shares(a, b) for b, v in enumerate(matrix[a].tolist())]
            cells[a] += " in sample"
            if held_out.shape[1]:
                cells[a] += ", {:.4f} ± {:.4f} held out".format(*mean_and_error(held_out[a]))
            rows.append((name, str(len(self.selected[a])), *cells))
        every = [f"{v:.4f}" for v in matrix[-1].tolist()]
        return [*rows, (f"nothing: {ALL_MAPS}", str(self.options.get("maps", "all")), *every)]

    def plot(self, ax: Axes | None = None, *, figure: Coefficient = "plcc") -> Axes:
        """Draw the matrix as a heat map, see `plot_transfer`."""
        from fmiqa.evaluation.plots import plot_transfer

        return plot_transfer(self, figure=figure, ax=ax)

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

    @classmethod
    def from_dict(cls, content: dict[str, Any], tensors: dict[str, Tensor]) -> Self:
        """The study again."""
        return cls(
            datasets=tuple(content["datasets"]),
            selected=tuple(MapIndex(maps) for maps in content["selected"]),
            shared=torch.tensor(content["shared"], device="cpu"),
            options=content["options"],
            **{name: torch.tensor(content[name], dtype=torch.float64, device="cpu") for name in _FIGURES},
        )

    def tables(self) -> dict[str, Rows]:
        """The matrices of both coefficients."""
        return {figure.upper(): self.table_rows(figure) for figure in get_args(Coefficient)}

    def __repr__(self) -> str:
        return f"CrossDataset({', '.join(self.datasets)})"

    def shares(self, a: int, b: int) -> bool:
        """Whether references of two different data sets bear the same names."""
        return a != b and a < len(self.datasets) and bool(self.shared[a, b])

    def figures(self, figure: Coefficient) -> tuple[Tensor, Tensor]:
        """The matrix of a coefficient, and its held-out figures."""
        check_coefficient(figure)
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
        matrices: Name of a data set -> its score matrix, of the same network, measure and maps.
        pool: How map scores are combined.
        max_maps: The largest number of maps, see `SearchOptions`.
        folds: Number of folds of whole references, for held-out figures on each data set itself; None leaves them out.
        seed: Seed of the dealing of references to folds.
        progress: Show a progress bar for each search.

    Returns:
        The matrix of figures, which prints as tables and draws as a heat map.

    Raises:
        InputError: Fewer than two matrices; matrices of other maps, or computed otherwise, by name; as
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
        check_same_computation(first.options, scores.options, name=name, other_name=other)


def _computation(scores: ScoreMatrix) -> dict[str, dict[str, Any]]:
    """What map scores depend on beside the images, by source (`""` for a single one)."""
    sources = sources_of(scores.options).items()
    return {source: {k: options[k] for k in COMPUTATION if k in options} for source, options in sources}


def _shared(groups: Sequence[Sequence[str]]) -> Tensor:
    """(D, D) how many references of two data sets bear the same name: "I01.png" is "i01"."""
    names = [{PurePath(group).stem.casefold() for group in of_one} for of_one in groups]
    return torch.tensor([[len(a & b) for b in names] for a in names], device="cpu")
