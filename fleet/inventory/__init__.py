"""Parse and check an Ansible inventory: the devices of a fleet, its rollout policy and its workers.

The entry point is `model.load`, which reads the inventory with Ansible (`listing`) and reports every error.
`rollout_policy` parses `rollout:`, and `workers` assigns devices to workers. `provenance` finds the file that sets a
variable. `duplicates` refuses duplicate keys, and `ssh_checks` refuses variables that disable the check of SSH host
keys. This package may import errors and the agent's core, but neither devices nor releases.
"""
