"""See what feature maps look at: prediction difference, activation maximisation, dissection, exemplars, plots."""

from fmiqa.visualize.activation_maximization import MaximalImages, maximize_activation, mean_activations
from fmiqa.visualize.difference import PAPER, PredictionDifference, prediction_difference
from fmiqa.visualize.drawing import outlined, overlay_loss, overlay_relevance, picture_grid
from fmiqa.visualize.exemplars import Exemplar, as_seen, exemplars, local_quality, reference_images
from fmiqa.visualize.patches import ConditionalSampler, MarginalSampler

__all__ = [
    "ConditionalSampler",
    "MarginalSampler",
    "PAPER",
    "PredictionDifference",
    "prediction_difference",
    "MaximalImages",
    "maximize_activation",
    "mean_activations",
    "Exemplar",
    "as_seen",
    "exemplars",
    "local_quality",
    "reference_images",
    "overlay_relevance",
    "overlay_loss",
    "outlined",
    "picture_grid",
]
