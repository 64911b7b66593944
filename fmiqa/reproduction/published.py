"""The figures that the paper published."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["ALL_MAPS", "PUBLISHED", "TABLES", "Published"]


class Published(NamedTuple):
    """What the paper says of a network on a data set. In sample: chosen and measured on the same images.

    Args:
        maps: How many feature maps were selected.
        plcc: Non-linear PLCC of the selected maps.
        all_plcc: Non-linear PLCC of all maps.
    """

    maps: int
    plcc: float
    all_plcc: float


TABLES = {"table1": "alexnet", "table2": "vgg16"}
"""The network of each table; the numbers are this library's, a table of the paper a network."""

ALL_MAPS = {"alexnet": 1152, "vgg16": 4224}
"""How many feature maps each network has."""

PUBLISHED = {
    "alexnet": {
        "cidiq100": Published(2, 0.89, 0.80),
        "cidiq50": Published(12, 0.87, 0.68),
        "csiq": Published(16, 0.90, 0.87),
        "tid2013": Published(9, 0.95, 0.91),
        "cidgd": Published(13, 0.75, 0.61),
    },
    "vgg16": {
        "cidiq100": Published(35, 0.93, 0.85),
        "cidiq50": Published(28, 0.92, 0.80),
        "csiq": Published(25, 0.91, 0.83),
        "tid2013": Published(24, 0.90, 0.88),
        "cidgd": Published(5, 0.71, 0.62),
    },
}
"""Network -> data set (a key of `fmiqa.datasets.CATALOGUE`) -> figures, in the paper's order."""
