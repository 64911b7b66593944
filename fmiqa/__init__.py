"""fmiqa: image quality from the few CNN feature maps that matter.

Functions take tensors and return tensors on the same device. Arrays and lists raise an `InputError`, which says how to
convert them.
"""

import importlib
from typing import TYPE_CHECKING, Any

from fmiqa import datasets, measures
from fmiqa.errors import DatasetError, FileFormatError, FmiqaError, InputError, ResumeError, WeightsError, WorkerError
from fmiqa.features import FeatureExtractor
from fmiqa.maps import FeatureMap, MapIndex
from fmiqa.measures import SSIM
from fmiqa.pooling import pool_scores
from fmiqa.scores import ScoreMatrix
from fmiqa.viewing import Viewing, pixels_per_degree

__version__ = "0.1.0"

if TYPE_CHECKING:
    from fmiqa import presets, visualize
    from fmiqa.comparing import compare
    from fmiqa.correlation import LogisticFit, fit_logistic, krocc, plcc, rmse, srocc
    from fmiqa.evaluation import evaluate
    from fmiqa.metrics import AllFeatureIQM, SelectedFeatureIQM
    from fmiqa.report import write_report
    from fmiqa.reproduction import CrossDataset, Reproduction, cross_dataset, reproduce
    from fmiqa.scoring import score_matrix
    from fmiqa.selection import (
        HeldOut,
        ObserverStudy,
        PermutationNull,
        Selection,
        StabilitySelection,
        Step,
        Validation,
        backward_eliminate,
        beam_select,
        cross_validate,
        floating_select,
        forward_select,
        grouped_folds,
        held_out,
        observer_study,
        permutation_null,
        stability_selection,
        weighted_select,
    )

__all__ = [
    "datasets",
    "measures",
    "FeatureExtractor",
    "FeatureMap",
    "MapIndex",
    "SSIM",
    "ScoreMatrix",
    "score_matrix",
    "pool_scores",
    "LogisticFit",
    "fit_logistic",
    "plcc",
    "srocc",
    "krocc",
    "rmse",
    "Selection",
    "Step",
    "forward_select",
    "weighted_select",
    "floating_select",
    "backward_eliminate",
    "beam_select",
    "Validation",
    "cross_validate",
    "HeldOut",
    "held_out",
    "grouped_folds",
    "PermutationNull",
    "permutation_null",
    "StabilitySelection",
    "stability_selection",
    "ObserverStudy",
    "observer_study",
    "compare",
    "evaluate",
    "presets",
    "visualize",
    "write_report",
    "Reproduction",
    "reproduce",
    "CrossDataset",
    "cross_dataset",
    "Viewing",
    "pixels_per_degree",
    "SelectedFeatureIQM",
    "AllFeatureIQM",
    "FmiqaError",
    "InputError",
    "WeightsError",
    "DatasetError",
    "FileFormatError",
    "ResumeError",
    "WorkerError",
]

# Imported when first used: `import fmiqa` stays light.
_LATER = {
    "AllFeatureIQM": "fmiqa.metrics",
    "SelectedFeatureIQM": "fmiqa.metrics",
    "score_matrix": "fmiqa.scoring",
    "LogisticFit": "fmiqa.correlation",
    "fit_logistic": "fmiqa.correlation",
    "krocc": "fmiqa.correlation",
    "plcc": "fmiqa.correlation",
    "rmse": "fmiqa.correlation",
    "srocc": "fmiqa.correlation",
    "Selection": "fmiqa.selection",
    "Step": "fmiqa.selection",
    "forward_select": "fmiqa.selection",
    "grouped_folds": "fmiqa.selection",
    "HeldOut": "fmiqa.selection",
    "ObserverStudy": "fmiqa.selection",
    "PermutationNull": "fmiqa.selection",
    "StabilitySelection": "fmiqa.selection",
    "Validation": "fmiqa.selection",
    "CrossDataset": "fmiqa.reproduction",
    "Reproduction": "fmiqa.reproduction",
    "backward_eliminate": "fmiqa.selection",
    "beam_select": "fmiqa.selection",
    "compare": "fmiqa.comparing",
    "cross_dataset": "fmiqa.reproduction",
    "cross_validate": "fmiqa.selection",
    "evaluate": "fmiqa.evaluation",
    "floating_select": "fmiqa.selection",
    "held_out": "fmiqa.selection",
    "observer_study": "fmiqa.selection",
    "permutation_null": "fmiqa.selection",
    "reproduce": "fmiqa.reproduction",
    "stability_selection": "fmiqa.selection",
    "weighted_select": "fmiqa.selection",
    "write_report": "fmiqa.report",
}


def __getattr__(name: str) -> Any:
    if name in ("presets", "visualize"):
        return importlib.import_module(f"fmiqa.{name}")
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LATER[name]), name)
