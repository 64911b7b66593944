"""The published sets that can be loaded, with what one has to know to get and to use them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

from fmiqa.datasets.base import ImageDataset
from fmiqa.datasets.cidgd import CIDGD
from fmiqa.datasets.cidiq import CIDIQ, CIDIQ_WHOLE
from fmiqa.datasets.csiq import CSIQ
from fmiqa.datasets.kadid10k import KADID10k
from fmiqa.datasets.live import LIVE
from fmiqa.datasets.pipal import PIPAL
from fmiqa.datasets.published import Whole
from fmiqa.datasets.tid2008 import TID2008
from fmiqa.datasets.tid2013 import TID2013

__all__ = ["CATALOGUE", "CatalogueEntry"]


@dataclass(frozen=True)
class CatalogueEntry:
    """One published set.

    Args:
        key: what the command calls it.
        name: as papers write it.
        images: the number of scored images; None where it is not known.
        references: the number of references; None where it is not known.
        distortions: the number of distortion types; None where it is not known.
        scores: kind, range and direction of the scores as published; loaded, they rise with quality always.
        terms: under which terms it can be had, in short; those that come with the set count.
        source: where people get it, by the name of the page.
        citation: the publication to cite.
        load: makes the data set: `load(root, partial=False, name=None)`.

    Example:
        >>> CATALOGUE["csiq"].name, CATALOGUE["csiq"].images, CATALOGUE["csiq"].scores
        ('CSIQ', 866, 'DMOS 0 to 1, lower = better')
    """

    key: str
    name: str
    images: int | None
    references: int | None
    distortions: int | None
    scores: str
    terms: str
    source: str
    citation: str
    load: Callable[..., ImageDataset]


def _entry(
    key: str, whole: Whole, load: Callable[..., ImageDataset], *, terms: str, source: str, citation: str
) -> CatalogueEntry:
    counts = (whole.images, whole.references, whole.distortions)
    return CatalogueEntry(key, whole.name, *counts, whole.scores, terms, source, citation, load)


def _cidiq(distance: Literal[50, 100]) -> CatalogueEntry:
    return _entry(
        f"cidiq{distance}",
        CIDIQ_WHOLE[distance],
        partial(CIDIQ, distance=distance),
        terms="free of charge for research and academic purposes",
        source="Colourlab Image Database: Image Quality, Norwegian Colour and Visual Computing Laboratory, NTNU Gjøvik",
        citation="Liu, Pedersen, Hardeberg, CID:IQ - A New Image Quality Database, ICISP 2014",
    )


CATALOGUE = {
    entry.key: entry
    for entry in (
        _entry(
            "tid2013",
            TID2013.whole,
            TID2013,
            terms="free for research",
            source="Tampere Image Database 2013, page of N. Ponomarenko",
            citation="Ponomarenko et al., Image database TID2013: Peculiarities, results and perspectives, "
            "Signal Processing: Image Communication 30, 2015",
        ),
        _entry(
            "tid2008",
            TID2008.whole,
            TID2008,
            terms="free for research",
            source="Tampere Image Database 2008, page of N. Ponomarenko",
            citation="Ponomarenko et al., TID2008 - A Database for Evaluation of Full-Reference Visual Quality "
            "Assessment Metrics, Advances of Modern Radioelectronics 10, 2009",
        ),
        _entry(
            "csiq",
            CSIQ.whole,
            CSIQ,
            terms="for research; no licence text known here",
            source="CSIQ Image Quality Database, page of the Computational Perception and Image Quality Lab",
            citation="Larson, Chandler, Most apparent distortion: full-reference image quality assessment and the role "
            "of strategy, Journal of Electronic Imaging 19(1), 2010",
        ),
        _cidiq(50),
        _cidiq(100),
        _entry(
            "cidgd",
            CIDGD.whole,
            CIDGD,
            terms="not public: agree with the authors",
            source="the authors of the paper, Colourlab, NTNU Gjøvik",
            citation="Pedersen, Amirshahi, Colourlab Image Database: Geometric Distortions, "
            "Color and Imaging Conference 2021",
        ),
        _entry(
            "kadid10k",
            KADID10k.whole,
            KADID10k,
            terms="free for research; the pictures come from Pixabay",
            source="KADID-10k, image quality databases of the MMSP group, University of Konstanz",
            citation="Lin, Hosu, Saupe, KADID-10k: A Large-scale Artificially Distorted IQA Database, QoMEX 2019",
        ),
        _entry(
            "live",
            LIVE.whole,
            LIVE,
            terms="free to use and to pass on, copyright notice included and source acknowledged; password by form",
            source="LIVE Image Quality Assessment Database Release 2, page of the Laboratory for Image and Video "
            "Engineering, University of Texas at Austin",
            citation="Sheikh, Sabir, Bovik, A statistical evaluation of recent full reference image quality assessment "
            "algorithms, IEEE Transactions on Image Processing 15(11), 2006",
        ),
        _entry(
            "pipal",
            PIPAL.whole,
            PIPAL,
            terms="training part public for research, other parts held back for challenges",
            source="PIPAL project page; NTIRE 2021 challenge on perceptual image quality assessment",
            citation="Gu et al., PIPAL: a Large-Scale Image Quality Assessment Dataset for Perceptual Image "
            "Restoration, ECCV 2020",
        ),
    )
}
"""The published sets by key."""
