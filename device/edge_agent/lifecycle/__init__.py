"""Which release a device runs, and the way from one to the next: install, activate, trial, confirm, roll back, boot.

Enter at `operations`, one function for each command, and at `boot`, which the service starts with. `switching` changes
the state, `trial` has the rules of a trial, `control_client` speaks to the running service.

May import `inference`, `storage`, `update` and `core`.
"""
