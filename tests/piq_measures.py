"""Measures of the package piq as parameters of tests."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import pytest

from fmiqa.measures import Piq


def piq_measures(*metrics: str) -> list[Any]:
    """A measure for each metric; where piq is missing, one parameter that skips the test."""
    if find_spec("piq") is None:
        return [pytest.param(None, marks=pytest.mark.skip(reason="needs the package piq"), id="piq")]
    return [Piq(metric) for metric in metrics]
