from stages.core.errors import run
from stages.train.stage import main

run(main)
