"""`python -m fleet`: the command line."""

import sys

from fleet.cli import main

sys.exit(main())
