"""Rollouts on disk, below rollouts/: what was planned, how far it came, what was done and by whom.

`rollout_folder` finds, begins and locks rollouts; `rollout_plan` and `state` hold the types of plan.json and
state.json, `record_files` validates both when they are read. `rollout_audit` appends to audit.jsonl and reads it as
CSV, `report` writes a report for people. May import devices, inventory, releases and what is below them.
"""
