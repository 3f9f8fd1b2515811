"""Run the command line: `python -m fleet`."""

import sys

from fleet.cli.main import main

sys.exit(main())
