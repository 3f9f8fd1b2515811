"""Run Ansible on this machine or through workers, with live progress.

`playbook.PlaybookRun` runs a playbook on this machine. `distributed.DistributedRun` runs the same steps through the
workers of an inventory, and creates one `worker_job.WorkerJob` for each step on each worker.
`live_progress.LiveProgress` reads the events of both kinds of run and reports progress. This package makes no
decisions, because `fleet wave` makes them. This package may import devices, inventory, releases and the packages below
them.
"""
