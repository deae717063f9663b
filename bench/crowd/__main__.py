"""`python -m bench.crowd [--servers 4000]`."""

from __future__ import annotations

import sys

from bench.crowd.run import main

if __name__ == "__main__":
    sys.exit(main())
