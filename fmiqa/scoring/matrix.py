"""`ScoreMatrix`: the score of every image at every feature map, with what it was computed from."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from fmiqa._checks import check_tensor
from fmiqa._result import Saved
from fmiqa.errors import InputError
from fmiqa.maps import FeatureMap, MapIndex
from fmiqa.pooling import Pool, pool_scores

if TYPE_CHECKING:
    from typing_extensions import Self

    from fmiqa.scoring.store import ScoreStore

__all__ = ["COMPUTATION", "LISTS", "ScoreMatrix", "check_same_computation", "positions_among", "sources_of"]

COMPUTATION = ("network", "weights_sha256", "stage", "viewing", "precision", "normalization", "measure")
"""The options that map scores depend on, beside the images."""

_OPTIONAL = ("distortions", "datasets", "digests")  # lists with an entry for each image that a matrix may lack
LISTS = ("groups", "names", *_OPTIONAL)
"""The parts of a score matrix that are lists with an entry for each image."""


@dataclass(frozen=True, eq=False)
class ScoreMatrix(Saved):
    """Scores of N images at M feature maps.

    Args:
        values: (N, M) float32, row i for image i, column m for `maps[m]`.
        maps: The M feature maps.
        targets: (N,) float64, subjective scores, higher = better.
        groups: The reference id of each image.
        names: The name of each image.
        distortions: The distortion type of each image, where the data set has one.
        datasets: The data set of each image, where several are stacked.
        digests: What tells each image and score from others of the same name, where it is known.
        options: What the values were computed with: data set, network, weights, stage, measure.

    Raises:
        InputError: Values or targets that are not tensors, parts of different length.

    Example:
        >>> scores = ScoreMatrix(torch.rand(4, 2), MapIndex(["conv1:0", "conv1:1"]), torch.arange(4.0),
        ...                      ["a", "a", "b", "b"], ["a1", "a2", "b1", "b2"])
        >>> scores.columns(["conv1:1"]).values.shape, scores.rows([0, 3]).groups
        (torch.Size([4, 1]), ['a', 'b'])
    """

    values: Tensor
    maps: MapIndex
    targets: Tensor
    groups: list[str]
    names: list[str]
    distortions: list[str] | None = None
    options: dict[str, Any] = field(default_factory=dict)
    datasets: list[str] | None = None
    digests: list[str] | None = None

    kind: ClassVar[str] = "fmiqa score matrix 1"
    binary: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for part, shape in (("values", "(N, M)"), ("targets", "(N,)")):
            check_tensor(getattr(self, part), f"{part} {shape}")
        if self.targets.ndim != 1:
            raise InputError(f"targets must have shape (N,), got {tuple(self.targets.shape)}")
        if not isinstance(self.maps, MapIndex):
            raise InputError(f"maps must be a MapIndex, got {type(self.maps).__name__}; write MapIndex([...])")
        lists = {part: getattr(self, part) for part in LISTS}
        for part, given in lists.items():
            if not isinstance(given, list | tuple) and not (part in _OPTIONAL and given is None):
                raise InputError(f"{part} must be a list with an entry for each image, got {type(given).__name__}")
        if not isinstance(self.options, Mapping):
            raise InputError(f"options must be a dict, got {type(self.options).__name__}")
        n = len(self.names)
        sizes = {
            "targets": len(self.targets),
            **{part: len(given) for part, given in lists.items() if given is not None},
        }
        if self.values.shape != (n, len(self.maps)) or any(size != n for size in sizes.values()):
            counted = ", ".join(f"{size} {part}" for part, size in sizes.items())
            raise InputError(
                f"a score matrix has a row an image and a column a map: values {tuple(self.values.shape)}, "
                f"{len(self.maps)} maps, {counted}"
            )

    def __len__(self) -> int:
        return len(self.names)

    def rows(self, index: Sequence[int] | Tensor) -> ScoreMatrix:
        """Some of the images, in the order given (positions, or a boolean mask).

        Raises:
            InputError: Positions that are not there, or a mask of another length.
        """
        chosen = positions_among(len(self), index)
        optional: dict[str, Any] = {part: getattr(self, part) for part in _OPTIONAL}
        optional = {part: own and [own[i] for i in chosen] for part, own in optional.items()}
        return replace(
            self,
            values=self.values[chosen],
            targets=self.targets[chosen],
            groups=[self.groups[i] for i in chosen],
            names=[self.names[i] for i in chosen],
            **optional,
        )

    def to(self, device: torch.device | str) -> ScoreMatrix:
        """The scores on a device, where searches and validations then compute.

        Example:
            >>> scores = ScoreMatrix(torch.rand(2, 1), MapIndex(["a:0"]), torch.arange(2.0), ["r", "r"], ["r1", "r2"])
            >>> scores.to("cuda" if torch.cuda.is_available() else "cpu").maps
            MapIndex(['a:0'])
        """
        return replace(self, values=self.values.to(device), targets=self.targets.to(device))

    def columns(self, maps: Iterable[FeatureMap | str]) -> ScoreMatrix:
        """Some of the maps, in the order given."""
        index = MapIndex(maps)
        return replace(self, values=self.values[:, self.maps.positions(index)], maps=index)

    @classmethod
    def stack(cls, matrices: Sequence[ScoreMatrix] | Mapping[str, ScoreMatrix]) -> ScoreMatrix:
        """Join matrices of different images at the same maps, one below the other, with the options of the first.

        Args:
            matrices: Parts of one data set, or the name of each data set -> its matrix. The result then records the
                data set of each image, and searches fit a logistic of its own to each (`SearchOptions.across`).

        Raises:
            InputError: There are no matrices, or other things than matrices; their maps differ; a name is no text; or
                data sets were scored in different ways.

        Example:
            >>> one = ScoreMatrix(torch.rand(2, 1), MapIndex(["a:0"]), torch.arange(2.0), ["r", "r"], ["r1", "r2"])
            >>> ScoreMatrix.stack({"first": one, "second": one.rows([0])}).datasets
            ['first', 'first', 'second']
        """
        named = matrices if isinstance(matrices, Mapping) else None
        parts = list(matrices.values() if isinstance(matrices, Mapping) else matrices)
        for m in parts:
            if not isinstance(m, ScoreMatrix):
                raise InputError(f"several data sets are given as ScoreMatrix objects, got {type(m).__name__}")
        for name in named or ():
            if not isinstance(name, str):
                raise InputError(f"the name of a data set is a text, got {name!r}")
        if not parts or any(m.maps != parts[0].maps for m in parts):
            raise InputError(f"score matrices of the same maps are needed, got {parts}")
        lists: dict[str, Any] = {}
        for part in _OPTIONAL:
            own = [getattr(m, part) for m in parts]
            lists[part] = None if any(v is None for v in own) else [value for values in own for value in values]
        options = parts[0].options
        if named is not None:
            first = next(iter(named))
            for name, matrix in named.items():
                if matrix.datasets is not None:
                    raise InputError(f"{name!r} is a stack of data sets already; stack them all at once")
                check_same_computation(options, matrix.options, name=first, other_name=name)
            lists["datasets"] = [name for name, m in named.items() for _ in m.names]
            options = {**options, "dataset": " + ".join(named), "datasets": {n: len(m) for n, m in named.items()}}
        return replace(
            parts[0],
            values=torch.cat([m.values for m in parts]),
            targets=torch.cat([m.targets for m in parts]),
            groups=[group for m in parts for group in m.groups],
            names=[name for m in parts for name in m.names],
            options=options,
            **lists,
        )

    @classmethod
    def concat(cls, matrices: Mapping[str, ScoreMatrix]) -> ScoreMatrix:
        """Join matrices of the same images as candidates side by side: several networks, scales, stages, measures.

        Args:
            matrices: Source name -> matrix; a map's name becomes `"source/layer:channel"`.

        Raises:
            InputError: Matrices of other images or scores, of maps that have a source already, or none; a
                source name that is empty or holds `/` or `:`.
        """
        if not isinstance(matrices, Mapping) or not all(isinstance(m, ScoreMatrix) for m in matrices.values()):
            raise InputError("expected a mapping from source names to ScoreMatrix objects, as in {'half': scores}")
        if not matrices:
            raise InputError("no score matrices to join")
        first = next(iter(matrices.values()))
        maps: list[FeatureMap] = []
        for source, matrix in matrices.items():
            if not isinstance(source, str) or not source or set(source) & set("/:"):
                raise InputError(f"a source name is not empty and holds neither '/' nor ':', got {source!r}")
            if matrix.names != first.names or not torch.equal(matrix.targets, first.targets):
                raise InputError(f"matrix {source!r} has other images or scores than {next(iter(matrices))!r}")
            if any(m.source for m in matrix.maps):
                raise InputError(f"matrix {source!r} is a joined one already; join its parts at once")
            maps += [FeatureMap(m.layer, m.channel, source) for m in matrix.maps]
        options = {"dataset": first.options.get("dataset"), "sources": {k: m.options for k, m in matrices.items()}}
        values = torch.cat([m.values for m in matrices.values()], 1)
        return replace(first, values=values, maps=MapIndex(maps), options=options)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> ScoreMatrix | ScoreStore:
        """Open what `save` or `to_store` wrote: a file as a matrix in memory, a folder as a store on disk.

        Raises:
            FileFormatError: It is missing, damaged or unfinished, or holds something else.
        """
        from fmiqa.scoring.store import ScoreStore

        return ScoreStore.open(path) if os.path.isdir(path) else cls.load(path)

    def to_store(self, path: str | os.PathLike[str]) -> ScoreStore:
        """Write the matrix as a store, a folder of blocks of which parts can be read; see `ScoreStore`.

        Raises:
            InputError: The folder holds something else already, or cannot be written to.
        """
        from fmiqa.scoring.store_writer import write_store

        return write_store(path, [self])

    def pool(self, maps: Iterable[FeatureMap | str] | None = None, *, pool: Pool = "mean") -> Tensor:
        """(N,) the images' scores at a set of maps combined; at all maps by default (DeepSSIM).

        Raises:
            InputError: Unknown maps or pooling.
        """
        chosen = self if maps is None else self.columns(maps)
        return pool_scores(chosen.values.double(), chosen.maps, pool=pool)

    def to_dict(self) -> dict[str, Any]:
        """Everything but values and targets, as plain values for JSON."""
        return {
            "maps": [str(m) for m in self.maps],
            "groups": self.groups,
            "names": self.names,
            "distortions": self.distortions,
            "options": self.options,
            "datasets": self.datasets,
            **({} if self.digests is None else {"digests": self.digests}),
        }

    def tensors(self) -> dict[str, Tensor]:
        """Values and targets."""
        return {"values": self.values, "targets": self.targets}

    @classmethod
    def from_dict(cls, content: dict[str, Any], tensors: dict[str, Tensor]) -> Self:
        """The score matrix again."""
        return cls(tensors["values"], MapIndex(content.pop("maps")), tensors["targets"], **content)

    def __repr__(self) -> str:
        source = " on ".join(str(self.options[k]) for k in ("network", "dataset") if k in self.options)
        return (
            f"ScoreMatrix({len(self)} images of {len(set(self.groups))} references x {len(self.maps)} maps"
            f"{', ' + source if source else ''})"
        )


def positions_among(images: int, index: Sequence[int] | Tensor) -> list[int]:
    """The positions from 0 that an index of images means: positions, also negative ones, or a boolean mask.

    Raises:
        InputError: Positions that are not there, or a mask of another length.
    """
    try:
        given = torch.as_tensor(index, device="cpu")
        chosen: list[int] = torch.arange(images, device="cpu")[given if given.numel() else given.long()].tolist()
        if given.ndim != 1:
            raise IndexError(f"one dimension is expected, got {given.ndim}")
    except (IndexError, TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"rows are positions among {images} images or a boolean mask of them: {error}") from error
    return chosen


def sources_of(options: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The options of each score matrix behind a joined one or a result, by source name (`""` for a single one)."""
    return options.get("sources") or {"": dict(options)}


def check_same_computation(one: Mapping[str, Any], other: Mapping[str, Any], *, name: str, other_name: str) -> None:
    """Check that two score matrices or results compare feature maps alike, as far as both say how.

    Args:
        one: The options of a score matrix or the source of a result, also of joined ones.
        other: Those of another.
        name: What errors call the first.
        other_name: What errors call the other.

    Raises:
        InputError: They were computed with another network, other weights or another measure, by source.
    """
    ours, theirs = sources_of(one), sources_of(other)
    differing = [
        f"{f'{source} {key}'.strip()}: {options[key]!r} in {name}, {theirs[source][key]!r} in {other_name}"
        for source, options in ours.items()
        for key in COMPUTATION
        if key in options and key in theirs.get(source, {}) and options[key] != theirs[source][key]
    ]
    if differing:
        raise InputError(
            f"{name} and {other_name} hold map scores that were computed differently ({'; '.join(differing)}); "
            "compute both with the same network and measure"
        )
