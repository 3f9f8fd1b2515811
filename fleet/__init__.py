"""OPERATE: publish releases, drive and judge rollouts. `python -m fleet --help`; playbooks call `fleet wave`.

`cli` is the way in. It may import `execution` and `rollout`, these `records`, and all of them `devices`, `inventory`
and `releases`; at the bottom are `errors`, `audit`, `locks` and `wheelhouse`. Of the agent only its core, update,
storage and monitoring are imported, of the pipeline nothing (contracts in pyproject.toml).
"""
