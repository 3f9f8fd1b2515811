from stages.collect.stage import main
from stages.core.errors import run

run(main)
