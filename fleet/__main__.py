"""`python -m fleet`: the command line."""

import sys

from fleet.cli.main import main

sys.exit(main())
