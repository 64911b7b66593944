"""Map scores: images x feature maps."""

from fmiqa.scoring.matrix import ScoreMatrix
from fmiqa.scoring.run import score_matrix

__all__ = ["ScoreMatrix", "score_matrix"]
