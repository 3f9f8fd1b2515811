"""The pipeline: raw data in, measured and packaged model out.

One package per stage of dvc.yaml, each started as `python -m stages.<stage>` and read from its `stage.py`. The packages
core, params, tables, metrics, networks and report hold what stages share; `summary` and `restore` are called by
`make repro`.

Imports go down: package | gate | summary > evaluate > export | compress > train | prepare | validate | collect >
report | networks | tables > params | metrics > core. Of the agent, edge_agent.{inference,monitoring,storage} alone.
"""
