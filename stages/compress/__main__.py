from stages.compress.stage import main
from stages.core.errors import run

run(main)
