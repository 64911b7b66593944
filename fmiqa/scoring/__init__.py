"""Map scores: images x feature maps."""

from fmiqa.scoring.matrix import ScoreMatrix
from fmiqa.scoring.run import score_matrix
from fmiqa.scoring.samples import write_samples
from fmiqa.scoring.shards import merge_shards
from fmiqa.scoring.store import ScoreStore
from fmiqa.scoring.store_writer import StoreWriter, write_store

__all__ = ["ScoreMatrix", "ScoreStore", "StoreWriter", "merge_shards", "score_matrix", "write_samples", "write_store"]
