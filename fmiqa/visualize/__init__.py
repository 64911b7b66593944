"""See what feature maps look at: prediction difference, activation maximisation, dissection, exemplars, plots."""

from fmiqa.visualize.activation_maximization import MaximalImages, maximize_activation, mean_activations
from fmiqa.visualize.patches import ConditionalSampler, MarginalSampler
from fmiqa.visualize.difference import PAPER, PredictionDifference, prediction_difference

__all__ = [
    "ConditionalSampler",
    "MarginalSampler",
    "PAPER",
    "PredictionDifference",
    "prediction_difference",
    "MaximalImages",
    "maximize_activation",
    "mean_activations",
]
