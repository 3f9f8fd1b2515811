from stages.core.errors import run
from stages.evaluate.stage import main

run(main)
