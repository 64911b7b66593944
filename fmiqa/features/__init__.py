"""Feature maps of a pre-trained network."""

from fmiqa.features.cost import Costs, layer_costs
from fmiqa.features.extractor import FeatureExtractor
from fmiqa.features.viewing import Viewing, pixels_per_degree

__all__ = ["Costs", "FeatureExtractor", "Viewing", "layer_costs", "pixels_per_degree"]
