"""Keep a record of each rollout in rollouts/: its plan, its progress, and its audit trail.

`rollout_folder` finds, begins and locks rollouts. `rollout_plan` and `state` define the types of plan.json and
state.json, and `record_files` validates both files when they are read. `rollout_audit` appends to audit.jsonl, reads
it and converts it to CSV. `report` writes report.md and report.html. This package may import devices, inventory,
releases and the packages that these three packages may import.
"""
