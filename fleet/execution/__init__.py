"""Run Ansible, here or through workers, with live progress.

`playbook.PlaybookRun` runs a playbook on this machine. `distributed.DistributedRun` runs the same steps through the
workers of an inventory, with one `worker_job.WorkerJob` for each worker. `live_progress.LiveProgress` reads the events
of both and reports progress. Nothing is decided here: the playbooks call `fleet wave`.
May import devices, inventory, releases and the packages below them.
"""
