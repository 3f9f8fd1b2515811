"""The pipeline, which turns raw data into a measured and packaged model.

Each stage of dvc.yaml has one package, and `python -m stages.<stage>` runs its `stage.py`. The packages core, params,
tables, metrics, networks and report contain code that several stages share. `make repro` also runs `summary` and
`restore`.

A package may import only from lower layers. These are the layers from top to bottom, separated by `>`; packages of the
same layer are separated by `|`: enforce | package | gate | summary | restore > evaluate > export | compress > train |
prepare | validate | collect > report | networks | tables > params | metrics > core. Of the agent's packages
(device/edge_agent), the stages may import only inference, monitoring and storage.
"""
