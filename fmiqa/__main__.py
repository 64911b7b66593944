"""`python -m fmiqa`: the same as the `fmiqa` command."""

from __future__ import annotations

import sys

from fmiqa.cli import main

if __name__ == "__main__":
    sys.exit(main())
