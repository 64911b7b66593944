"""fmiqa: image quality from the few CNN feature maps that matter."""

from fmiqa import datasets, measures
from fmiqa.comparing import compare
from fmiqa.correlation import LogisticFit, fit_logistic, krocc, plcc, rmse, srocc
from fmiqa.errors import DatasetError, FileFormatError, FmiqaError, InputError, ResumeError, WeightsError
from fmiqa.evaluation import evaluate
from fmiqa.features import FeatureExtractor
from fmiqa.maps import FeatureMap, MapIndex
from fmiqa.measures import SSIM
from fmiqa.metrics import AllFeatureIQM, SelectedFeatureIQM
from fmiqa.pooling import pool_scores
from fmiqa.scores import ScoreMatrix
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
from fmiqa.viewing import Viewing, pixels_per_degree

__version__ = "0.1.0"

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
]
