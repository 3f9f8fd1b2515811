"""The life of a release on a device: install, activate, trial, confirm, roll back, boot.

Enter at `operations`, `switching` and `status`, one function for each command, and at `boot`, which the service runs
first. `trial_rules` decides about a trial; `results` and `control_messages` are the types; `control_client` connects to
the running service.

May import `inference`, `storage`, `update` and `core`.
"""
