"""Ready-made metrics: selections that ship with the package, with what is known about them.

Each metric is a card (`NAME.json`, with the selection and all figures) and, where the package brings its weights, a
file of weights (`NAME.safetensors`). Both are written by `benchmarks/zoo.py`, never by hand.
"""

from fmiqa.zoo.card import Card as Card
from fmiqa.zoo.card import list_metrics as list_metrics
from fmiqa.zoo.card import metric_names as metric_names
from fmiqa.zoo.ready import Rating as Rating
from fmiqa.zoo.ready import ReadyMetric as ReadyMetric
from fmiqa.zoo.ready import load_metric as load_metric
