"""The Ansible inventory as typed objects, checked: the devices of a fleet, its rollout policy and its workers.

Enter at `model.load`, which reads the inventory with Ansible (`listing`) and reports every fault. `rollout_policy`
parses `rollout:`, and `workers` assigns devices to workers. `provenance` finds the file that sets a value; `duplicates`
and `ssh_checks` refuse unsafe content.
May import errors and the agent's core; neither devices nor releases.
"""
