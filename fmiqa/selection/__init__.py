"""Selecting feature maps, and finding out what a selection is worth."""

from collections.abc import Callable

from fmiqa.selection.criteria import Criterion
from fmiqa.selection.forward import forward_select
from fmiqa.selection.lasso import weighted_select
from fmiqa.selection.null import PermutationNull, permutation_null
from fmiqa.selection.observers import ObserverStudy, observer_study
from fmiqa.selection.options import Direction, SearchOptions
from fmiqa.selection.repeat import Search
from fmiqa.selection.result import Selection, Step
from fmiqa.selection.searches import backward_eliminate, beam_select, floating_select
from fmiqa.selection.splits import Split, grouped_folds, grouped_subsamples
from fmiqa.selection.stability import Stability, StabilitySelection, stability, stability_selection
from fmiqa.selection.validation import Validation, cross_validate, held_out

__all__ = [
    "SEARCHES",
    "Criterion",
    "Direction",
    "ObserverStudy",
    "PermutationNull",
    "Search",
    "SearchOptions",
    "Selection",
    "Split",
    "Stability",
    "StabilitySelection",
    "Step",
    "Validation",
    "backward_eliminate",
    "beam_select",
    "cross_validate",
    "floating_select",
    "forward_select",
    "grouped_folds",
    "grouped_subsamples",
    "held_out",
    "observer_study",
    "permutation_null",
    "stability",
    "stability_selection",
    "weighted_select",
]

SEARCHES: dict[str, Callable[..., Selection]] = {
    "forward": forward_select,
    "floating": floating_select,
    "backward": backward_eliminate,
    "beam": beam_select,
    "weighted": weighted_select,
}
"""The searches by the names that results record and the command line takes."""
