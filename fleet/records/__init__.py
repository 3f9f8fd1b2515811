"""Rollouts on disk, below rollouts/: what was planned, how far it came, what was done and by whom.

`store` finds, begins and locks records; `state` has the types of state.json, `schemas` checks every file when it is
read. `rollout_audit` appends to audit.jsonl and reads it as CSV, `report` writes a record for people.
May import devices, inventory, releases and what is below them.
"""
