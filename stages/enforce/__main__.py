from stages.core.errors import run
from stages.enforce.stage import main

run(main)
