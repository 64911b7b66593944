"""What metrics are worth: agreement with observers, beside each other and on other data sets."""

from fmiqa.evaluation.compare import compare
from fmiqa.evaluation.comparison import Comparison
from fmiqa.evaluation.evaluate import evaluate
from fmiqa.evaluation.transfer import CrossDataset, cross_dataset

__all__ = ["Comparison", "CrossDataset", "compare", "cross_dataset", "evaluate"]
