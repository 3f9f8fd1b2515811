from stages.core.errors import run
from stages.validate.stage import main

run(main)
