"""Change the release that a device runs: install, activate, confirm, roll back, and choose the release at boot.

Start reading at `operations`, `switching`, `status` and `inspection`, which have one function for each command, and at
`boot`, which the service runs first. `trial_rules` decides whether a release on trial is confirmed or rolled back.
`results` has the types of the commands' results, and `unwritten` describes a state that is not on the disk yet.
`control_messages` has the types of the service's messages, and `control_client` sends requests to the running service.

May import `inference`, `storage`, `update` and `core`.
"""
