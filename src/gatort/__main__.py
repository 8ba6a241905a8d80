"""`python -m gatort`: the `gatort` command."""

import sys

from gatort.launch.cli import main

if __name__ == "__main__":
    sys.exit(main())
