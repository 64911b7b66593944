"""Feature maps of a pre-trained network."""

from fmiqa.features.extractor import FeatureExtractor
from fmiqa.features.viewing import Viewing, pixels_per_degree

__all__ = ["FeatureExtractor", "Viewing", "pixels_per_degree"]
