"""`python -m compress`, for where another program of the name `compress` comes first on the path."""

from __future__ import annotations

import sys

from compress.cli import main

if __name__ == "__main__":
    sys.exit(main())
