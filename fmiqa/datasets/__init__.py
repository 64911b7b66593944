"""Data sets of scored image pairs; the scores always rise with quality."""

from fmiqa.datasets.base import Batch, ImageDataset, IQADataset, Record, Sample, collate
from fmiqa.datasets.catalogue import CatalogueEntry, catalogue_of
from fmiqa.datasets.cidgd import CIDGD
from fmiqa.datasets.cidiq import CIDIQ
from fmiqa.datasets.csiq import CSIQ
from fmiqa.datasets.csv import CSVDataset
from fmiqa.datasets.demo import Demo
from fmiqa.datasets.distortions import distort
from fmiqa.datasets.images import read_image, to_tensor
from fmiqa.datasets.kadid10k import KADID10k
from fmiqa.datasets.live import LIVE
from fmiqa.datasets.pairing import pair_folders
from fmiqa.datasets.pipal import PIPAL
from fmiqa.datasets.tid2008 import TID2008
from fmiqa.datasets.tid2013 import TID2013

__all__ = [
    "Batch",
    "CATALOGUE",
    "CIDGD",
    "CIDIQ",
    "CSIQ",
    "CSVDataset",
    "CatalogueEntry",
    "Demo",
    "IQADataset",
    "ImageDataset",
    "KADID10k",
    "LIVE",
    "PIPAL",
    "Record",
    "Sample",
    "TID2008",
    "TID2013",
    "collate",
    "distort",
    "pair_folders",
    "read_image",
    "to_tensor",
]

CATALOGUE = catalogue_of(TID2013, TID2008, CSIQ, CIDIQ, CIDGD, KADID10k, LIVE, PIPAL)
"""The published sets by key."""
