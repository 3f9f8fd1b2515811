"""Operate a fleet: publish releases, run and judge rollouts. The entry point is `cli` (`python -m fleet`).

Playbooks call `fleet wave`. `rollout` decides, `execution` runs Ansible, `records` stores plans, states and results,
`inventory` reads the declared fleet, `devices` parses the agents' reports, and `releases` publishes.
A module may import only modules to its right: cli > execution | rollout > records > devices | inventory | releases >
audit_log | locks | wheelhouse > errors. It may also import core, update, storage and monitoring of the agent, but
nothing of the pipeline.
"""
