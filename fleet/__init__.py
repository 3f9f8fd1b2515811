"""Operate a fleet of devices: publish releases, roll them out, and judge the rollouts.

The entry point is `cli` (`python -m fleet`). `rollout` makes the decisions of a rollout, `execution` runs Ansible,
`records` stores plans, states and results, `inventory` reads the declared fleet, `devices` parses the responses of
agents, and `releases` publishes releases. Playbooks call `fleet wave` for the decisions.

A module may import only modules to its right: cli > execution | rollout > records > devices | inventory | releases >
audit_log | locks | wheelhouse > errors. It may also import the agent's packages core, update, storage and monitoring,
but no module of the pipeline.
"""
