from __future__ import annotations

import pytest

from fmiqa.datasets import CATALOGUE

KEYS = ("tid2013", "tid2008", "csiq", "cidiq50", "cidiq100", "cidgd", "kadid10k", "live", "pipal")
# As the publications count them.
COUNTS = {
    "tid2013": (3000, 25, 24),
    "tid2008": (1700, 25, 17),
    "csiq": (866, 30, 6),
    "cidiq50": (690, 23, 6),
    "cidiq100": (690, 23, 6),
    "cidgd": (None, None, None),
    "kadid10k": (10125, 81, 25),
    "live": (779, 29, 5),
    "pipal": (23200, 200, 7),
}


def test_every_set_is_there_once() -> None:
    assert tuple(CATALOGUE) == KEYS
    assert len({entry.name for entry in CATALOGUE.values()}) == len(KEYS)


@pytest.mark.parametrize("key", KEYS)
def test_what_is_known_of_each(key: str) -> None:
    entry = CATALOGUE[key]
    assert entry.key == key
    assert (entry.images, entry.references, entry.distortions) == COUNTS[key]
    assert all((entry.scores, entry.terms, entry.available_from, entry.citation))
    assert ("lower = better" in entry.scores) == (key in ("csiq", "live"))
