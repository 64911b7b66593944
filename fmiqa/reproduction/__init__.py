"""The paper's tables beside ours."""

from fmiqa.reproduction.published import PUBLISHED, TABLES, Published
from fmiqa.reproduction.result import Measured, Reproduction, TableRow
from fmiqa.reproduction.run import reproduce

__all__ = [
    "PUBLISHED",
    "TABLES",
    "Measured",
    "Published",
    "Reproduction",
    "TableRow",
    "reproduce",
]
