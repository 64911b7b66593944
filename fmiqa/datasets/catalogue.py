"""The catalogue of published sets: what one has to know to get and to use them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fmiqa.datasets.base import ImageDataset
from fmiqa.datasets.published import PublishedDataset

__all__ = ["CatalogueEntry", "catalogue_of"]


@dataclass(frozen=True)
class CatalogueEntry:
    """One published set.

    Args:
        key: What the command calls it.
        name: The name as papers write it.
        images: The number of scored images; None where it is not known.
        references: The number of references; None where it is not known.
        distortions: The number of distortion types; None where it is not known.
        scores: Kind, range and direction of the scores as published; loaded, they rise with quality always.
        terms: Under which terms it can be had, in short; those that come with the set count.
        available_from: Where people get it, by the name of the page.
        citation: The publication to cite.
        load: Makes the data set: `load(root, partial=False, name=None)`.

    Example:
        >>> from fmiqa.datasets import CATALOGUE
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
    available_from: str
    citation: str
    load: Callable[..., ImageDataset]


def catalogue_of(*sets: type[PublishedDataset]) -> dict[str, CatalogueEntry]:
    """The entries of published sets, by key."""
    return {
        whole.key: CatalogueEntry(
            key=whole.key,
            name=whole.name,
            images=whole.images,
            references=whole.references,
            distortions=whole.distortions,
            scores=whole.scores,
            terms=whole.terms,
            available_from=whole.available_from,
            citation=whole.citation,
            load=load,
        )
        for kind in sets
        for whole, load in kind.editions()
    }
