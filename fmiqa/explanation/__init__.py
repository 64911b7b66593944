"""Why a test image got its score: which maps take how much of the loss, what they detect, and where they lose it."""

from fmiqa.explanation.explain import ExplainedMap, Explanation, explain
from fmiqa.explanation.stimuli import Stimulus
from fmiqa.explanation.words import Detected, detected, detected_by

__all__ = ["Detected", "ExplainedMap", "Explanation", "Stimulus", "detected", "detected_by", "explain"]
