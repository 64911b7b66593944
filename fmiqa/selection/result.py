"""`Selection`: which maps were selected, in which order, at what gain, from what."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from fmiqa._result import Result, Rows
from fmiqa.correlation import LogisticFit
from fmiqa.maps import FeatureMap, MapIndex
from fmiqa.pooling import Pool, pool_scores
from fmiqa.scoring.matrix import ScoreMatrix, sources_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from typing_extensions import Self

__all__ = ["Selection", "Step"]

_NAMED = 8  # maps that repr() names


@dataclass(frozen=True)
class Step:
    """One step of a selection.

    Args:
        map: The map that joined, or left.
        value: The criterion after the step.
        gain: How much the step raised the criterion (the first map: from 0).
        candidates: How many maps were tried, under a budget those that could be afforded.
        runner_up: The best of the other candidates, if there was one.
        runner_up_value: The criterion with that one instead.
        removed: Whether the map left the set.
    """

    map: FeatureMap
    value: float
    gain: float
    candidates: int
    runner_up: FeatureMap | None = None
    runner_up_value: float = math.nan
    removed: bool = False

    def label(self, map: FeatureMap) -> str:
        """The name of the map or the runner-up in a table: with a minus where the step is a removal."""
        return f"-{map}" if self.removed else str(map)


@dataclass(frozen=True, eq=False, repr=False)
class Selection(Result):
    """The outcome of a selection. Its figures are in sample.

    Args:
        maps: The selected maps in the order in which they joined.
        steps: The path, removals with it; maps given as a start have no step.
        value: The criterion of the whole set.
        options: How the search was run.
        source: The options of the score matrix it was run on (data set, network, weights, measure).
        fit: The logistic that takes the set's combined score to the scale of the subjective scores.
        weights: (M,) of the maps in the combined score; None: all the same.
    """

    maps: MapIndex
    steps: tuple[Step, ...]
    value: float
    options: dict[str, Any] = field(default_factory=dict)
    source: dict[str, Any] = field(default_factory=dict)
    fit: LogisticFit | None = None
    weights: Tensor | None = None

    kind: ClassVar[str] = "fmiqa selection 1"

    @property
    def curve(self) -> list[float]:
        """The criterion after each step."""
        return [step.value for step in self.steps]

    @property
    def pool(self) -> Pool:
        """How the maps' scores are combined."""
        return self.options.get("pool", "mean")  # type: ignore[no-any-return]

    @property
    def power(self) -> float:
        """What each map's score is raised to before it is combined."""
        return float(self.options.get("power", 1.0))

    @property
    def sources(self) -> dict[str, dict[str, Any]]:
        """The options of each score matrix that it was made from, by source name (`""` for a single one)."""
        return sources_of(self.source)

    def combine(self, scores: ScoreMatrix) -> Tensor:
        """(N,) the set's combined score of the images of a matrix.

        Raises:
            InputError: The matrix lacks one of the maps.
        """
        chosen = scores.columns(self.maps)
        return pool_scores(chosen.values.double(), self.maps, pool=self.pool, weights=self.weights, power=self.power)

    def __len__(self) -> int:
        return len(self.maps)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "maps": [str(m) for m in self.maps],
            "value": self.value,
            "steps": [_step_to_dict(step) for step in self.steps],
            "options": self.options,
            "source": self.source,
            "fit": None if self.fit is None else self.fit.to_dict(),
            "weights": None if self.weights is None else self.weights.tolist(),
        }

    @classmethod
    def from_dict(cls, content: dict[str, Any], tensors: dict[str, Tensor]) -> Self:
        """The selection again."""
        weights = content["weights"]
        return cls(
            maps=MapIndex(content["maps"]),
            steps=tuple(_step(**step) for step in content["steps"]),
            value=content["value"],
            options=content["options"],
            source=content["source"],
            fit=None if content["fit"] is None else LogisticFit.from_dict(content["fit"]),
            weights=None if weights is None else torch.tensor(weights, dtype=torch.float64, device="cpu"),
        )

    def table(self) -> Rows:
        """The path as rows of text, or the weights where there is no path; the header first."""
        if self.weights is not None:
            share = (self.weights / self.weights.sum()).tolist()
            return [("map", "weight"), *((str(m), f"{s:.4f}") for m, s in zip(self.maps, share, strict=True))]
        rows: Rows = [("step", "map", self.criterion, "gain", "runner-up", "its value")]
        for number, s in enumerate(self.steps, 1):
            second = ("", "") if s.runner_up is None else (s.label(s.runner_up), f"{s.runner_up_value:.4f}")
            rows.append((str(number), s.label(s.map), f"{s.value:.4f}", f"{s.gain:+.4f}", *second))
        return rows

    def tables(self) -> dict[str, Rows]:
        """The table by a caption that sums up the selection."""
        return {self._summary(): self.table()}

    @property
    def notes(self) -> tuple[str, ...]:
        """How far a search beyond memory looked, where it ranked candidates on a sample."""
        sampled = self.options.get("sampled")
        if not sampled or not sampled["places"]:
            return ()
        margins = [margin for margin in sampled["margins"] if margin is not None]
        others = f"; the others were {min(margins):.1f} or more standard deviations out of reach" if margins else ""
        return (
            f"candidates were ranked on a sample of {sampled['images']} images, and up to {max(sampled['retried'])} of "
            f"a step fitted again on all images: the winners were at most in place {max(sampled['places'])} by the "
            f"sample{others}",
        )

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the criterion against the number of maps, or the weights of a weighted selection.

        See `fmiqa.visualize.plot_curve` and `fmiqa.visualize.plot_weights`.

        Args:
            ax: Where to draw; a new figure by default.
        """
        from fmiqa.selection.plots import plot_curve, plot_weights

        return plot_curve(self, ax=ax) if self.weights is None else plot_weights(self, ax=ax)

    @property
    def criterion(self) -> str:
        """The criterion in words, such as `"PLCC (logistic5)"`."""
        name = str(self.options.get("criterion", "criterion")).upper()
        name = f"{name} ({self.options['fit']})" if self.options.get("fit") else name
        if self.options.get("prior") and self.options.get("search") != "weighted":
            return f"{name} with the blend (alpha {self.options['alpha']:g})"
        return name

    def _summary(self) -> str:
        return f"{len(self.maps)} maps, {self.criterion} {self.value:.4f} in sample"

    def __repr__(self) -> str:
        more = ", ..." if len(self.maps) > _NAMED else ""
        return f"Selection({self._summary()}: {', '.join(map(str, list(self.maps)[:_NAMED]))}{more})"


def _step_to_dict(step: Step) -> dict[str, Any]:
    return {
        "map": str(step.map),
        "value": step.value,
        "gain": step.gain,
        "candidates": step.candidates,
        "runner_up": None if step.runner_up is None else str(step.runner_up),
        "runner_up_value": None if math.isnan(step.runner_up_value) else step.runner_up_value,
        "removed": step.removed,
    }


def _step(map: str, runner_up: str | None, runner_up_value: float | None, **rest: Any) -> Step:
    return Step(
        FeatureMap.parse(map),
        runner_up=None if runner_up is None else FeatureMap.parse(runner_up),
        runner_up_value=math.nan if runner_up_value is None else runner_up_value,
        **rest,
    )
