"""Run Ansible, here or through workers, with live progress.

`playbook.Run` runs a playbook on this machine; `distributed.Remote` does the same steps through the workers of an
inventory, with a `worker_job.Job` for each. `live.Live` reads both kinds of events, and tells what happens.
Nothing is decided here: the playbooks ask `fleet wave`. May import devices, inventory, releases and what is below them.
"""
