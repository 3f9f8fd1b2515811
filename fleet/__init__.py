"""OPERATE: publish releases, run and judge rollouts. The entry point is `cli` (`python -m fleet`).

Playbooks call `fleet wave`. `rollout` decides, `execution` runs Ansible, `records` stores plans, states and results,
`inventory` reads the declared fleet, `devices` parses the agents' reports, and `releases` publishes.
Imports go down: cli > execution | rollout > records > devices | inventory | releases > audit_log | locks | wheelhouse >
errors. From the agent, only core, update, storage and monitoring may be imported; from the pipeline, nothing.
"""
