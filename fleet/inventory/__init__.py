"""The Ansible inventory as typed objects, checked: which devices a fleet has, and what its rollouts have to keep to.

`model.load` is the way in: it reads what Ansible reads, and names every fault. `rollout_policy` has the rules under
`rollout:`, `workers` who works on which device, `provenance` which file says a value, `duplicates` and `ssh_checks`
what an inventory must not say. May import errors; neither devices nor releases.
"""
