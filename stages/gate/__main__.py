from stages.core.errors import run
from stages.gate.stage import main

run(main)
