"""Choosing feature maps, and finding out what a choice is worth."""

from fmiqa.selection.criteria import Criterion
from fmiqa.selection.forward import Direction, forward_select
from fmiqa.selection.resampling import PermutationNull, StabilitySelection, permutation_null, stability_selection
from fmiqa.selection.result import Selection, Step
from fmiqa.selection.splits import Split, grouped_folds, grouped_subsamples
from fmiqa.selection.stability import Stability, stability
from fmiqa.selection.validation import HeldOut, Validation, cross_validate, held_out
from fmiqa.selection.weighted import weighted_select

__all__ = [
    "Criterion",
    "Direction",
    "HeldOut",
    "PermutationNull",
    "Selection",
    "Split",
    "Stability",
    "StabilitySelection",
    "Step",
    "Validation",
    "cross_validate",
    "forward_select",
    "grouped_folds",
    "grouped_subsamples",
    "held_out",
    "permutation_null",
    "stability",
    "stability_selection",
    "weighted_select",
]
