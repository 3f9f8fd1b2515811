from stages.core.errors import run
from stages.prepare.stage import main

run(main)
