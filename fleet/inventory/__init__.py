"""The Ansible inventory as typed objects, checked: which devices a fleet has, and the rules of its rollouts.

Enter at `model.load`: it reads what Ansible reads, and names every fault. `rollout_policy` has the rules under
`rollout:`, `workers` who works on which device; `provenance` finds the file that sets a value, `duplicates` and
`ssh_checks` refuse unsafe content.
May import errors and the agent's core; neither devices nor releases.
"""
