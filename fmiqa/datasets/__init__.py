"""Data sets of scored image pairs; the scores always rise with quality."""

from fmiqa.datasets.base import ImageDataset, IQADataset, Record, Sample
from fmiqa.datasets.csv import CSVDataset
from fmiqa.datasets.demo import Demo
from fmiqa.datasets.images import read_image
from fmiqa.datasets.tid2013 import TID2013

__all__ = ["TID2013", "CSVDataset", "Demo", "IQADataset", "ImageDataset", "Record", "Sample", "read_image"]
