"""OPERATE: publish releases, run and judge rollouts. Enter at `cli` (`python -m fleet`); playbooks call `fleet wave`.

`rollout` decides, `execution` runs Ansible, `records` stores plans, states and results, `inventory` reads the declared
fleet, `devices` parses the agents' reports, and `releases` publishes.
Imports go down: cli > execution | rollout > records > devices | inventory | releases > audit_log | locks | wheelhouse >
errors; of the agent, only its core, update, storage and monitoring; of the pipeline, nothing.
"""
