"""The options that all searches and all validations share."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Literal, TypedDict, TypeVar, get_args

from torch import Tensor

from fmiqa._checks import is_count, is_number
from fmiqa.correlation import Form
from fmiqa.errors import InputError
from fmiqa.features.cost import Costs
from fmiqa.maps import FeatureMap, MapIndex
from fmiqa.pooling import Pool, check_pool
from fmiqa.selection.criteria import Criterion, Objective
from fmiqa.selection.engine import Across
from fmiqa.selection.prior import Prior, check_prior, consensus

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Direction", "SearchKeywords", "SearchOptions", "flat_keywords"]

Direction = Literal["rising", "any"]
"""`rising`: only maps whose own score rises with quality may join; `any`: all maps may join."""

_Function = TypeVar("_Function", bound=Callable[..., Any])


class SearchKeywords(TypedDict, total=False):
    """The fields of `SearchOptions` as keywords of a search or a validation."""

    criterion: Criterion
    fit: Form | None
    monotone: bool
    pool: Pool
    direction: Direction
    max_maps: int | None
    tol: float
    start: Iterable[FeatureMap | str]
    exclude: Iterable[FeatureMap | str]
    prior: Prior | None
    alpha: float
    across: Across
    budget: float | None
    costs: Costs | None


@dataclass(frozen=True)
class SearchOptions:
    """What a search maximises, which maps may join the set, and when it stops.

    Every search over sets of maps and every validation takes these options, either as `options=SearchOptions(...)` or
    as keywords of the same names, which take precedence.

    Args:
        criterion: The criterion that is maximised: `"plcc"`, `"srocc"` or `"krocc"` of the combined score with the
            subjective scores.
        fit: The logistic that is fitted before the PLCC (non-linear PLCC); None stands for the plain PLCC.
        monotone: Whether that logistic must be monotone within the data range.
        pool: How the maps' scores are combined, see `fmiqa.pooling.Pool`.
        direction: `"rising"` admits only maps whose own score rises with quality (plain Pearson above 0), because a
            fitted correlation has no sign. `"any"` admits all maps.
        max_maps: The largest number of maps; None sets no limit.
        tol: The search stops when the best candidate raises the criterion by no more than this gain.
        start: Maps that are in the set from the beginning.
        exclude: Maps that may not join.
        prior: `"consensus"` lets the search fit a blend of the subjective scores and the mean of all maps, see
            `fmiqa.selection.prior`: the selected maps then hold up better on images that the search has not seen. None
            stands for the subjective scores alone, as in the paper.
        alpha: The share of the subjective scores in that blend. At 0 no subjective score is used: the search looks for
            the few maps that stand for all maps.
        across: How the criteria of several data sets are combined, `"mean"` or `"worst"`. Each data set has a logistic
            of its own.
        budget: The share of what all candidates cost that a set may cost, above 0 and at most 1: maps that would exceed
            it may not join. Layers are paid once: a second map of a layer, or of one that runs before it, is free.
            None sets no limit. Where several sets of layers are the largest that it pays for, up to 16, the search is
            run within each of them and the best is kept, which takes as many times as long; where they are more, it is
            run once, and a layer that is best at first can leave too little for others.
        costs: What maps cost; by default the multiplications that the networks of the score matrix take for an image
            of 384x512, `Costs.of_matrix(scores)`. With costs, a result also records the share that its set takes.

    Raises:
        InputError: An option has a value that it cannot have.

    Example:
        >>> options = SearchOptions(criterion="srocc", max_maps=10)
        >>> options.criterion, options.fit, options.max_maps
        ('srocc', 'logistic5', 10)
    """

    criterion: Criterion = field(default="plcc", metadata={"help": "the criterion that is maximised"})
    fit: Form | None = field(default="logistic5", metadata={"help": "the logistic that is fitted before the PLCC"})
    monotone: bool = field(default=False, metadata={"help": "require a monotone logistic"})
    pool: Pool = field(default="mean", metadata={"help": "how the maps' scores are combined"})
    direction: Direction = field(
        default="rising", metadata={"help": "admit only maps whose score rises with quality, or any map"}
    )
    max_maps: int | None = field(default=None, metadata={"help": "stop at this number of maps", "type": int})
    tol: float = field(default=0.0, metadata={"help": "stop at gains up to this", "type": float})
    start: Iterable[FeatureMap | str] = field(
        default=(), metadata={"help": "maps to begin with; backward search takes maps from these", "maps": True}
    )
    exclude: Iterable[FeatureMap | str] = field(default=(), metadata={"help": "maps that may not join", "maps": True})
    prior: Prior | None = field(
        default=None, metadata={"help": "fit a blend of the scores and the mean of all maps, or the scores alone"}
    )
    alpha: float = field(default=0.75, metadata={"help": "the share of the scores in that blend", "type": float})
    across: Across = field(default="mean", metadata={"help": "how the criteria of several data sets are combined"})
    budget: float | None = field(
        default=None,
        metadata={
            "help": "share of the multiplications of all candidates, above 0 and at most 1: maps that would exceed it "
            "may not join; layers are paid once",
            "type": float,
        },
    )
    costs: Costs | None = field(default=None, metadata={"help": "what maps cost", "only_python": True})

    def __post_init__(self) -> None:
        self.objective  # noqa: B018  checks the criterion
        if not isinstance(self.direction, str) or self.direction not in get_args(Direction):
            raise InputError(f"direction is one of {', '.join(get_args(Direction))}, got {self.direction!r}")
        if self.max_maps is not None and not is_count(self.max_maps):
            raise InputError(f"max_maps is a whole number from 1, or None, got {self.max_maps!r}")
        if not is_number(self.tol) or not self.tol >= 0:
            raise InputError(f"tol is a gain of at least 0, got {self.tol!r}")
        check_pool(self.pool)
        check_prior(self.prior, self.alpha)
        if not isinstance(self.across, str) or self.across not in get_args(Across):
            raise InputError(f"across is one of {', '.join(get_args(Across))}, got {self.across!r}")
        if self.budget is not None and not (is_number(self.budget) and 0 < self.budget <= 1):
            raise InputError(f"budget is a share of what all maps cost, above 0 and at most 1, got {self.budget!r}")
        if self.costs is not None and not isinstance(self.costs, Costs):
            raise InputError(f"costs are fmiqa.Costs, such as Costs.of_network(extractor), got {self.costs!r}")
        object.__setattr__(self, "start", MapIndex(self.start))
        object.__setattr__(self, "exclude", MapIndex(self.exclude))

    @classmethod
    def of(cls, options: SearchOptions | None, keywords: Mapping[str, Any]) -> Self:
        """The given options, or the defaults, with the keywords in place of the fields of the same names."""
        if options is not None and not isinstance(options, SearchOptions):
            raise InputError(f"options is a fmiqa.SearchOptions, got {type(options).__name__}")
        return replace(options or cls(), **keywords)  # type: ignore[return-value]

    @property
    def objective(self) -> Objective:
        """The criterion with the options that belong to it."""
        return Objective(self.criterion, self.fit, self.monotone)

    def prior_of(self, values: Tensor) -> Tensor | None:
        """(N,) the prior of map scores (N, M), or None."""
        return None if self.prior is None else consensus(values)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON. A criterion that fits nothing records no fit."""
        plain = asdict(replace(self, start=(), exclude=(), costs=None))
        plain["costs"] = None if self.costs is None else self.costs.to_dict()
        plain["fit"] = self.fit if self.criterion == "plcc" else None
        return {**plain, "start": [str(m) for m in self.start], "exclude": [str(m) for m in self.exclude]}


def flat_keywords(function: _Function) -> _Function:
    """Let `help()`, notebooks and the command line see the fields of `SearchOptions` among a function's keywords."""
    signature = inspect.signature(function)
    own = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    flat = [
        inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=f.default, annotation=f.type)
        for f in fields(SearchOptions)
    ]
    function.__signature__ = signature.replace(parameters=[*own, *flat])  # type: ignore[attr-defined]
    return function
