"""Network dissection: which concept each feature map detects."""

from fmiqa.visualize.dissection.broden import Broden
from fmiqa.visualize.dissection.concepts import Concept, ConceptData, ConceptImage
from fmiqa.visualize.dissection.planted import PlantedConcepts
from fmiqa.visualize.dissection.result import Dissection
from fmiqa.visualize.dissection.run import dissect

__all__ = ["Broden", "Concept", "ConceptImage", "ConceptData", "Dissection", "PlantedConcepts", "dissect"]
