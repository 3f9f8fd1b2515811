from stages.core.errors import run
from stages.export.stage import main

run(main)
