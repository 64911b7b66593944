"""Choosing feature maps."""

from fmiqa.selection.criteria import Criterion
from fmiqa.selection.forward import Direction, forward_select
from fmiqa.selection.result import Selection, Step

__all__ = ["Criterion", "Direction", "Selection", "Step", "forward_select"]
