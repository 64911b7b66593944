"""See what feature maps look at: prediction difference, activation maximisation, dissection, exemplars, plots."""

from fmiqa.selection.plots import plot_curve, plot_frequency, plot_weights
from fmiqa.visualize.activation_maximization import MaximalImages, maximize_activation
from fmiqa.visualize.cards import Cards, MapCard, map_cards
from fmiqa.visualize.difference import PAPER, PredictionDifference, prediction_difference
from fmiqa.visualize.dissection.broden import Broden
from fmiqa.visualize.dissection.concepts import Concept, ConceptData, ConceptImage
from fmiqa.visualize.dissection.planted import PlantedConcepts
from fmiqa.visualize.dissection.result import Dissection
from fmiqa.visualize.dissection.run import dissect
from fmiqa.visualize.drawing import heat, outlined, overlay_error, overlay_loss, overlay_relevance, picture_grid
from fmiqa.visualize.exemplars import (
    Exemplar,
    ReferenceImages,
    as_seen,
    exemplars,
    local_quality,
    mean_activations,
    native,
)
from fmiqa.visualize.patches import ConditionalSampler, MarginalSampler
from fmiqa.visualize.plots import plot_agreement, plot_correlation, plot_layers

__all__ = [
    "prediction_difference",
    "PredictionDifference",
    "ConditionalSampler",
    "MarginalSampler",
    "PAPER",
    "maximize_activation",
    "mean_activations",
    "MaximalImages",
    "dissect",
    "Dissection",
    "Broden",
    "PlantedConcepts",
    "Concept",
    "ConceptImage",
    "ConceptData",
    "exemplars",
    "Exemplar",
    "local_quality",
    "ReferenceImages",
    "as_seen",
    "native",
    "map_cards",
    "Cards",
    "MapCard",
    "overlay_relevance",
    "overlay_loss",
    "overlay_error",
    "heat",
    "outlined",
    "picture_grid",
    "plot_curve",
    "plot_agreement",
    "plot_layers",
    "plot_frequency",
    "plot_correlation",
    "plot_weights",
]
