"""What `fmiqa.compare` returns: agreements and differences that print as tables."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from fmiqa._result import Result, Rows
from fmiqa.correlation import Coefficient
from fmiqa.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor
    from typing_extensions import Self

__all__ = ["Agreement", "Comparison", "Difference", "Estimate", "PairTest"]


class Estimate(NamedTuple):
    """A figure and its confidence interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


class PairTest(NamedTuple):
    """A two-sided test of a difference.

    Args:
        statistic: T, z or F.
        p_value: The p-value of this pair by itself.
        corrected: The p-value corrected by Holm's method for all pairs that were compared.
    """

    statistic: float
    p_value: float
    corrected: float


@dataclass(frozen=True)
class Agreement:
    """How well one metric agrees with the subjective scores.

    Args:
        name: The metric.
        plcc: The PLCC with the percentile interval of the bootstrap, as for the following three.
        srocc: Signed: negative where the scores fall with quality.
        krocc: Signed as well.
        rmse: The RMSE in units of the targets.
        auc_different: Krasula's figures, see `pair_analysis`; None without `target_stds`.
        auc_better: Likewise.
        correct: Likewise.
    """

    name: str
    plcc: Estimate
    srocc: Estimate
    krocc: Estimate
    rmse: Estimate
    auc_different: float | None = None
    auc_better: float | None = None
    correct: float | None = None


@dataclass(frozen=True)
class Difference:
    """Two metrics compared; differences are `first` minus `second`.

    Args:
        first: One metric.
        second: The other.
        plcc: Difference with the paired bootstrap's t interval, as the following three.
        srocc: The same of SROCC.
        krocc: The same of KROCC.
        rmse: The same of RMSE: negative where `first` is the better.
        bootstrap: Paired bootstrap test of the PLCC difference; the one that decides.
        williams: Williams' t-test on images.
        meng: Meng's z-test on images.
        f: F-test of residual variances on images.
        zou: The PLCC difference with Zou's interval on images.
        real: Whether the PLCC difference counts as real, see `compare`.
    """

    first: str
    second: str
    plcc: Estimate
    srocc: Estimate
    krocc: Estimate
    rmse: Estimate
    bootstrap: PairTest
    williams: PairTest
    meng: PairTest
    f: PairTest
    zou: Estimate
    real: bool

    @property
    def verdict(self) -> str:
        """Which metric has the higher PLCC, if that is shown."""
        if not self.real:
            return "no difference shown"
        return f"better: {self.first if self.plcc.value > 0 else self.second}"


@dataclass(frozen=True, repr=False)
class Comparison(Result):
    """The outcome of `compare`; prints as a table, in notebooks too.

    Args:
        agreements: One entry a metric, in the order given.
        differences: One entry a pair compared.
        options: How it was computed.
        notes: How to read it.
    """

    agreements: tuple[Agreement, ...]
    differences: tuple[Difference, ...]
    options: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    kind: ClassVar[str] = "fmiqa comparison 1"

    def __getitem__(self, name: str) -> Agreement:
        for agreement in self.agreements:
            if agreement.name == name:
                return agreement
        raise InputError(f"no metric {name!r} here; there are {[a.name for a in self.agreements]}")

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: estimates as [value, low, high], tests as dictionaries, NaN as None."""

        def plain(value: Any) -> Any:
            if isinstance(value, PairTest):
                return {name: plain(part) for name, part in value._asdict().items()}
            if isinstance(value, Estimate):
                return [plain(part) for part in value]
            return None if value != value else value  # NaN is not JSON

        def entry(row: Agreement | Difference) -> dict[str, Any]:
            return {part.name: plain(getattr(row, part.name)) for part in fields(row)}

        return {
            "agreements": [entry(agreement) for agreement in self.agreements],
            "differences": [{**entry(d), "verdict": d.verdict} for d in self.differences],
            "options": dict(self.options),
            "notes": list(self.notes),
        }

    @classmethod
    def from_dict(cls, content: dict[str, Any], tensors: dict[str, Tensor]) -> Self:
        """The comparison again."""

        def figure(value: Any) -> Any:
            if isinstance(value, dict):
                return PairTest(**{name: figure(part) for name, part in value.items()})
            if isinstance(value, list):
                return Estimate(*map(figure, value))
            return math.nan if value is None else value

        def agreement(entry: dict[str, Any]) -> Agreement:
            optional = ("auc_different", "auc_better", "correct")
            figures: Any = {k: None if v is None and k in optional else figure(v) for k, v in entry.items()}
            return Agreement(**(figures | {"name": entry["name"]}))

        differences = [
            Difference(**{k: figure(v) for k, v in entry.items() if k != "verdict"}) for entry in content["differences"]
        ]
        return cls(
            tuple(map(agreement, content["agreements"])),
            tuple(differences),
            content["options"],
            tuple(content["notes"]),
        )

    def __repr__(self) -> str:
        return f"Comparison({', '.join(agreement.name for agreement in self.agreements)})"

    def plot(self, *, figure: Coefficient = "plcc") -> Figure:
        """Draw how well metrics agree and how they differ, with intervals, by `"plcc"` or `"srocc"`."""
        from fmiqa.evaluation.plots import plot_comparison

        return plot_comparison(self, figure=figure)

    def table(self) -> Rows:
        """The agreement of each metric with the subjective scores, the header first."""
        krasula = self.agreements[0].auc_different is not None
        more = ("AUC different", "AUC better", "C0") if krasula else ()
        rows: Rows = [("metric", "PLCC", "SROCC", "KROCC", "RMSE", *more)]
        for a in self.agreements:
            extra = [f"{v:.3f}" for v in (a.auc_different, a.auc_better, a.correct) if v is not None]
            rows.append((a.name, str(a.plcc), str(a.srocc), str(a.krocc), str(a.rmse), *extra))
        return rows

    def tables(self) -> dict[str, Rows]:
        """The agreements, and the differences where there are any."""
        if not self.differences:
            return {"": self.table()}
        p_values = ("p bootstrap", "p Williams", "p Meng", "p F")
        rows: Rows = [("difference", "verdict", "PLCC", "SROCC", *p_values, "Zou interval")]
        for d in self.differences:
            tests = (_p_text(t.corrected) for t in (d.bootstrap, d.williams, d.meng, d.f))
            zou = f"[{d.zou.low:.3f}, {d.zou.high:.3f}]"
            rows.append((f"{d.first} - {d.second}", d.verdict, str(d.plcc), str(d.srocc), *tests, zou))
        return {"": self.table(), "Differences": rows}


def _p_text(p: float) -> str:
    return "<0.001" if p < 0.001 else f"{p:.3f}"
