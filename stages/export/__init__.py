"""The `export` stage: convert the compressed network for one target, and compare the result with the torch model.

Start reading at `stage.export()`. `converters` holds the converter programs, and `conversion` runs them. Later stages
use `artifact` to read the files that this stage wrote. May import stages.networks (in converters), stages.report,
stages.params, stages.core and edge_agent.inference.
"""
