"""`python -m r1rl`, which `accelerate launch -m r1rl` runs in each process."""

import sys

from r1rl.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
