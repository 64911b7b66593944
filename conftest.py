"""What pytest leaves alone where an optional package is missing."""

from importlib.util import find_spec

collect_ignore = [] if find_spec("torchmetrics") else ["fmiqa/integrations/torchmetrics.py"]
