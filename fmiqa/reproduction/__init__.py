"""The paper's tables beside ours, and what maps chosen on one data set are worth on another."""

from fmiqa.reproduction.cross_dataset import CrossDataset, cross_dataset
from fmiqa.reproduction.published import PUBLISHED, TABLES, Published
from fmiqa.reproduction.result import Measured, Reproduction, Row
from fmiqa.reproduction.run import reproduce

__all__ = [
    "PUBLISHED",
    "TABLES",
    "CrossDataset",
    "Measured",
    "Published",
    "Reproduction",
    "Row",
    "cross_dataset",
    "reproduce",
]
