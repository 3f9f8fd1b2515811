"""OPERATE: publish releases, run and judge rollouts. Enter at `cli` (`python -m fleet`); playbooks call `fleet wave`.

`rollout` decides, `execution` runs Ansible, `records` keeps what happened, `inventory` is what is declared, `devices`
what agents report, and `releases` publishes.
Imports go down: cli > execution | rollout > records > devices | inventory | releases > audit | locks | wheelhouse >
errors; of the agent, only its core, update, storage and monitoring; of the pipeline, nothing.
"""
