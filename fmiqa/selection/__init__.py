"""Choosing feature maps, and finding out what a choice is worth."""

from fmiqa.selection.criteria import Criterion
from fmiqa.selection.forward import Direction, forward_select
from fmiqa.selection.lasso import weighted_select
from fmiqa.selection.null import PermutationNull, StabilitySelection, permutation_null, stability_selection
from fmiqa.selection.observers import ObserverStudy, observer_study
from fmiqa.selection.result import Selection, Step
from fmiqa.selection.searches import backward_eliminate, beam_select, floating_select
from fmiqa.selection.splits import Split, grouped_folds, grouped_subsamples
from fmiqa.selection.stability import Stability, stability
from fmiqa.selection.validation import HeldOut, Validation, cross_validate, held_out

__all__ = [
    "Criterion",
    "Direction",
    "HeldOut",
    "ObserverStudy",
    "PermutationNull",
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
