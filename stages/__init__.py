"""The pipeline: raw data in, a measured and packaged model out.

One package per stage of dvc.yaml: `python -m stages.<stage>` starts its program, `stage.py`. The packages core, params,
tables, metrics, networks and report hold what stages share; `make repro` calls `summary` and `restore`.

Imports go down: package | gate | summary | restore > evaluate > export | compress > train | prepare | validate |
collect > report | networks | tables > params | metrics > core; of the agent, only its inference, monitoring, storage.
"""
