"""Choosing feature maps, and finding out what a choice is worth."""

import importlib
from typing import TYPE_CHECKING, Any

from fmiqa.selection.criteria import Criterion
from fmiqa.selection.forward import Direction, forward_select
from fmiqa.selection.result import Selection, Step
from fmiqa.selection.splits import Split, grouped_folds, grouped_subsamples

if TYPE_CHECKING:
    from fmiqa.selection.beyond import backward_eliminate, beam_select, floating_select
    from fmiqa.selection.observers import ObserverStudy, observer_study
    from fmiqa.selection.resampling import PermutationNull, StabilitySelection, permutation_null, stability_selection
    from fmiqa.selection.stability import Stability, stability
    from fmiqa.selection.validation import HeldOut, Validation, cross_validate, held_out
    from fmiqa.selection.weighted import weighted_select

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

# Imported when first used: `import fmiqa` stays light.
_LATER = {
    "HeldOut": "fmiqa.selection.validation",
    "ObserverStudy": "fmiqa.selection.observers",
    "PermutationNull": "fmiqa.selection.resampling",
    "Stability": "fmiqa.selection.stability",
    "StabilitySelection": "fmiqa.selection.resampling",
    "Validation": "fmiqa.selection.validation",
    "backward_eliminate": "fmiqa.selection.beyond",
    "beam_select": "fmiqa.selection.beyond",
    "cross_validate": "fmiqa.selection.validation",
    "floating_select": "fmiqa.selection.beyond",
    "held_out": "fmiqa.selection.validation",
    "observer_study": "fmiqa.selection.observers",
    "permutation_null": "fmiqa.selection.resampling",
    "stability": "fmiqa.selection.stability",
    "stability_selection": "fmiqa.selection.resampling",
    "weighted_select": "fmiqa.selection.weighted",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LATER[name]), name)
