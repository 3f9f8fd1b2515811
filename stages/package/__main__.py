from stages.core.errors import run
from stages.package.stage import main

run(main)
